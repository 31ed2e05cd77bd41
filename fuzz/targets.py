"""The targets: each a function of bytes, with what must hold whatever the bytes are.

A target ends, or raises AssertionError or an exception that is none of armferry's named errors:
that is a finding. Inputs are whole files or streams; what else a target needs (where to cut) comes
from the bytes too, so that a finding is one file.
"""

import contextlib
import json
import random
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

from armferry.errors import ArmferryError
from armferry.gateway import Judge, Session, parse_address
from armferry.gateway.errors import AddressError
from armferry.gateway.return_path import ReturnPath
from armferry.hosts.files.qcow2.format import Snapshot
from armferry.hosts.files.qcow2.image import Image
from armferry.hosts.files.qcow2.new_end import new_end
from armferry.hosts.files.qcow2.refcounts import Refcounts
from armferry.hosts.files.saved_file import machine_of, saved_of_snapshot
from armferry.hosts.fingerprints.as_end import end_of
from armferry.hosts.fingerprints.fingerprint import Fingerprint, FingerprintError, dump, parse
from armferry.hosts.fingerprints.from_stream import fingerprint_of_stream
from armferry.hosts.libvirt.domain import UnreadableDomain, read_domain
from armferry.hosts.qmp.messages import Splitter, read_message
from armferry.policy import aggregate
from armferry.policy.document import parse_document
from armferry.policy.properties import format_list, parse_cpu, parse_list
from armferry.policy.tolerance import format_tolerance, parse_tolerance
from armferry.registers.parse import parse_register
from armferry.stream import (
    CpuEdit,
    SavedCollector,
    StateEdit,
    StreamError,
    StreamParser,
    read_saved,
)
from armferry.stream.description import layouts_of, parse_description
from armferry.stream.device_state import DeviceStateBuffer
from armferry.stream.events import DeviceStateBegins, Event
from armferry.stream.mapped import plain_stream
from armferry.stream.rewrite import old_tail, rewrite_tail
from armferry.stream.save_image import HEADER_BYTES, is_save_image, read_header, read_image
from armferry.stream.saved_state import SavedState
from fuzz.corpus import IMAGE_KINDS, NAMES, recorded, small, small_image
from fuzz.regressions import REGRESSIONS

__all__ = ["TARGETS", "Target"]


@dataclass(frozen=True, slots=True)
class Target:
    """`run` one input; `seeds` to begin with."""

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]


