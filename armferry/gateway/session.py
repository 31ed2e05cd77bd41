"""The main channel of a live migration, bytes in and bytes out.

Rules that hold in this file: no I/O, clock or thread; guest memory is passed on as it comes and
never kept; nothing is passed on that was not understood; not one byte of the device state leaves
before the decision on all of it; after an exception nothing leaves any more.

    memory  --first device section-->  holding  --whole, accepted-->  passing
    memory  --PACKAGED, accepted--------------------------------->    passing
    any     --refused, corrupt, too large, ended too early------->    an exception, for good

`passing` means that whatever follows needs no look: the caller may move it in the kernel.
"""

import json
from collections.abc import Callable, Sequence
from typing import Protocol

from armferry.gateway.errors import OversizedState, Refused
from armferry.gateway.judge import Judgement
from armferry.stream import CPU_SECTION, CorruptStream, StreamParser
from armferry.stream.devices import cut_packaged
from armferry.stream.events import (
    CommandSeen,
    Configuration,
    Description,
    DeviceSection,
    DeviceStateBegins,
    EndOfStream,
    Event,
)
from armferry.stream.wire import BE16, BE32, Command, SectionType

__all__ = ["DEFAULT_STATE_LIMIT", "Buffer", "Judging", "Session"]

Buffer = bytes | bytearray | memoryview

DEFAULT_STATE_LIMIT = 32 << 20
"""Bytes of device state held at most: 28 KiB in a small guest, some MiB with 512 vCPUs."""

_PACKAGED_HEADER = 5 + 4


class Judging(Protocol):
    """Decides on device state; `armferry.gateway.judge.Judge` is the real one."""

    def __call__(self, machine: str, sections: Sequence[DeviceSection]) -> Judgement:
        """The decision on these sections."""

    def prepare(self, machine: str) -> None:
        """Does what can be done before the sections have come."""


class _Backlog:
    """What came and has not been passed on; `begin` is the stream offset of its first byte."""

    def __init__(self) -> None:
        self.begin = 0
        self._kept = bytearray()
        self._new = memoryview(b"")

    def __len__(self) -> int:
        return len(self._kept) + len(self._new)

    def append(self, data: Buffer) -> None:
        """Adds what has just come, without copying it."""
        self._new = memoryview(data)

    def retain(self) -> None:
        """Copies what is left of it, for the caller's buffer is used again."""
        self._kept += self._new
        self._new = memoryview(b"")

    def take(self, offset: int) -> list[Buffer]:
        """Everything before `offset`."""
        count = offset - self.begin
        parts: list[Buffer] = []
        if self._kept and count:
            parts.append(bytes(self._kept[:count]))
            del self._kept[:count]
            count -= len(parts[0])
        if count:
            parts.append(self._new[:count])
            self._new = self._new[count:]
        self.begin = offset
        return parts


