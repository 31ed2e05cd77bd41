"""The main channel of a live migration, bytes in and bytes out.

Rules that hold in this file: no I/O, clock or thread; guest memory is passed on unchanged and
never kept; nothing is passed on that was not understood; not one byte of the device state leaves
before the decision on all of it; what is held is held once, by the parser, and paid for from a
budget that all sessions share; after an exception nothing leaves any more.

    memory  --first device section-->  holding  --whole, accepted-->  passing
    memory  --PACKAGED, accepted--------------------------------->    passing
    any     --refused, corrupt, too large, ended too early------->    an exception, for good

`passing` means that whatever follows needs no look: the caller may move it in the kernel.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from armferry.gateway.budget import Budget
from armferry.gateway.errors import OversizedState, Refused
from armferry.gateway.judge import Judgement
from armferry.stream import CPU_SECTION, CorruptStream, StreamParser
from armferry.stream.command import PACKAGED_HEADER
from armferry.stream.devices import cut_packaged
from armferry.stream.events import (
    CommandSeen,
    Configuration,
    Description,
    DeviceSection,
    DeviceStateBegins,
    EndOfStream,
    Event,
    RamBlock,
    RamBlocks,
)
from armferry.stream.rewrite import rewrite_sections
from armferry.stream.wire import BE16, BE32, Command, SectionType

__all__ = ["DEFAULT_STATE_LIMIT", "Buffer", "Judging", "Session"]

Buffer = bytes | bytearray | memoryview

DEFAULT_STATE_LIMIT = 32 << 20
"""Bytes of device state held at most: 28 KiB in a small guest, some MiB with 512 vCPUs."""


class Judging(Protocol):
    """Decides on device state; `armferry.gateway.judge.Judge` is the real one."""

    def __call__(self, machine: str, sections: Sequence[DeviceSection]) -> Judgement:
        """The decision on these sections."""

    def begin(self, machine: str, blocks: tuple[RamBlock, ...]) -> None:
        """Raises Refused for a guest whose machine or memory the destination cannot load."""

    def prepare(self, machine: str) -> None:
        """Does what can be done before the sections have come."""


class Session:
    """One migration's main channel from the source's header to its end.

    `receive` what the source sent, `settle` when nothing has come for a while during `holding`,
    `close` at the end of its stream: each returns what must be sent to the destination, in
    order, valid until the next call. Each raises StreamError, Refused or OversizedState.
    `release` when the move is over.
    """

    def __init__(
        self,
        judge: Judging,
        *,
        state_limit: int = DEFAULT_STATE_LIMIT,
        budget: Budget | None = None,
    ) -> None:
        self._judge = judge
        self._limit = state_limit
        self._share = (budget or Budget()).share()
        self._parser = StreamParser()
        self._came = 0  # bytes fed to the parser
        self._passed = 0  # offset of what is passed on next
        self._kept = bytearray()  # from there on: the begin of an element that is not whole
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
            self._share.give_back()  # what was held has been sent
            return (data,)
        self._came += len(data)
        return self._advance(lambda: self._parser.feed(data), data)

    def settle(self) -> tuple[Buffer, ...]:
        """What to send when the source has been silent: device state without a description."""
        return self._advance(self._parser.settle) if self.holding else ()

    def close(self) -> tuple[Buffer, ...]:
        """What to send at the end of the source's stream."""
        return () if self.passing else self._advance(self._parser.close)

    def release(self) -> None:
        """Gives back what the session has of the budget; it is not to be used any more."""
        self._parser = StreamParser()
        self._sections.clear()
        self._share.give_back()

    @property
    def collecting(self) -> bool:
        """Whether device state is coming, as it is or in a package."""
        return self._parser.collecting

    def _advance(self, step: Callable[[], list[Event]], data: Buffer = b"") -> tuple[Buffer, ...]:
        if self._broken:
            raise ValueError("this session has failed; nothing more may be sent")
        self._broken = True
        parts = self._answer(step(), memoryview(data))
        self._broken = False
        return tuple(parts)

    def _answer(self, events: list[Event], data: memoryview) -> list[Buffer]:
        parts: list[Buffer] = []
        for event in events:
            match event:
                case Configuration():
                    self.machine = event.machine
                case RamBlocks():
                    # comes with the first bytes, so that nothing has been passed on yet
                    self._judge.begin(self.machine, event.blocks)
                case CommandSeen(command=Command.OPEN_RETURN_PATH):
                    self.return_path = True
                case CommandSeen(command=Command.POSTCOPY_ADVISE):
                    self.postcopy = True
                case CommandSeen(command=Command.PACKAGED):
                    parts += self._up_to(event.offset, data)
                    parts.append(self._package(event))
                    self._leave_out(event.offset + PACKAGED_HEADER + len(event.payload))
                    break
                case DeviceStateBegins():
                    parts += self._up_to(event.offset, data)
                    self._leave_out(event.offset)
                    self.holding = True
                case DeviceSection() if self.holding:
                    self._sections.append(event)
                case DeviceSection() if event.name == CPU_SECTION:
                    raise CorruptStream("a cpu section comes too early", offset=event.offset)
                case EndOfStream():
                    parts.append(self._device_state(event))
                case Description():
                    parts.append(self._description(event))
        if self.packaged:
            parts += self._up_to(self._came, data)
        elif self.judgement is None and not self.holding:
            parts += self._up_to(self._parser.offset, data)
            self._keep(data)
        self._pay()
        return parts

    # -- outside the device state: bytes go on as they came

    def _up_to(self, offset: int, data: memoryview) -> list[Buffer]:
        """What came before `offset` and has not been passed on; `data` came last."""
        begin = self._came - len(data)
        parts: list[Buffer] = []
        if self._passed < min(begin, offset):
            count = min(begin, offset) - self._passed
            parts.append(bytes(self._kept[:count]))
            del self._kept[:count]
            self._passed += count
        if self._passed < offset:
            parts.append(data[self._passed - begin : offset - begin])
            self._passed = offset
        return parts

    def _leave_out(self, offset: int) -> None:
        """What came before `offset` is not passed on as it came."""
        self._kept.clear()
        self._passed = offset

    def _keep(self, data: memoryview) -> None:
        """Copies what was not passed on, for the caller's buffer is used again."""
        if self._parser.collecting:
            self._kept.clear()  # the parser has it, and gives all of it back
        else:
            begin = self._came - len(data)
            self._kept += data[max(0, self._passed - begin) :]

    def _pay(self) -> None:
        held = max(self._parser.held, len(self._kept))
        if held > self._limit:
            raise OversizedState(
                f"more than {self._limit} bytes of device state have come; if this guest is that "
                "large, raise --state-limit"
            )
        self._share.hold(held if self._parser.collecting else 0)

    # -- the device state

    def _device_state(self, end: EndOfStream) -> Buffer:
        if not self.holding:
            raise CorruptStream("the stream ends without device state", offset=end.offset)
        self.state_bytes = end.offset - self._sections[0].offset if self._sections else 0
        judgement = self._judged(self._sections)
        self.holding = False
        state = judgement.state() if self._changed else rewrite_sections(self._sections, {})
        return state + bytes([SectionType.END])

    def _description(self, event: Description) -> Buffer:
        self.passing = True
        text = event.text
        if self.judgement is not None and self._changed:
            text = json.dumps(self.judgement.description(event.document)).encode()
        self._forget()
        return bytes([SectionType.DESCRIPTION]) + BE32.pack(len(text)) + text

    def _package(self, event: CommandSeen) -> Buffer:
        sections, begin, end = cut_packaged(event.payload, event.offset + PACKAGED_HEADER)
        self.state_bytes = end - begin
        judgement = self._judged(sections)
        self.packaged = self.passing = True
        package = event.payload
        if self._changed:
            package = package[:begin] + judgement.state() + package[end:]
        self._forget()
        header = bytes([SectionType.COMMAND]) + BE16.pack(Command.PACKAGED) + BE16.pack(4)
        return header + BE32.pack(len(package)) + package

    @property
    def _changed(self) -> bool:
        return self.judgement is not None and self.judgement.verdict.changed

    def _judged(self, sections: Sequence[DeviceSection]) -> Judgement:
        judgement = self.judgement = self._judge(self.machine, sections)
        if not judgement.accepted:
            raise Refused(f"the move is refused: {judgement.reason}")
        return judgement

    def _forget(self) -> None:
        """Of the state the verdict alone is of use from here on."""
        self._sections.clear()
        if self.judgement is not None:
            self.judgement = replace(self.judgement, sections=(), cpus=())