class _Window:
    """A window over bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        """Bytes in all."""
        return len(self._data)

    def read(self, offset: int, length: int) -> bytes:
        """Bytes at an offset."""
        return self._data[offset : offset + length]


def _pieces(data: bytes) -> Iterable[bytes]:
    """`data` cut at random, the same way each time."""
    rng = random.Random(zlib.crc32(data))
    mean = rng.choice((1, 5, 100, 4000)) if len(data) < 4000 else rng.choice((50, 1000, 9000))
    at = 0
    while at < len(data):
        step = 1 + int(rng.expovariate(1 / mean))
        yield data[at : at + step]
        at += step


def _events(pieces: Iterable[bytes], *, settle: bool = False) -> tuple[list[Event], str]:
    """The events of a stream, and the fault that ended it, by its kind."""
    parser = StreamParser()
    events: list[Event] = []
    try:
        for piece in pieces:
            events += parser.feed(piece)
            if settle and not parser.in_device_state:
                parser.settle()
        events += parser.close()
    except StreamError as error:
        return events, type(error).__name__
    return events, ""


def parser(data: bytes) -> None:
    """Equal events however the bytes are cut, and equal faults."""
    whole = _events([data])
    cut = _events(_pieces(data), settle=True)
    if whole[1]:
        # of what is faulty the cut reader has seen more, never something else
        assert cut[0][: len(whole[0])] == whole[0]
        assert cut[1]
    else:
        assert cut == whole


def device_state(data: bytes) -> None:
    """Found whole or refused; settling in between never gives what more bytes would take back."""
    buffer = DeviceStateBuffer(0)
    with contextlib.suppress(StreamError):
        for piece in _pieces(data):
            whole = buffer.add(piece)
            if whole is not None:
                return
            assert len(buffer) <= len(data)
            buffer.settle()
        buffer.close()


def _saved(data: bytes) -> SavedState | None:
    """The saved state, if both readers take it."""
    window = _Window(data)
    try:
        ends: SavedState | None = read_saved(window)
    except StreamError:
        ends = None
    collector, parser = SavedCollector(), StreamParser()
    try:
        collector.take(parser.feed(data))
        collector.take(parser.close())
        walked: SavedState | None = collector.saved(len(data))
    except StreamError:
        walked = None
    if ends is not None and walked is not None:
        # one reads both ends, the other every byte: they may differ in what they refuse, since
        # memory that is damaged is seen by one alone, and never in what they read
        assert [(s.name, s.instance, s.payload) for s in ends.sections] == [
            (s.name, s.instance, s.payload) for s in walked.sections
        ]
        assert [c.registers for c in ends.cpus] == [c.registers for c in walked.cpus]
        assert (ends.state_offset, ends.end_offset) == (walked.state_offset, walked.end_offset)
        assert ends.machine == walked.machine
    return walked


def readers(data: bytes) -> None:
    """Both readers agree."""
    _saved(data)


def identity(data: bytes) -> None:
    """A rewrite that changes nothing gives every byte back."""
    saved = _saved(data)
    if saved is None or saved.postcopy:
        return
    assert rewrite_tail(saved, StateEdit([CpuEdit(cpu.registers) for cpu in saved.cpus])) is None
    tail = old_tail(saved)
    assert data[: tail.offset] + tail.data == data


def edit(data: bytes) -> None:
    """An edit changes the register list it names, what describes it, and nothing else."""
    saved = _saved(data)
    if saved is None or saved.postcopy:
        return
    edits = [CpuEdit(dict(list(cpu.registers.items())[1:])) for cpu in saved.cpus]
    try:
        tail = rewrite_tail(saved, StateEdit(edits))
    except StreamError:
        return
    assert tail is not None
    new = data[: tail.offset] + tail.data
    again = _saved(new)
    if not all(one.registers for one in edits):
        return  # an empty list is none: nothing reads it
    assert again is not None
    assert [cpu.registers for cpu in again.cpus] == [one.registers for one in edits]
    assert [(s.name, s.instance) for s in again.sections] == [
        (s.name, s.instance) for s in saved.sections
    ]
    for old, fresh in zip(saved.sections, again.sections, strict=True):
        if old.name != "cpu":
            assert old.payload == fresh.payload
    for before, after in zip(saved.cpus, again.cpus, strict=True):
        at, end = before.list_offset, before.list_offset + before.list_length
        assert after.section.payload[:at] == before.section.payload[:at]
        new_end = after.list_offset + after.list_length
        assert after.section.payload[new_end:] == before.section.payload[end:]


@cache
def _judge() -> Judge:
    collector, parser = SavedCollector(), StreamParser()
    stream = small(NAMES[1])
    collector.take(parser.feed(stream))
    collector.take(parser.close())
    host: Fingerprint = fingerprint_of_stream(collector.saved(len(stream)))
    policy = aggregate(host.provenance.machine, host.accelerator)
    return Judge(end_of(host), lambda _machine, _accelerator: policy)


def _through(pieces: Iterable[bytes]) -> tuple[bytes, bool, str]:
    """What a session sends, whether it has handed out the state, and how it ended."""
    session = Session(_judge())
    sent = bytearray()
    try:
        for piece in pieces:
            for part in session.receive(piece):
                sent += part
        for part in session.close():
            sent += part
    except ArmferryError as error:
        return bytes(sent), session.delivered, type(error).__name__
    return bytes(sent), session.delivered, ""


def session(data: bytes) -> None:
    """The gateway's decision does not depend on the cuts, and no state leaves undecided."""
    whole = _through([data])
    cut = _through(_pieces(data))
    assert cut[1] == whole[1]
    if whole[2]:
        assert cut[2]
    else:
        assert cut == whole
    if not cut[1]:
        begun = [e for e in _events([data])[0] if isinstance(e, DeviceStateBegins)]
        if begun:
            assert len(cut[0]) <= begun[0].offset


