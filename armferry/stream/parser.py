"""A migration stream, bytes in and events out.

Rules that hold in this file: no I/O, clock or thread; events do not depend on how the bytes
were cut; guest memory is skipped and never kept; a length is checked before anything is held
for it; every fault raises a StreamError and leaves the parser unusable.

Device state has no length of its own, so it is held from the first full section on until it is
whole (see `device_state`).
"""

import enum
from collections.abc import Callable

from armferry.stream.command import begins_package, read_command
from armferry.stream.configuration import ConfigurationReader
from armferry.stream.description import parse_description
from armferry.stream.device_state import DeviceStateBuffer, WholeDeviceState
from armferry.stream.devices import EarlySection
from armferry.stream.errors import (
    CorruptStream,
    NotAStream,
    OversizedStream,
    StreamError,
    TruncatedStream,
    UnsupportedStream,
)
from armferry.stream.events import (
    Configuration,
    Description,
    DeviceStateBegins,
    EndOfStream,
    Event,
    Footer,
    Header,
    RamRecord,
    SectionBegins,
)
from armferry.stream.ram import BlockListReader, RamWalker
from armferry.stream.section import read_section_header, section_header_whole
from armferry.stream.wire import (
    BE32,
    MAGIC,
    MAX_DESCRIPTION,
    MAX_EARLY_SECTION,
    STREAM_VERSION,
    Buffer,
    Command,
    SectionType,
)

__all__ = ["StreamParser"]

_TOP_UP = 1024
"""Bytes taken from a new buffer to complete a record begun in the last one."""
_DEFAULT_PAGE_SIZE = 4096
_RAM_SECTION = "ram"
_RAM_VERSION = 4


class _State(enum.Enum):
    HEADER = "header"
    CONFIGURATION = "configuration"
    SECTIONS = "sections"
    BLOCKS = "blocks"
    RAM = "ram"
    DEVICES = "device state"
    ENDED = "end"
    DONE = "done"
    BROKEN = "broken"


_LOG_STARTS = b"qemu", b"erro", b"libv"
_LOG = "what the lines of a log mean is what armferry explain says"


