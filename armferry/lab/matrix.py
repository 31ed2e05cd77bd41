"""The matrix: the guest of every host, loaded on every other host, against what was predicted.

A host is a kernel, a CPU and a userland with its QEMU. Every host is recorded (`recording`); then
each is booted once more and given every other one's stream: as it is, and as armferry rewrites it.
The kernel is also asked which registers of the list it refuses, which names what QEMU does not.

Results are kept in the cache under a hash of the host and of the stream it was given, so a
matrix that was interrupted goes on where it was, and a changed rule asks real QEMUs only about the
streams that come out differently. What to make of the result is for `matrix_text`.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

from armferry.cache import cache_folder
from armferry.decide import Answer, Plan, Verdict, judge, make_plan
from armferry.ends import Move
from armferry.hosts.files.atomic import write_whole
from armferry.hosts.fingerprints.kvm import Loaded, Refusal
from armferry.lab.host import HostSpec, LabHost
from armferry.lab.nested import NestedQemu, Outcome, load
from armferry.lab.pool import Hosts, two_at_once
from armferry.lab.recording import Recording, record, recorded
from armferry.lab.refusals import loaded, refusals
from armferry.policy import aggregate
from armferry.rewriting.edits import edit_of
from armferry.stream import rewrite_tail

__all__ = ["Cell", "Predicted", "if_running", "predict", "record_all", "run_matrix"]

_PROGRAM = "qemu-system-aarch64: "

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True, slots=True)
class Predicted:
    """What armferry says of a move before it is made.

    `plan` is what had to be allowed beyond the shipped levels; without entries when nothing had
    to. `running` is the same for a guest that runs, its registers still as after reset: what
    changes under it has to be named. `stream` is what the destination is given.
    """

    unaided: Verdict
    plan: Plan
    running: Plan
    stream: bytes

    @property
    def verdict(self) -> Verdict:
        """The verdict under the plan."""
        return self.plan.verdict


@dataclass(frozen=True, slots=True)
class Cell:
    """One move between two hosts: predicted and done.

    `stock` and `ferried` are what the destination's QEMU made of the stream as it came and as
    armferry rewrote it (None when no policy makes it work); `asked` is what the destination's
    kernel refuses of the list as it came, and what it does not keep.
    """

    source: Recording
    destination: Recording
    predicted: Predicted
    stock: Outcome
    ferried: Outcome | None
    asked: Loaded

    @property
    def refused(self) -> tuple[Refusal, ...]:
        """What the destination's kernel refuses of the list as it came."""
        return self.asked.refused

    @property
    def message(self) -> str:
        """What stock QEMU printed, without the program's name."""
        return said(self.stock)

    @property
    def faults(self) -> tuple[str, ...]:
        """Where what was predicted and what happened part; empty when they agree."""
        found = []
        predicted = self.predicted.unaided.stock
        if predicted is None or predicted.loads != self.stock.completed:
            found.append("stock QEMU: predicted otherwise")
        elif predicted.message != self.message:
            found.append("stock QEMU: printed something else")
        if self.ferried is None:
            found.append("no policy makes it work")
        elif not self.ferried.completed:
            found.append("ferried: refused")
        return tuple(found)


def said(outcome: Outcome) -> str:
    """What QEMU printed, without its name and its word on old machine types."""
    lines = (line.removeprefix(_PROGRAM) for line in outcome.stderr.splitlines())
    return "\n".join(line for line in lines if "is deprecated: machines more than" not in line)


def predict(source: Recording, destination: Recording) -> Predicted:
    """The verdicts on a move, and the stream that the destination is given.

    Raises `BadStream`.
    """
    guest, there = source.source(), destination.destination()
    move = Move.between(guest.end, there.end)
    base = aggregate(guest.machine, there.accelerator)
    plan = make_plan(move, base)
    assert guest.saved is not None
    data = source.stream.read_bytes()
    tail = rewrite_tail(guest.saved, edit_of(plan.verdict)) if plan.works else None
    given = data if tail is None else data[: tail.offset] + tail.data
    return Predicted(judge(move, base), plan, make_plan(if_running(move), base), given)


