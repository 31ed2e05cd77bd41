"""What a QEMU command line asks for, as far as the register list and a migration care.

Knows `-machine`, `-accel`, `-cpu`, `-smp` and the switches that decide how QEMU starts (QEMU's
system/invocation manual). Everything else on the command line is none of its business.
"""

import json
from dataclasses import dataclass

from armferry.hosts.qmp.options import number_in, options_of
from armferry.hosts.qmp.process import BARE
from armferry.option_text import joined, keyed, segments

__all__ = ["CommandLine", "is_main_channel", "read_command_line"]

_BACKENDS = frozenset(("accel", "memory-backend", "pflash0", "pflash1", "kernel", "initrd",
                       "append", "dtb", "dumpdtb", "firmware", "graphics", "memory", "smp", "type",
                       "dump-guest-core", "mem-merge", "confidential-guest-support"))  # fmt: skip
"""Machine options that name things outside the CPU, which a probe does without."""

_SMP_FACTORS = ("drawers", "books", "sockets", "dies", "clusters", "modules", "cores", "threads")


@dataclass(frozen=True, slots=True)
class CommandLine:
    """`machine` is the type alone; `machine_text` has its options that matter to the CPU too.

    `cpu` is the text of `-cpu` (empty: the machine's default), `model` its first part.
    `accelerators` are in the order in which QEMU tries them. `incoming` is None without one.
    `snapshot` says that the guest comes out of one (`-loadvm`).
    """

    machine: str
    machine_text: str
    cpu: str
    accelerators: tuple[str, ...]
    vcpus: int
    globals: tuple[str, ...]
    incoming: str | None
    paused: bool
    daemonize: bool
    preconfig: bool
    snapshot: bool
    shuts_down_on_reboot: bool

    @property
    def model(self) -> str:
        """The CPU model, empty when the machine decides."""
        return segments(self.cpu)[0]

    def probe_words(self, accelerator: str) -> list[str]:
        """The same machine for a question: without devices, disks and memory to speak of."""
        words = [*BARE, "-machine", self.machine_text, "-accel", accelerator]
        words += ["-cpu", self.cpu] if self.cpu else []
        words += ["-smp", str(self.vcpus), "-m", "64"]
        return words + [word for text in self.globals for word in ("-global", text)]


def read_command_line(words: list[str]) -> CommandLine:
    """What the command line `words` (without the program) asks for; the properties taken out."""
    machine: dict[str, str] = {}
    accelerators: list[str] = []
    smp: dict[str, str] = {}
    cpu = ""
    incoming = None
    reboot = ""
    flags: set[str] = set()
    all_globals: list[str] = []
    for option in options_of(words):
        value = option.value or ""
        match option.name:
            case "machine" | "M":
                machine.update(keyed(value, "type"))
            case "accel":
                accelerators.append(segments(value)[0].removeprefix("accel="))
            case "enable-kvm":
                accelerators.append("kvm")
            case "cpu":
                cpu = value
            case "smp":
                smp.update(keyed(value, "cpus"))
            case "global":
                all_globals.append(value)
            case "incoming" if is_main_channel(value):
                incoming = value
            case "action":
                reboot = dict(keyed(value)).get("reboot", reboot)
            case "no-reboot":
                reboot = "shutdown"
            case "S" | "daemonize" | "preconfig" | "loadvm":
                flags.add(option.name)
    if not accelerators and machine.get("accel"):
        accelerators = machine["accel"].split(":")
    kept = [(key, value) for key, value in machine.items() if key not in _BACKENDS]
    kind = machine.get("type", "")
    return CommandLine(
        machine=kind,
        machine_text=joined([("type", kind), *kept], "type"),
        cpu=cpu,
        accelerators=tuple(accelerators or ["tcg"]),
        vcpus=_vcpus(smp),
        globals=tuple(all_globals),
        incoming=incoming,
        paused="S" in flags,
        daemonize="daemonize" in flags,
        preconfig="preconfig" in flags,
        snapshot="loadvm" in flags,
        shuts_down_on_reboot=reboot == "shutdown",
    )


def is_main_channel(incoming: str) -> bool:
    """Whether the guest comes by this value of `-incoming`: JSON may describe another channel."""
    if not incoming.startswith("{"):
        return True
    try:
        channel = json.loads(incoming)
    except ValueError:
        return True  # its reader says what is wrong with it
    return not isinstance(channel, dict) or channel.get("channel-type", "main") == "main"


def _vcpus(smp: dict[str, str]) -> int:
    """How many vCPUs `-smp` starts; 1 for text that QEMU will refuse."""
    found = ((key, number_in(text)) for key, text in smp.items())
    numbers = {key: number for key, number in found if number is not None}
    if "cpus" in numbers:
        return max(1, numbers["cpus"])
    if "maxcpus" in numbers:
        return max(1, numbers["maxcpus"])
    count = 1
    for factor in _SMP_FACTORS:
        count *= max(1, numbers.get(factor, 1))
    return count
