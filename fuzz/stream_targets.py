"""Targets that read streams: whole, cut anywhere, rewritten, on their way through the gateway."""

import contextlib
from collections.abc import Iterable
from functools import cache

from armferry.errors import ArmferryError
from armferry.gateway import Judge, Session
from armferry.gateway.return_path import ReturnPath
from armferry.hosts.fingerprints.as_end import end_of
from armferry.hosts.fingerprints.fingerprint import Fingerprint
from armferry.hosts.fingerprints.from_stream import fingerprint_of_stream
from armferry.policy import aggregate
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
from armferry.stream.rewrite import old_tail, rewrite_tail
from armferry.stream.saved_state import SavedState
from fuzz.corpus import NAMES, small
from fuzz.pieces import Content, pieces

__all__ = [
    "description",
    "device_state",
    "edit",
    "events_of",
    "identity",
    "parser",
    "readers",
    "return_path",
    "session",
]


def events_of(parts: Iterable[bytes], *, settle: bool = False) -> tuple[list[Event], str]:
    """The events of a stream, and the fault that ended it, by its kind."""
    parser = StreamParser()
    events: list[Event] = []
    try:
        for piece in parts:
            events += parser.feed(piece)
            if settle and not parser.in_device_state:
                parser.settle()
        events += parser.close()
    except StreamError as error:
        return events, type(error).__name__
    return events, ""


def parser(data: bytes) -> None:
    """Equal events however the bytes are cut, and equal faults."""
    whole = events_of([data])
    cut = events_of(pieces(data), settle=True)
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
        for piece in pieces(data):
            whole = buffer.add(piece)
            if whole is not None:
                return
            assert len(buffer) <= len(data)
            buffer.settle()
        buffer.close()


def _saved(data: bytes) -> SavedState | None:
    """The saved state, if both readers take it."""
    window = Content(data)
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


def _through(parts: Iterable[bytes]) -> tuple[bytes, bool, str]:
    """What a session sends, whether it has handed out the state, and how it ended."""
    session = Session(_judge())
    sent = bytearray()
    try:
        for piece in parts:
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
    cut = _through(pieces(data))
    assert cut[1] == whole[1]
    if whole[2]:
        assert cut[2]
    else:
        assert cut == whole
    if not cut[1]:
        begun = [e for e in events_of([data])[0] if isinstance(e, DeviceStateBegins)]
        if begun:
            assert len(cut[0]) <= begun[0].offset


def description(data: bytes) -> None:
    """A description is read or refused, and its layouts are as long as their parts."""
    with contextlib.suppress(StreamError):
        for layout in layouts_of(parse_description(data, 0), 0):
            assert layout.state.length >= layout.state.fields_length


def return_path(data: bytes) -> None:
    """The last word does not depend on the cuts."""
    whole, cut = ReturnPath(), ReturnPath()
    whole.watch(data)
    for piece in pieces(data):
        cut.watch(piece)
    assert whole.result == cut.result