def if_running(move: Move) -> Move:
    """The move of a guest that runs and whose registers still hold what they held after reset."""
    return Move.between(replace(move.source, guest=False), move.destination)


def record_all(hosts: Iterable[tuple[HostSpec, NestedQemu]], progress: Progress) -> list[Recording]:
    """Every host, recorded; booted only when the cache has it not. Raises `LabHostFault`."""
    wanted = list(hosts)
    done = 0

    def one(hosts: Hosts, host: tuple[HostSpec, NestedQemu]) -> Recording:
        nonlocal done
        found = recorded(*host)
        if found is None:
            with hosts.boot(host[0]) as booted:
                found = record(booted, host[1])
        done += 1
        progress(found.name, done, len(wanted))
        return found

    return two_at_once(one, wanted)


def run_matrix(recordings: Sequence[Recording], progress: Progress) -> list[Cell]:
    """Every ordered pair of different hosts: predicted and done. Raises `LabHostFault`."""
    pairs = {
        (source.key, there.key): predict(source, there)
        for source, there in product(recordings, recordings)
        if source.key != there.key
    }
    done = 0

    def column(hosts: Hosts, there: Recording) -> list[Cell]:
        nonlocal done
        cells = []
        with _Destination(there, hosts) as destination:
            destination.ask(recordings)
            for source in recordings:
                if source.key == there.key:
                    continue
                predicted = pairs[source.key, there.key]
                stock = destination.load(source.stream.read_bytes())
                works = predicted.verdict.answer is not Answer.FAILS
                ferried = destination.load(predicted.stream) if works else None
                asked = destination.asked(source)
                cells.append(Cell(source, there, predicted, stock, ferried, asked))
                done += 1
                progress(f"{source.name} to {there.name}", done, len(pairs))
        return cells

    return [cell for cells in two_at_once(column, recordings) for cell in cells]


class _Destination:
    """A host that is given streams; booted at the first question the cache cannot answer."""

    def __init__(self, recording: Recording, hosts: Hosts) -> None:
        self._recording = recording
        self._hosts = hosts
        self._host: LabHost | None = None
        self._folder = cache_folder("matrix", "answers")

    def __enter__(self) -> "_Destination":
        return self

    def __exit__(self, *_: object) -> None:
        if self._host is not None:
            self._host.close()

    def load(self, stream: bytes) -> Outcome:
        """What its QEMU makes of `stream`."""
        answer = self._answer("load", stream)
        if not answer.exists():
            outcome, _ = load(self._booted(), self._recording.qemu, stream)
            _store(answer, asdict(outcome))
        return Outcome(**json.loads(answer.read_text()))

    def ask(self, sources: Iterable[Recording]) -> None:
        """Ask the kernel about the lists of `sources`, those that it was not asked about yet."""
        lists = {source.key: source.source().lists[0] for source in sources}
        answers = {key: self._answer("loaded", _text(lists[key])) for key in lists}
        wanted = [key for key in lists if not answers[key].exists()]
        if wanted:
            said = refusals(self._booted(), [lists[key] for key in wanted])
            for key, refused in zip(wanted, said, strict=True):
                _store(answers[key], asdict(refused))

    def asked(self, source: Recording) -> Loaded:
        """What the kernel said of a list that it was asked about."""
        answer = self._answer("loaded", _text(source.source().lists[0]))
        return loaded(json.loads(answer.read_text()))

    def _booted(self) -> LabHost:
        if self._host is None:
            self._host = self._hosts.boot(self._recording.spec)
        return self._host

    def _answer(self, question: str, about: bytes) -> Path:
        key = hashlib.sha256(f"{self._recording.key} {question}\n".encode() + about)
        return self._folder / f"{key.hexdigest()[:32]}.json"


def _text(registers: object) -> bytes:
    return json.dumps(registers, sort_keys=True).encode()


def _store(path: Path, document: object) -> None:
    write_whole(path, json.dumps(document, indent=1) + "\n")