class Session:
    """One migration's main channel from the source's header to its end.

    `receive` what the source sent, `settle` when nothing has come for a while during `holding`,
    `close` at the end of its stream: each returns what must be sent to the destination, in
    order, valid until the next call. Each raises StreamError, Refused or OversizedState.
    """

    def __init__(self, judge: Judging, *, state_limit: int = DEFAULT_STATE_LIMIT) -> None:
        self._judge = judge
        self._limit = state_limit
        self._parser = StreamParser()
        self._backlog = _Backlog()
        self._sections: list[DeviceSection] = []
        self._broken = False
        self.holding = False
        """Whether device state has begun to come and is not decided on."""
        self.passing = False
        """Whether everything that follows is passed on unread."""
        self.machine = ""
        """The machine type; empty until the source has said it."""
        self.return_path = False
        """Whether the source opened the return path."""
        self.postcopy = False
        """Whether the source announced that it may switch to postcopy."""
        self.packaged = False
        """Whether the device state came in a package: the switch to postcopy was made."""
        self.state_bytes = 0
        """Bytes of device state that came, its description not counted."""
        self.judgement: Judgement | None = None
        """The decision, once made."""

    @property
    def delivered(self) -> bool:
        """Whether the device state was accepted and handed out."""
        return self.judgement is not None and not self._broken

    @property
    def pages(self) -> int:
        """Pages with content on this channel so far."""
        return self._parser.pages

    @property
    def zero_pages(self) -> int:
        """Zero pages on this channel so far."""
        return self._parser.zero_pages

    def receive(self, data: Buffer) -> tuple[Buffer, ...]:
        """What to send now that `data` has come."""
        if self.passing:
            return (data,)
        self._backlog.append(data)
        return self._advance(lambda: self._parser.feed(data))

    def settle(self) -> tuple[Buffer, ...]:
        """What to send when the source has been silent: device state without a description."""
        return self._advance(self._parser.settle) if self.holding else ()

    def close(self) -> tuple[Buffer, ...]:
        """What to send at the end of the source's stream."""
        return () if self.passing else self._advance(self._parser.close)

    def _advance(self, step: Callable[[], list[Event]]) -> tuple[Buffer, ...]:
        if self._broken:
            raise ValueError("this session has failed; nothing more may be sent")
        self._broken = True
        parts = self._answer(step())
        self._broken = False
        return tuple(parts)

    def _answer(self, events: list[Event]) -> list[Buffer]:
        backlog = self._backlog
        parts: list[Buffer] = []
        for event in events:
            match event:
                case Configuration():
                    self.machine = event.machine
                case CommandSeen(command=Command.OPEN_RETURN_PATH):
                    self.return_path = True
                case CommandSeen(command=Command.POSTCOPY_ADVISE):
                    self.postcopy = True
                case CommandSeen(command=Command.PACKAGED):
                    parts += backlog.take(event.offset)
                    parts += self._packaged(event)
                    break
                case DeviceStateBegins():
                    parts += backlog.take(event.offset)
                    self.holding = True
                case DeviceSection() if self.holding:
                    self._sections.append(event)
                case DeviceSection() if event.name == CPU_SECTION:
                    raise CorruptStream("a cpu section comes too early", offset=event.offset)
                case EndOfStream():
                    parts += self._device_state(event)
                case Description():
                    parts += self._description(event)
        if self.passing:
            parts += backlog.take(backlog.begin + len(backlog))
        elif not self.holding:
            parts += backlog.take(self._parser.offset)
        backlog.retain()
        if len(backlog) > self._limit:
            raise OversizedState(
                f"more than {self._limit} bytes of device state have come; if this guest is that "
                "large, raise --state-limit"
            )
        return parts

    def _device_state(self, end: EndOfStream) -> list[Buffer]:
        if not self.holding:
            raise CorruptStream("the stream ends without device state", offset=end.offset)
        came = self._backlog.take(end.offset + 1)
        self.state_bytes = end.offset - self._sections[0].offset if self._sections else 0
        judgement = self._judged(self._sections)
        self.holding = False
        if not judgement.verdict.changed:
            return came
        return [judgement.state() + bytes([SectionType.END])]

    def _description(self, event: Description) -> list[Buffer]:
        came = self._backlog.take(self._parser.offset)
        self.passing = True
        if self.judgement is None or not self.judgement.verdict.changed:
            return came
        text = json.dumps(self.judgement.description(event.document)).encode()
        return [bytes([SectionType.DESCRIPTION]) + BE32.pack(len(text)) + text]

    def _packaged(self, event: CommandSeen) -> list[Buffer]:
        came = self._backlog.take(event.offset + _PACKAGED_HEADER + len(event.payload))
        inside = event.offset + _PACKAGED_HEADER
        sections, begin, end = cut_packaged(event.payload, inside)
        self.state_bytes = end - begin
        judgement = self._judged(sections)
        self.packaged = self.passing = True
        if not judgement.verdict.changed:
            return came
        package = event.payload[:begin] + judgement.state() + event.payload[end:]
        header = bytes([SectionType.COMMAND]) + BE16.pack(Command.PACKAGED) + BE16.pack(4)
        return [header + BE32.pack(len(package)) + package]

    def _judged(self, sections: Sequence[DeviceSection]) -> Judgement:
        judgement = self.judgement = self._judge(self.machine, sections)
        if not judgement.accepted:
            raise Refused(f"the move is refused: {judgement.reason}")
        return judgement