def description(data: bytes) -> None:
    """A description is read or refused, and its layouts are as long as their parts."""
    with contextlib.suppress(StreamError):
        for layout in layouts_of(parse_description(data, 0), 0):
            assert layout.state.length >= layout.state.fields_length


def save_image(data: bytes) -> None:
    """The head of an image comes out as it came in."""
    if not is_save_image(data):
        return
    with contextlib.suppress(StreamError):
        header = read_header(data[:HEADER_BYTES])
        if header.version > 1:  # the first one had no formats, whatever stands in their place
            assert header.encode(complete=header.complete) == data[:HEADER_BYTES]
        image = read_image(header, data[HEADER_BYTES : HEADER_BYTES + header.length])
        assert "\0" not in image.xml + image.cookie


def disk_image(data: bytes) -> None:
    """Any image is listed, its states read, and each given a new end that can be undone."""
    with contextlib.suppress(ArmferryError):
        image = Image(_Window(data))
        for snapshot in image.states:
            machine_of(image, snapshot)
        for snapshot in image.states[:4]:
            with contextlib.suppress(ArmferryError):
                _give_new_end(data, image, snapshot)


def _give_new_end(data: bytes, image: Image, snapshot: Snapshot) -> None:
    """The snapshot's state without the first register of each vCPU, written and undone."""
    saved = saved_of_snapshot(image, snapshot.id).state
    if saved.postcopy:
        return
    lists = [dict(list(cpu.registers.items())[1:]) for cpu in saved.cpus]
    tail = rewrite_tail(saved, StateEdit([CpuEdit(one) for one in lists]))
    if tail is None:
        return
    for first in (-(-len(data) // image.header.cluster_bytes), Refcounts(image, 0).last_used() + 1):
        content, before = bytearray(data), data
        patches = [p for step in new_end(image, snapshot, tail, first=first) for p in step]
        for patch in patches:
            content += bytes(max(patch.offset + len(patch.new) - len(content), 0))
            here = slice(patch.offset, patch.offset + len(patch.new))
            assert content[here].startswith(patch.old)
            content[here] = patch.new
        before = before.ljust(len(content), b"\0")
        for patch in reversed(patches):
            content[patch.offset : patch.offset + len(patch.old)] = patch.old
        for patch in patches:
            here = slice(patch.offset, patch.offset + len(patch.old))
            assert content[here] == before[here]


def mapped(data: bytes) -> None:
    """A mapped-ram file becomes a stream that parses, or a fault."""
    made = 0
    with contextlib.suppress(StreamError):
        for piece in plain_stream(_Window(data)):
            made += len(piece)
            if made > 1 << 24:  # a bitmap of memory that is not there: pages of zeros without end
                break


def return_path(data: bytes) -> None:
    """The last word does not depend on the cuts."""
    whole, cut = ReturnPath(), ReturnPath()
    whole.watch(data)
    for piece in _pieces(data):
        cut.watch(piece)
    assert whole.result == cut.result


def policy(data: bytes) -> None:
    """A policy document is read, with every selector and number in it, or refused by name."""
    text = data.decode("utf-8", "replace")
    with contextlib.suppress(ArmferryError):
        document = parse_document(text, "fuzz")
        document.general(None)
        document.single("virt-10.0", None)


def fingerprint(data: bytes) -> None:
    """A fingerprint that can be read is written and read as itself."""
    with contextlib.suppress(FingerprintError):
        one = parse(data, "fuzz")
        text = dump(one)
        assert dump(parse(text.encode(), "again")) == text


def words(data: bytes) -> None:
    """Registers, lists of them, tolerances, -cpu options and addresses as people write them."""
    text = data.decode("utf-8", "replace")
    with contextlib.suppress(ArmferryError):
        assert 0 <= parse_register(text) < 1 << 64
    with contextlib.suppress(ArmferryError):
        found = parse_list(text, "fuzz")
        assert parse_list(format_list(found), "fuzz") == found
    with contextlib.suppress(ArmferryError):
        tolerance = parse_tolerance(text)
        assert parse_tolerance(format_tolerance(tolerance)) == tolerance
    with contextlib.suppress(ArmferryError):
        parse_cpu(text)
    with contextlib.suppress(AddressError):
        address = parse_address(text)
        assert parse_address(str(address)) == address


def domain(data: bytes) -> None:
    """The XML that libvirt hands to its hook."""
    with contextlib.suppress(UnreadableDomain):
        facts = read_domain(data.decode("utf-8", "replace"))
        assert facts is None or len(facts.name) <= len(data)


def monitor(data: bytes) -> None:
    """QMP cut into messages: joined, the pieces are the bytes; cut otherwise, the same messages."""
    whole, cut = Splitter(), Splitter()
    pieces = whole.feed(data)
    assert b"".join(piece.data for piece in pieces) + whole.close() == data
    others = [piece for part in _pieces(data) for piece in cut.feed(part)]
    assert b"".join(piece.data for piece in others) + cut.close() == data
    assert [p.data for p in pieces if p.whole] == [p.data for p in others if p.whole]
    for piece in pieces:
        if piece.whole:
            read_message(piece.data)


def _streams() -> list[bytes]:
    return [small(name) for name in NAMES] + REGRESSIONS["stream"]


def _states() -> list[bytes]:
    found = []
    for name in NAMES:
        events, _ = _events([small(name)])
        found += [small(name)[e.offset :] for e in events if isinstance(e, DeviceStateBegins)]
    return found + REGRESSIONS["state"]


def _descriptions() -> list[bytes]:
    return [data[data.rindex(b"\0\x06") + 6 :] for data in _streams()[:4]] + REGRESSIONS["json"]


def _mapped_files() -> list[bytes]:
    return [small("ignore-shared").replace(b"\x0fx-ignore-shared", b"\x0amapped-ram"), *_streams()]


def _images() -> list[bytes]:
    return [small_image(kind) for kind in IMAGE_KINDS] + REGRESSIONS["qcow2"]


def _fingerprints() -> list[bytes]:
    collector, parser = SavedCollector(), StreamParser()
    stream = recorded(NAMES[2])
    collector.take(parser.feed(stream))
    collector.take(parser.close())
    text = dump(fingerprint_of_stream(collector.saved(len(stream))))
    document = json.loads(text)
    slim = {k: v[:1] if isinstance(v, list) else v for k, v in document.items()}
    return [text.encode(), json.dumps(slim).encode(), *REGRESSIONS["fingerprint"]]


TARGETS = {
    "parser": Target(parser, _streams),
    "device-state": Target(device_state, _states),
    "readers": Target(readers, _streams),
    "identity": Target(identity, _streams),
    "edit": Target(edit, _streams),
    "session": Target(session, _streams),
    "description": Target(description, _descriptions),
    "save-image": Target(save_image, lambda: REGRESSIONS["image"]),
    "disk-image": Target(disk_image, _images),
    "mapped-ram": Target(mapped, _mapped_files),
    "return-path": Target(return_path, lambda: REGRESSIONS["answers"]),
    "policy": Target(policy, lambda: REGRESSIONS["policy"]),
    "fingerprint": Target(fingerprint, _fingerprints),
    "words": Target(words, lambda: REGRESSIONS["words"]),
    "domain": Target(domain, lambda: REGRESSIONS["domain"]),
    "monitor": Target(monitor, lambda: REGRESSIONS["monitor"]),
}
