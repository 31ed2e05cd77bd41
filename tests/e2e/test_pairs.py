"""Every ordered pair of the rig's releases: stock QEMU, and a fresh and a running guest ferried.

What armferry says beforehand is held against what the real QEMUs do, and docs/tcg-pairs.md is
written of it.
"""

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from armferry.decide import (
    Answer,
    Plan,
    Risk,
    StockVerdict,
    Verdict,
    judge,
    make_plan,
    plan_toml,
)
from armferry.ends import Move
from armferry.hosts.fingerprints.open_subject import open_subject
from armferry.hosts.fingerprints.subject import Subject
from armferry.hosts.qmp.process import LoadResult, MachineSpec, QemuProcess
from armferry.lab.guest import GuestLog
from armferry.lab.qemu_install import InstalledQemu
from armferry.policy import EMPTY, OriginKind, Policy, aggregate, parse_document
from armferry.rewriting.edits import edit_of
from armferry.stream import rewrite_tail

pytestmark = pytest.mark.qemu

Named = Callable[[str], InstalledQemu]

SUITES = ("bullseye", "bookworm", "bookworm-backports", "trixie", "trixie-backports")
GIC_3 = "virt-7.2,gic-version=3"
MACHINES = {"virt-5.2": SUITES, "virt-7.2": SUITES[1:], "virt-10.0": SUITES[2:], GIC_3: SUITES[1:]}
CPUS = ("cortex-a57", "max")
DOCUMENT = Path(__file__).parents[2] / "docs" / "tcg-pairs.md"


@dataclass(frozen=True, slots=True)
class Pair:
    """One move: between two releases (by suite), of one machine type and CPU model."""

    machine: str
    cpu: str
    source: str
    destination: str

    def __str__(self) -> str:
        return f"{self.machine}-{self.cpu}-{self.source}-to-{self.destination}"

    @property
    def machine_type(self) -> str:
        return self.machine.partition(",")[0]

    @property
    def spec(self) -> MachineSpec:
        return MachineSpec(machine=self.machine, cpu=self.cpu)


PAIRS = tuple(
    Pair(machine, cpu, source, destination)
    for machine, suites in MACHINES.items()
    for cpu in (CPUS[1:] if machine == GIC_3 else CPUS)
    for source in suites
    for destination in suites
)


class Rig:
    """Saved states of every release, made once, and the moves of them."""

    def __init__(self, qemu: Named, guest: Path, folder: Path) -> None:
        self.qemu = qemu
        self.guest = guest
        self.folder = folder

    def fresh(self, suite: str, pair: Pair) -> Path:
        """The state of a machine that never ran."""
        path = self._path(suite, pair, "fresh")
        if not path.exists():
            part = path.with_suffix(".part")
            with QemuProcess(self.qemu(suite), pair.spec, paused=True) as machine:
                machine.save(part)
                machine.quit()
            part.rename(path)
        return path

    def running(self, suite: str, pair: Pair) -> tuple[Path, Path]:
        """The state of the running test guest, and its log until then."""
        path = self._path(suite, pair, "running")
        serial = path.with_suffix(".serial")
        if not path.exists():
            part = path.with_suffix(".part")
            with QemuProcess(self.qemu(suite), self._guest_spec(pair), serial=serial) as machine:
                log_at(serial, 2)
                machine.save(part)
                machine.quit()
            part.rename(path)
        return path, serial

    def load(self, pair: Pair, path: Path) -> LoadResult:
        """What the destination's QEMU makes of the state in `path`, nothing running after it."""
        with QemuProcess(
            self.qemu(pair.destination), pair.spec, paused=True, incoming=True
        ) as machine:
            return machine.load(path)

    def go_on(self, pair: Pair, path: Path, log: Path) -> GuestLog:
        """The log of the running guest, carried on by the destination's QEMU from `path`."""
        serial = path.with_suffix(".serial")
        shutil.copyfile(log, serial)
        before = GuestLog.read(serial)
        with QemuProcess(
            self.qemu(pair.destination), self._guest_spec(pair), serial=serial, incoming=True
        ) as machine:
            result = machine.load(path)
            assert result.loaded, f"{pair}: {result.stderr}"
            return log_at(serial, before.last + 2)

    def _guest_spec(self, pair: Pair) -> MachineSpec:
        return MachineSpec(machine=pair.machine, cpu=pair.cpu, kernel=self.guest)

    def _path(self, suite: str, pair: Pair, kind: str) -> Path:
        return self.folder / f"{suite}-{pair.machine}-{pair.cpu}.{kind}"


