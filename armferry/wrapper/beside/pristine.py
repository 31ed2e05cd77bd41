"""A guest that begins with another PSCI version than this host's newest.

A QEMU without `kvm-psci-version` cannot set it; the kernel can, through the guest's state. QEMU
starts paused and waits for a migration; it gets a stream of nothing but its own vCPUs as they are
after reset, with that version; a reset of the machine then puts everything in place that no
stream brought, and the guest starts. What a stream leaves out, QEMU leaves alone, and the version
outlives a reset (Documentation/virt/kvm/arm/fw-pseudo-registers.rst), so nothing of the guest has
run before and nothing else differs.
"""

import contextlib
import socket
import time
from collections.abc import Callable
from pathlib import Path

from armferry.hosts.fingerprints.probe import Vcpus
from armferry.hosts.qmp.client import MonitorFault, QmpClient
from armferry.policy import PsciVersion
from armferry.registers import name, psci_version_text
from armferry.stream.cpu import CPU_SECTION, CpuEdit, rewrite_cpu
from armferry.stream.rewrite import rewrite_sections
from armferry.stream.wire import BE32, SectionType
from armferry.wrapper.errors import ArgumentFault, SetUpFault

__all__ = ["Pristine", "pristine_lists", "pristine_stream"]

_LIMIT = 60.0
_TICK = 0.01


def pristine_lists(vcpus: Vcpus, version: PsciVersion, program: str) -> list[dict[int, int]]:
    """The register lists with that PSCI version. Raises ArgumentFault if it is not offered."""
    lists: list[dict[int, int]] = []
    for cpu in vcpus.saved.cpus:
        own = [index for index in cpu.registers if name(index) == "PSCI_VERSION"]
        if not own:
            raise ArgumentFault(
                f"{program}: kvm-psci-version={version}: this host's kernel does not let the "
                "PSCI version be set"
            )
        newest = cpu.registers[own[0]]
        if version.value > newest:
            raise ArgumentFault(
                f"{program}: kvm-psci-version={version}: this host's kernel offers PSCI "
                f"{psci_version_text(newest)} at most"
            )
        lists.append({**cpu.registers, own[0]: version.value})
    return lists


def pristine_stream(vcpus: Vcpus, lists: list[dict[int, int]]) -> bytes:
    """A whole migration stream with the vCPUs, given `lists`, and nothing else."""
    cpus = vcpus.saved.cpus
    payloads = {
        (CPU_SECTION, cpu.instance): rewrite_cpu(cpu, CpuEdit(registers))
        for cpu, registers in zip(cpus, lists, strict=True)
    }
    state = rewrite_sections(tuple(cpu.section for cpu in cpus), payloads)
    ends = bytes([SectionType.END, SectionType.DESCRIPTION]) + BE32.pack(2) + b"{}"
    return vcpus.head + state + ends


class Pristine:
    """Starts a QEMU that waits at `incoming` with `stream`; `control` is a monitor of its own.

    `paused` says that the user wants it to stay paused, `shuts_down_on_reboot` that the user's
    guest ends when it is reset (`-no-reboot`); the reset that begins it is none of those.
    """

    def __init__(
        self, stream: bytes, folder: Path, *, paused: bool, shuts_down_on_reboot: bool
    ) -> None:
        self._stream = stream
        self._incoming = folder / "pristine"
        self._control = folder / "control"
        self._paused = paused
        self._shuts_down = shuts_down_on_reboot

    @property
    def arguments(self) -> list[str]:
        """What QEMU's command line needs besides."""
        chardev = f"socket,id=armferry-control,path={self._control},server=on,wait=off"
        words = ["-incoming", f"unix:{self._incoming}", "-chardev", chardev]
        words += ["-qmp", "chardev:armferry-control"]
        return words if self._paused else ["-S", *words]

    def load(self, alive: Callable[[], bool]) -> None:
        """Gives QEMU its vCPUs, puts the rest in place and lets it start. Raises SetUpFault."""
        with _connected(self._incoming, alive) as connection:
            connection.sendall(self._stream)
        connection = _connected(self._control, alive)
        try:
            with QmpClient(connection, "QEMU", limit=_LIMIT) as monitor:
                self._put_in_place(monitor)
        except (SetUpFault, MonitorFault) as error:
            raise SetUpFault(
                f"the guest could not be given its PSCI version ({error}): QEMU's own "
                "messages tell why; a kernel that refuses the version says Invalid argument"
            ) from error

    def _put_in_place(self, monitor: QmpClient) -> None:
        try:
            _wait_past(monitor, "inmigrate")
            if self._shuts_down:
                monitor.execute("set-action", {"reboot": "reset"})
            monitor.execute("system_reset")
            _wait_past(monitor, "paused")
            if self._shuts_down:
                monitor.execute("set-action", {"reboot": "shutdown"})
        except (SetUpFault, MonitorFault):
            with contextlib.suppress(MonitorFault):
                monitor.execute("quit")  # nobody else could end it
            raise
        if not self._paused:
            monitor.execute("cont")


def _wait_past(monitor: QmpClient, state: str) -> None:
    """Returns when QEMU's run state is another one. Raises SetUpFault or
    MonitorFault."""
    deadline = time.monotonic() + _LIMIT
    while monitor.execute("query-status")["status"] == state:
        if time.monotonic() > deadline:
            raise SetUpFault(f"QEMU stays {state}")
        time.sleep(_TICK)


def _connected(path: Path, alive: Callable[[], bool]) -> socket.socket:
    """A connection to a QEMU that is about to listen. Raises SetUpFault when it ends instead."""
    while alive():
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            time.sleep(_TICK)
            continue
        return connection
    raise SetUpFault("QEMU ended before it began; its own messages tell why")