class StreamParser:
    """Parses one stream. `feed` it bytes of any size, then `close` it.

    With `ram_records` every record of guest memory becomes an event; without, only counts are
    kept (`pages`, `zero_pages`), which is what a forwarder wants. `origin` is the offset of the
    stream's first byte in whatever holds it: every offset counts from there, and the offsets
    within a mapped-ram stream are understood so. With `more_behind`, bytes may follow the stream's
    description (a volume is larger than what was saved on it); they are passed over.
    """

    def __init__(
        self, *, ram_records: bool = False, origin: int = 0, more_behind: bool = False
    ) -> None:
        self._more_behind = more_behind
        self._state = _State.HEADER
        self._held = bytearray()
        self._origin = origin
        self._offset = origin  # of the first byte not yet consumed
        self._records: list[RamRecord] | None = [] if ram_records else None
        self._events: list[Event] = []
        self._iterable: dict[int, SectionBegins] = {}
        self._open: SectionBegins | None = None
        self._configuration: Configuration | None = None
        self._reader: ConfigurationReader | None = None
        self._early: EarlySection | None = None
        self._walker = RamWalker(_DEFAULT_PAGE_SIZE)
        self._ram_moves = False
        self._blocks_reader: BlockListReader | None = None
        self._postcopy_advised = False
        self._device_state: DeviceStateBuffer | None = None
        self._steps: dict[_State, Callable[[Buffer, int], int | None]] = {
            _State.HEADER: self._header,
            _State.CONFIGURATION: self._leading_configuration,
            _State.SECTIONS: self._element,
            _State.BLOCKS: self._blocks,
            _State.RAM: self._ram,
            _State.ENDED: self._after_end,
        }

    @property
    def offset(self) -> int:
        """Bytes consumed: everything before it has been turned into events."""
        return self._offset

    @property
    def held(self) -> int:
        """Bytes fed but not consumed: a record begun, or the device state."""
        return len(self._held) if self._device_state is None else len(self._device_state)

    @property
    def in_device_state(self) -> bool:
        """Whether the device state has begun and is still being collected."""
        return self._device_state is not None

    @property
    def collecting(self) -> bool:
        """Whether device state or a package with it has begun to come and is held here."""
        return self._device_state is not None or (
            self._state is _State.SECTIONS and begins_package(self._held)
        )

    @property
    def done(self) -> bool:
        """Whether the stream has ended and nothing more can follow."""
        return self._state is _State.DONE

    @property
    def ahead(self) -> int:
        """Bytes that come next and are not looked at, as far as is known: content of pages.

        A caller that has them in a file need not read them: `pass_over` them instead.
        """
        if self._held:
            return 0
        if self._state is _State.BLOCKS and self._blocks_reader is not None:
            return self._blocks_reader.skip
        return self._walker.skip if self._state is _State.RAM else 0

    @property
    def pages(self) -> int:
        """Pages with content seen so far."""
        return self._walker.pages

    @property
    def zero_pages(self) -> int:
        """Zero pages seen so far."""
        return self._walker.zero_pages

    def feed(self, data: Buffer) -> list[Event]:
        """The events that `data` completes. Raises StreamError."""
        self._refuse_broken()
        try:
            self._consume(memoryview(data))
        except StreamError:
            self._break()
            raise
        return self._take_events()

    def close(self) -> list[Event]:
        """The last events, at the end of the input. Raises StreamError when it is not whole."""
        self._refuse_broken()
        try:
            self._close()
        except StreamError:
            self._break()
            raise
        return self._take_events()

    def settle(self) -> list[Event]:
        """The device state, if what is held could be all of it.

        For a connection that stays open after a stream without a description: called when
        nothing has come for a while. An empty list means that more must follow.
        """
        self._refuse_broken()
        whole = self._device_state.settle() if self._device_state is not None else None
        if whole is not None:
            self._finish_device_state(whole)
        return self._take_events()

    def pass_over(self, length: int) -> None:
        """As if `length` bytes had been fed, not more than `ahead`."""
        if not 0 <= length <= self.ahead:
            raise ValueError(f"{length} bytes cannot be passed over, only {self.ahead}")
        if self._state is _State.BLOCKS and self._blocks_reader is not None:
            self._blocks_reader.skip -= length
        else:
            self._walker.skip -= length
        self._offset += length

    # -- moving bytes

    def _refuse_broken(self) -> None:
        if self._state is _State.BROKEN:
            raise ValueError("this stream is broken; make a new parser")

    def _break(self) -> None:
        self._state = _State.BROKEN
        self._held.clear()
        self._device_state = None

    def _take_events(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def _consume(self, data: memoryview) -> None:
        position = 0
        while position < len(data):
            if self._state is _State.DONE:
                if self._more_behind:
                    return
                raise CorruptStream("bytes follow the end of the stream", offset=self._offset)
            if self._device_state is not None:
                whole = self._device_state.add(data[position:])
                if whole is not None:
                    self._finish_device_state(whole)
                return
            if not self._held:
                position += self._parse(data[position:])
                if self._state in self._steps:
                    self._held += data[position:]
                    return
                continue
            # complete the record begun earlier, then go on in `data` without copying it
            before = len(self._held)
            taken = min(len(data) - position, max(_TOP_UP, before))
            self._held += data[position : position + taken]
            used = self._parse_held()
            if used >= before:
                self._held.clear()
                position += used - before
            else:
                del self._held[:used]
                position += taken

    def _parse_held(self) -> int:
        with memoryview(self._held) as view:
            return self._parse(view)

    def _parse(self, view: memoryview) -> int:
        """Consumes whole elements of `view`; returns how many bytes."""
        base = self._offset
        position = 0
        while self._state in self._steps:
            before = self._state
            after = self._steps[before](view, position)
            if after is None or (after == position and before is self._state):
                break
            position = after
            self._offset = base + position
        return position

    # -- elements; each returns the position after it, None while it is not whole

    def _header(self, view: Buffer, position: int) -> int | None:
        start = bytes(view[position : position + 4])
        if start != MAGIC[: len(start)]:
            raise NotAStream(
                f"this is no QEMU migration stream: it begins with {start!r}, not {MAGIC!r}",
                offset=self._offset,
                advice=_LOG if start.isdigit() or start in _LOG_STARTS else None,
            )
        if len(view) < position + 8:
            return None
        version = BE32.unpack_from(view, position + 4)[0]
        if version != STREAM_VERSION:
            raise UnsupportedStream(
                f"the stream has version {version}; QEMU has written {STREAM_VERSION} since 0.12",
                offset=self._offset + 4,
            )
        self._events.append(Header(self._offset, version))
        self._state = _State.CONFIGURATION
        return position + 8

    def _leading_configuration(self, view: Buffer, position: int) -> int | None:
        if position >= len(view):
            return None
        if self._reader is None and view[position] != SectionType.CONFIGURATION:
            self._state = _State.SECTIONS
            return position
        if self._reader is None:
            self._reader = ConfigurationReader(self._offset)
        after = self._reader.read(view, position, self._offset - position)
        if self._reader.whole is not None:
            self._configuration = self._reader.whole
            self._walker = RamWalker(self._configuration.page_size)
            self._events.append(self._configuration)
            self._reader = None
            self._state = _State.SECTIONS
        return after

    def _element(self, view: Buffer, position: int) -> int | None:
        if position >= len(view):
            return None
        kind = view[position]
        if kind == SectionType.COMMAND:
            return self._command(view, position)
        if kind == SectionType.START:
            return self._section_start(view, position)
        if kind in (SectionType.PART, SectionType.LAST):
            return self._section_more(view, position, kind)
        if kind == SectionType.FOOTER:
            return self._footer(view, position)
        if kind == SectionType.FULL:
            if not self._ram_moves:
                return self._early_section(view, position)
            self._events.append(DeviceStateBegins(self._offset))
            self._device_state = DeviceStateBuffer(self._offset, more_behind=self._more_behind)
            self._state = _State.DEVICES
            return position
        if kind == SectionType.END:
            self._events.append(EndOfStream(self._offset))
            self._state = _State.ENDED
            return position + 1
        raise CorruptStream(f"{kind:#04x} begins no section", offset=self._offset)

    def _command(self, view: Buffer, position: int) -> int | None:
        read = read_command(view, position, self._offset)
        if read is None:
            return None
        length, command = read
        if command.command == Command.POSTCOPY_ADVISE:
            self._postcopy_advised = True
        self._events.append(command)
        return position + length

    def _section_start(self, view: Buffer, position: int) -> int | None:
        if not section_header_whole(view, position):
            return None
        section = read_section_header(view, position, self._offset)
        if (section.name, section.version) != (_RAM_SECTION, _RAM_VERSION):
            raise UnsupportedStream(
                f"the iterable section '{section.name}' version {section.version} "
                "cannot be delimited",
                offset=self._offset,
                section=section.name,
                instance=section.instance,
                advice="armferry carries guest memory and device state only",
            )
        self._open = SectionBegins(
            self._offset,
            SectionType.START,
            section.id,
            section.name,
            section.instance,
            section.version,
        )
        self._iterable[section.id] = self._open
        capabilities = self._configuration.capabilities if self._configuration else ()
        self._blocks_reader = BlockListReader(capabilities, postcopy=self._postcopy_advised)
        self._events.append(self._open)
        self._state = _State.BLOCKS
        return position + section.payload_offset - self._offset

    def _section_more(self, view: Buffer, position: int, kind: int) -> int | None:
        if len(view) < position + 5:
            return None
        number = BE32.unpack_from(view, position + 1)[0]
        begun = self._iterable.get(number)
        if begun is None:
            raise CorruptStream(f"section {number} was never started", offset=self._offset)
        self._open = SectionBegins(
            self._offset, kind, number, begun.name, begun.instance, begun.version
        )
        self._events.append(self._open)
        # a background snapshot has no last section: its devices follow a part
        self._ram_moves = True
        self._state = _State.RAM
        return position + 5

    def _footer(self, view: Buffer, position: int) -> int | None:
        if len(view) < position + 5:
            return None
        number = BE32.unpack_from(view, position + 1)[0]
        if self._open is None or self._open.id != number:
            raise CorruptStream(
                f"a footer names section {number}, which is not open", offset=self._offset
            )
        self._open = None
        self._events.append(Footer(self._offset, number))
        return position + 5

    def _blocks(self, view: Buffer, position: int) -> int | None:
        assert self._blocks_reader is not None
        blocks = self._blocks_reader.whole
        if blocks is None:
            return self._blocks_reader.read(view, position, self._offset - position)
        self._events.append(blocks)
        self._state = _State.RAM
        return position

    def _ram(self, view: Buffer, position: int) -> int | None:
        after, ended = self._walker.walk(view, position, self._offset - position, self._records)
        if self._records:
            self._events += self._records
            self._records.clear()
        if ended:
            self._state = _State.SECTIONS
        return after

    def _early_section(self, view: Buffer, position: int) -> int | None:
        """A full section before guest memory: devices that QEMU 8.1 and newer set up early."""
        if self._early is None:
            self._early = EarlySection(self._offset)
        section = self._early.find(view, position)
        if section is None:
            if len(view) - position > MAX_EARLY_SECTION:
                raise OversizedStream(
                    f"a device section before guest memory is longer than {MAX_EARLY_SECTION} "
                    "bytes",
                    offset=self._offset,
                )
            return None
        self._early = None
        self._events += [section, Footer(section.end, section.id)]
        return position + section.end + 5 - self._offset

    def _finish_device_state(self, whole: WholeDeviceState) -> None:
        for section in whole.sections:
            self._events += [section, Footer(section.end, section.id)]
        self._events.append(EndOfStream(whole.end_offset))
        self._offset = whole.end_offset + 1
        self._device_state = None
        self._state = _State.ENDED
        if whole.text is not None and whole.document is not None:
            self._events.append(Description(self._offset, whole.text, whole.document))
            self._offset += 5 + len(whole.text)
            self._state = _State.DONE

    def _after_end(self, view: Buffer, position: int) -> int | None:
        if position >= len(view):
            return None
        if view[position] != SectionType.DESCRIPTION:
            raise CorruptStream("bytes follow the end of the stream", offset=self._offset)
        if len(view) < position + 5:
            return None
        length: int = BE32.unpack_from(view, position + 1)[0]
        if length > MAX_DESCRIPTION:
            raise OversizedStream(
                f"the description is {length} bytes long, more than {MAX_DESCRIPTION}",
                offset=self._offset,
            )
        end = position + 5 + length
        if len(view) < end:
            return None
        text = bytes(view[position + 5 : end])
        document = parse_description(text, self._offset)
        self._events.append(Description(self._offset, text, document))
        self._state = _State.DONE
        return end

    def _close(self) -> None:
        if self._device_state is not None:
            self._finish_device_state(self._device_state.close())
        if self._state is _State.ENDED and not self._held:
            self._state = _State.DONE
        elif self._state is not _State.DONE:
            if self._offset == self._origin and not self._held:
                raise NotAStream("the input is empty", offset=0)
            raise TruncatedStream(
                f"the stream ends inside its {self._state.value}",
                offset=self._offset + len(self._held),
                advice="save the guest again",
            )