def log_at(path: Path, tick: int, limit: float = 30.0) -> GuestLog:
    """The guest's log once it has reached `tick`, or shows anything wrong, or time is up."""
    deadline = time.monotonic() + limit
    while True:
        log = GuestLog.read(path)
        if log.last >= tick or log.losses or log.odd or time.monotonic() > deadline:
            return log
        time.sleep(0.02)


@pytest.fixture(scope="session")
def rig(qemu_release: Named, guest_kernel: Path, tmp_path_factory: pytest.TempPathFactory) -> Rig:
    return Rig(qemu_release, guest_kernel, tmp_path_factory.mktemp("pairs"))


@dataclass(frozen=True, slots=True)
class Row:
    """What was said of a pair and found true."""

    pair: Pair
    versions: tuple[str, str]
    stock: StockVerdict
    fresh: Verdict
    unaided: Verdict
    running: Plan
    log: GuestLog


def move_of(rig: Rig, pair: Pair, source: Subject, destination: Subject) -> Move:
    host = open_subject(str(rig.fresh(pair.source, pair))).end
    qemu = rig.qemu(pair.destination).version
    return Move.between(source.end, destination.end, host=host, qemu=qemu)


def planned(move: Move, pair: Pair) -> Plan:
    """The plan, its policy written to a file and read back."""
    base = aggregate(pair.machine_type, move.destinations[0].accelerator)
    plan = make_plan(move, base)
    assert plan.works, plan.obstacles
    document = parse_document(plan_toml(plan), "plan.toml", OriginKind.FILE)
    policy = aggregate(pair.machine_type, move.destinations[0].accelerator, files=[document])
    again = judge(move, policy)
    assert (again.answer, again.risk, again.lists, again.findings) == (
        plan.verdict.answer,
        plan.verdict.risk,
        plan.verdict.lists,
        plan.verdict.findings,
    )
    assert not_smaller(move, base, plan)
    return plan


def not_smaller(move: Move, base: Policy, plan: Plan) -> bool:
    """Whether the plan's policy without any one of its rules refuses the move."""
    policy = plan.policy
    rules, missing, parts = policy.tolerances, policy.safe_missing, policy.accepted.subsections
    fewer = [
        *(replace(policy, tolerances=rules[:at] + rules[at + 1 :]) for at in range(len(rules))),
        *(
            replace(policy, safe_missing={i: missing[i] for i in missing if i != one})
            for one in missing
        ),
        *(
            replace(policy, accepted=replace(policy.accepted, subsections=parts - {one}))
            for one in parts
        ),
    ]
    assert len(fewer) == len(plan.entries)
    return all(judge(move, base.union(less)).answer is Answer.FAILS for less in fewer)


def ferried(rig: Rig, pair: Pair, source: Subject, verdict: Verdict, kind: str) -> Path:
    """The file that a QEMU is given: the source's with the verdict's edits."""
    assert source.saved is not None
    path = rig.folder / f"{pair}.{kind}"
    tail = rewrite_tail(source.saved, edit_of(verdict))
    data = Path(source.text).read_bytes()
    path.write_bytes(data if tail is None else data[: tail.offset] + tail.data)
    twice = open_subject(str(path))
    assert twice.saved is not None
    again = judge(
        move_of(rig, pair, twice, open_subject(str(rig.fresh(pair.destination, pair)))), EMPTY
    )
    assert again.answer is Answer.WORKS, again.events
    assert again.stock is not None
    assert again.stock.loads, again.stock
    assert rewrite_tail(twice.saved, edit_of(again)) is None
    return path


def said(result: LoadResult) -> str:
    """What QEMU printed of the load: without its name, and without its word on old machines."""
    lines = (line.partition(": ")[2] for line in result.stderr.splitlines())
    return "\n".join(line for line in lines if "is deprecated: machines more than" not in line)


