"""Machine type and guest memory that differ: what armferry says beforehand, and the real QEMUs.

Each case is a guest and a destination of one release that differ in one thing; docs/memory.md is
written of all of them.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from armferry.decide import Answer, MessageClass, judge, make_plan
from armferry.ends import Move
from armferry.hosts.files.saved_file import Saved
from armferry.hosts.fingerprints.open_subject import open_subject
from armferry.hosts.fingerprints.saved_subject import stream_subject
from armferry.hosts.qmp.process import MachineSpec, QemuProcess
from armferry.lab.qemu_install import InstalledQemu
from armferry.policy import EMPTY
from armferry.rewriting.blocks import without_blocks
from armferry.rewriting.edits import edit_of
from armferry.rewriting.saved import ferry_file
from armferry.stream import StateEdit

from .often import often

pytestmark = pytest.mark.qemu

Named = Callable[[str], InstalledQemu]

DOCUMENT = Path(__file__).parents[2] / "docs" / "memory.md"
# release -> its machine type and another one it has
MACHINES = {
    "5.2.0": ("virt-5.2", "virt-5.0"),
    "7.2.22": ("virt-7.2", "virt-7.1"),
    "10.0.2": ("virt-10.0", "virt-9.2"),
    "10.0.13": ("virt-10.0", "virt-9.2"),
    "11.1.3": ("virt-10.1", "virt-10.2"),
}
NIC = "virtio-net-pci,romfile="


@dataclass(frozen=True, slots=True)
class Half:
    """One end: what is added to the machine, the CPU, MiB, vCPUs, devices; `{...}` are files."""

    options: str = ""
    cpu: str = "cortex-a57"
    memory: int = 64
    smp: int = 1
    extra: tuple[str, ...] = ()
    other_machine: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """A guest and where it goes; `ends` is how every release ends, `since` the first to have it."""

    name: str
    here: Half
    there: Half
    ends: MessageClass
    quick: bool = False


def device(text: str) -> Half:
    return Half(extra=("-device", text))


PLAIN = Half()
BACKEND = ("-object", "memory-backend-ram,id=other,size=64M", "-machine", "memory-backend=other")
CASES = (
    Case("the same", PLAIN, PLAIN, MessageClass.LOADS, quick=True),
    Case("64 MiB to 128", PLAIN, Half(memory=128), MessageClass.BLOCK_SIZE, quick=True),
    Case("128 MiB to 64", Half(memory=128), PLAIN, MessageClass.BLOCK_SIZE),
    Case("another machine type", PLAIN, Half(other_machine=True), MessageClass.MACHINE_TYPE, True),
    Case("mte=on to off", Half(",mte=on", "max"), Half(cpu="max"), MessageClass.UNKNOWN_BLOCK,
         quick=True),
    Case("secure=on to off", Half(",secure=on"), PLAIN, MessageClass.UNKNOWN_BLOCK),
    Case("acpi=on to off", PLAIN, Half(",acpi=off"), MessageClass.UNKNOWN_BLOCK),
    Case("acpi=off to on", Half(",acpi=off"), PLAIN, MessageClass.LOADS),
    Case("boot ROM to a larger", device(NIC + "{small}"), device(NIC + "{big}"),
         MessageClass.BLOCK_SIZE, quick=True),
    Case("boot ROM to a smaller", device(NIC + "{big}"), device(NIC + "{small}"),
         MessageClass.BLOCK_SIZE),
    Case("boot ROM to none", device(NIC + "{small}"), device(NIC), MessageClass.UNKNOWN_BLOCK),
    Case("no boot ROM to one", device(NIC), device(NIC + "{small}"), MessageClass.LOADS),
    Case("device with ROM to none", device(NIC + "{small}"), PLAIN, MessageClass.UNKNOWN_BLOCK),
    Case("device without ROM to none", device(NIC), PLAIN, MessageClass.UNKNOWN_DEVICE, quick=True),
    Case("memory in a backend of another name", Half(extra=BACKEND), PLAIN,
         MessageClass.UNKNOWN_BLOCK),
    Case("GICv2 to GICv3", PLAIN, Half(",gic-version=3"), MessageClass.UNKNOWN_DEVICE),
    Case("GICv3 to GICv2", Half(",gic-version=3"), PLAIN, MessageClass.UNKNOWN_DEVICE),
    Case("1 vCPU to 2", PLAIN, Half(smp=2), MessageClass.REGISTERS_REFUSED),
    Case("2 vCPUs to 1", Half(smp=2), PLAIN, MessageClass.REGISTERS_REFUSED),
    Case("1 vCPU to 2, GICv3", Half(",gic-version=3"), Half(",gic-version=3", smp=2),
         MessageClass.VCPUS),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """What one release did, and whether both its end and its words were predicted."""

    case: Case
    release: str
    group: MessageClass
    message: str


class Rig:
    def __init__(self, qemu: Named, folder: Path) -> None:
        self.qemu = qemu
        self.folder = folder
        self.files = {"small": folder / "small.rom", "big": folder / "big.rom"}
        for path, length in zip(self.files.values(), (60_000, 300_000), strict=True):
            path.write_bytes(b"\x55\xaa" + bytes(length - 2))

    def spec(self, release: str, half: Half) -> MachineSpec:
        files = {name: str(path) for name, path in self.files.items()}
        machine = MACHINES[release][half.other_machine] + half.options
        extra = tuple(word.format(**files) for word in half.extra)
        return MachineSpec(
            machine=machine, cpu=half.cpu, memory=half.memory, smp=half.smp, extra=extra
        )

    def saved(self, release: str, half: Half) -> Path:
        path = self.folder / f"{release}-{abs(hash(half))}.state"
        if not path.exists():
            part = path.with_suffix(f".{id(half)}.part")
            with QemuProcess(self.qemu(release), self.spec(release, half), paused=True) as machine:
                machine.save(part)
                machine.quit()
            part.rename(path)
        return path

    def run(self, release: str, case: Case) -> Row:
        """Loads the case for real; raises AssertionError where it was predicted otherwise."""
        here, there = (
            open_subject(str(self.saved(release, half))).end for half in (case.here, case.there)
        )
        verdict = judge(Move.between(here, there, qemu=release), EMPTY)
        spec = self.spec(release, case.there)
        with QemuProcess(self.qemu(release), spec, paused=True, incoming=True) as machine:
            result = machine.load(self.saved(release, case.here))
        stock = verdict.stock
        assert stock is not None
        where = f"{release}, {case.name}: {result.stderr}"
        assert (stock.loads, stock.message_class) == (result.loaded, case.ends), where
        said = "\n".join(words_of(result.stderr))
        if case.ends is not MessageClass.VCPUS:  # whose words hang on what QEMU then misreads
            assert said == stock.message, where
        if not result.loaded:
            assert verdict.answer is Answer.FAILS, where
        return Row(case, release, stock.message_class, stock.message)


def words_of(stderr: str) -> Iterator[str]:
    """What QEMU says of the load, without its name and what it said when it started."""
    for line in stderr.splitlines():
        text = line.partition(": ")[2]
        # registers that are missing are warned of during the load
        if text and (not text.startswith("warning: ") or "handle_cpreg" in text):
            yield text


@pytest.fixture(scope="session")
def rig(qemu_release: Named, tmp_path_factory: pytest.TempPathFactory) -> Rig:
    return Rig(qemu_release, tmp_path_factory.mktemp("memory"))


@pytest.mark.parametrize(
    ("release", "case"),
    often(
        [(release, one) for release in MACHINES for one in CASES if one.quick],
        lambda case: case[0] == "10.0.13" or case[1].ends is MessageClass.BLOCK_SIZE,
    ),
    ids=lambda part: getattr(part, "name", part),
)
def test_what_qemu_says_is_predicted(rig: Rig, case: Case, release: str) -> None:
    rig.run(release, case)


@pytest.mark.full
@pytest.mark.parametrize("release", ["7.2.22", "10.0.13", "11.1.3"])
def test_memory_tags_that_nobody_touched_are_left_out(rig: Rig, release: str) -> None:
    here, there = Half(",mte=on", "max"), Half(cpu="max")
    source, target = (open_subject(str(rig.saved(release, half))).end for half in (here, there))
    plan = make_plan(Move.between(source, target, qemu=release), EMPTY)
    sent = rig.folder / f"{release}.sent"

    def decide(saved: Saved) -> StateEdit:
        guest = stream_subject("the guest", saved).end
        verdict = judge(Move.between(guest, target, qemu=release), plan.policy)
        assert verdict.answer is Answer.WORKS_WITH_POLICY, verdict.obstacles
        return edit_of(verdict)

    names = frozenset({"mach-virt.tag"})
    with without_blocks(rig.saved(release, here), names, rig.folder) as stripped:
        ferry_file(str(stripped), sent, decide)
    with QemuProcess(
        rig.qemu(release), rig.spec(release, there), paused=True, incoming=True
    ) as machine:
        result = machine.load(sent)
    assert result.loaded, result.stderr


@pytest.mark.full
def test_every_case_on_every_release(rig: Rig) -> None:
    for release in MACHINES:
        rig.qemu(release)
    with ThreadPoolExecutor(2) as pool:
        rows = list(
            pool.map(lambda one: rig.run(*one), ((r, case) for case in CASES for r in MACHINES))
        )
    DOCUMENT.write_text("\n".join(written(rows)) + "\n", encoding="utf-8")


def written(rows: list[Row]) -> Iterator[str]:
    yield "# Machine type and guest memory that differ, on five QEMU releases"
    yield ""
    yield (
        "Written by `tests/e2e/test_memory_pairs.py` (`make test-full`), which runs the real "
        "QEMUs: a guest of each release, under TCG, into a destination of the same release that "
        "differs in one thing."
    )
    yield ""
    told = sum(1 for row in rows if row.case.ends is not MessageClass.VCPUS)
    yield (
        f"How each load ends was predicted in {len(rows)} of {len(rows)} loads, and what QEMU "
        f"prints to the letter in the {told} whose words do not hang on what QEMU misreads. QEMU "
        "compares the machine type, then the blocks of guest memory, before any device or register."
    )
    yield ""
    yield "| guest to destination | how it ends |"
    yield "|---|---|"
    for case in CASES:
        yield f"| {case.name} | {case.ends.value} |"
    yield ""
    yield "## What each release prints"
    for case in CASES:
        mine = [row for row in rows if row.case is case and row.message]
        if not mine:
            continue
        yield ""
        yield f"### {case.name}"
        for message in dict.fromkeys(shortened(row.message) for row in mine):
            releases = [row.release for row in mine if shortened(row.message) == message]
            yield ""
            yield f"{', '.join(releases)}:"
            yield ""
            yield from (f"    {line}" for line in message.splitlines())


def shortened(message: str) -> str:
    """A message without the list of registers that only one end has."""
    lines = [line for line in message.splitlines() if "handle_cpreg" not in line]
    return "\n".join(lines)