def check(rig: Rig, pair: Pair) -> Row:
    fresh = open_subject(str(rig.fresh(pair.source, pair)))
    there = open_subject(str(rig.fresh(pair.destination, pair)))

    move = move_of(rig, pair, fresh, there)
    plan = planned(move, pair)
    predicted = plan.verdict.stock
    assert predicted is not None
    result = rig.load(pair, Path(fresh.text))
    assert predicted.loads == result.loaded
    assert predicted.message == said(result)
    assert plan.verdict.risk <= Risk.LOSSLESS
    if pair.source == pair.destination:
        assert plan.verdict.answer is Answer.WORKS
        assert predicted.loads
    result = rig.load(pair, ferried(rig, pair, fresh, plan.verdict, "fresh-ferried"))
    assert result.loaded, result.stderr

    state, log = rig.running(pair.source, pair)
    guest = open_subject(str(state))
    move = move_of(rig, pair, guest, there)
    unaided = judge(move, aggregate(pair.machine_type, move.destinations[0].accelerator))
    if unaided.risk > Risk.LOSSLESS:
        assert unaided.answer is Answer.FAILS
    running = planned(move, pair)
    went_on = rig.go_on(pair, ferried(rig, pair, guest, running.verdict, "running-ferried"), log)
    if running.verdict.risk <= Risk.LOSSLESS:
        assert went_on.faults() == ()
    stock = running.verdict.stock
    assert stock is not None
    result = rig.load(pair, state)
    assert stock.loads == result.loaded
    assert stock.message == said(result)
    versions = rig.qemu(pair.source).version, rig.qemu(pair.destination).version
    return Row(pair, versions, predicted, plan.verdict, unaided, running, went_on)


def test_every_pair(rig: Rig) -> None:
    for pair in PAIRS:  # made one after the other, so that no two threads make the same state
        rig.fresh(pair.source, pair)
    with ThreadPoolExecutor(2) as pool:
        once = {(pair.machine, pair.cpu, pair.source): pair for pair in PAIRS}
        list(pool.map(lambda pair: rig.running(pair.source, pair), once.values()))
        rows = tuple(pool.map(lambda pair: check(rig, pair), PAIRS))
    assert len(rows) == 116
    moves = [row for row in rows if row.pair.source != row.pair.destination]
    assert len(moves) == 88
    assert not any(row.stock.loads for row in moves)
    DOCUMENT.parent.mkdir(exist_ok=True)
    DOCUMENT.write_text("\n".join(written(rows)) + "\n")


def written(rows: tuple[Row, ...]) -> Iterator[str]:
    """The table, as a document."""
    moves = [row for row in rows if row.pair.source != row.pair.destination]
    alone = sum(row.stock.loads for row in moves)
    on = sum(not row.log.faults() for row in moves)
    yield "# Every pair of five QEMU releases, under TCG"
    yield ""
    yield "Written by `tests/e2e/test_pairs.py` (`make test`), which runs the real QEMUs."
    yield ""
    yield (
        f"Of {len(moves)} moves between different releases, stock QEMU loads {alone}; ferried by "
        f"armferry, all {len(moves)} load, a guest that never ran and a running one alike. The "
        f"running test guest goes on without a fault in {on}. What stock QEMU prints was predicted "
        f"to the letter in {len(rows)} of {len(rows)} loads of either guest, those of one release "
        "included. Each plan was written to a file, read back and held to its promise; without "
        "any one of its entries the move is refused. Each ferried state, judged anew without a "
        "policy, loads as it is and stays as it is."
    )
    yield ""
    yield "| stock QEMU | moves |"
    yield "|---|---|"
    for group, count in sorted(Counter(row.stock.message_class for row in rows).items()):
        yield f"| {group} | {count} |"
    yield ""
    yield (
        "*Fresh* is a guest that never ran, *running* the test guest after two ticks: the risk, "
        "and how many entries the smallest policy has. A running guest with a risk above lossless "
        "is refused until these entries are given."
    )
    for machine in MACHINES:
        for cpu in CPUS:
            if not any((row.pair.machine, row.pair.cpu) == (machine, cpu) for row in rows):
                continue
            yield ""
            yield f"## {machine}, {cpu}"
            yield ""
            yield "| from | to | stock QEMU | fresh | running | entries | goes on |"
            yield "|---|---|---|---|---|---|---|"
            for row in rows:
                if (row.pair.machine, row.pair.cpu) == (machine, cpu):
                    yield (
                        f"| {row.versions[0]} | {row.versions[1]} | {row.stock.message_class} | "
                        f"{row.fresh.risk} | {row.running.verdict.risk} | "
                        f"{len(row.running.entries)} | "
                        f"{'; '.join(row.log.faults()[:2]) or 'yes'} |"
                    )
