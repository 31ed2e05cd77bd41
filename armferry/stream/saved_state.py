"""A saved state as a value, and how a parser's events add up to one.

Knows what a saved guest is made of, guest memory left out; refuses to know where the bytes come
from (`reading` for a file's two ends, a parser for a pipe).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from armferry.stream.command import PACKAGED_HEADER
from armferry.stream.cpu import CPU_SECTION, CpuState, read_cpu
from armferry.stream.devices import cut_packaged
from armferry.stream.errors import (
    CorruptStream,
    OversizedStream,
    TruncatedStream,
    UnsupportedStream,
)
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
from armferry.stream.wire import MAX_REGISTERS_IN_ALL, Command

__all__ = ["SavedCollector", "SavedState", "cpus_of", "never_ran", "run_state_of"]

_GLOBAL_STATE = "globalstate"
_NOT_STARTED = "prelaunch"


@dataclass(frozen=True, slots=True)
class SavedState:
    """What a saved guest is made of, guest memory left out.

    `state_offset` is where the device state begins, `end_offset` where its end mark stands;
    `description` is the JSON that follows, None without one. `fresh` says that the guest never
    ran. `size` is the length of the stream in bytes.

    In a recording of a postcopy migration (`postcopy`) the device state stands inside a command,
    without an end mark: `end_offset` is then the byte after its last section.
    """

    configuration: Configuration | None
    blocks: tuple[RamBlock, ...]
    sections: tuple[DeviceSection, ...]
    cpus: tuple[CpuState, ...]
    state_offset: int
    end_offset: int
    description: Mapping[str, Any] | None
    description_text: bytes
    size: int
    postcopy: bool = False

    @property
    def machine(self) -> str:
        """The machine type, empty when the stream names none."""
        return self.configuration.machine if self.configuration else ""

    @property
    def run_state(self) -> str:
        """QEMU's run state when the guest was saved, such as `running` or `prelaunch`."""
        return run_state_of(self.sections)

    @property
    def fresh(self) -> bool:
        """Whether the guest had not run yet."""
        return never_ran(self.sections, self.cpus)


class SavedCollector:
    """Takes a parser's events; gives the saved state once the stream has ended."""

    def __init__(self) -> None:
        self._configuration: Configuration | None = None
        self._blocks: tuple[RamBlock, ...] = ()
        self._sections: list[DeviceSection] = []
        self._begin = -1
        self._end = -1
        self._description: Description | None = None
        self._packaged: CommandSeen | None = None

    def take(self, events: Iterable[Event]) -> None:
        """Notes what `events` say."""
        for event in events:
            match event:
                case Configuration():
                    self._configuration = event
                case RamBlocks():
                    self._blocks = event.blocks
                case DeviceStateBegins():
                    self._begin = event.offset
                case DeviceSection() if self._begin >= 0:
                    self._sections.append(event)
                case EndOfStream():
                    self._end = event.offset
                case Description():
                    self._description = event
                case CommandSeen(command=Command.PACKAGED):
                    self._packaged = event

    @property
    def configuration(self) -> Configuration | None:
        """The configuration, as soon as it has come."""
        return self._configuration

    @property
    def blocks(self) -> tuple[RamBlock, ...]:
        """The blocks of guest memory, as soon as they have come."""
        return self._blocks

    @property
    def begin(self) -> int:
        """Offset of the device state, -1 before it has begun."""
        return self._begin

    def saved(self, size: int) -> SavedState:
        """The saved state of a stream of `size` bytes.

        Raises a StreamError when there is none.
        """
        if self._packaged is not None:
            return self._saved_in_postcopy(self._packaged, size)
        if self._begin < 0:
            raise TruncatedStream("the stream holds no device state", offset=size)
        description = self._description
        return SavedState(
            self._configuration,
            self._blocks,
            tuple(self._sections),
            cpus_of(self._sections, self._begin),
            self._begin,
            self._end,
            None if description is None else description.document,
            b"" if description is None else description.text,
            size,
        )

    def _saved_in_postcopy(self, packaged: CommandSeen, size: int) -> SavedState:
        begin = packaged.offset + PACKAGED_HEADER
        sections, first, end = cut_packaged(packaged.payload, begin)
        return SavedState(
            self._configuration,
            self._blocks,
            sections,
            cpus_of(sections, begin + first),
            begin + first,
            begin + end,
            None,
            b"",
            size,
            postcopy=True,
        )


def never_ran(sections: Iterable[DeviceSection], cpus: Iterable[CpuState]) -> bool:
    """Whether the guest has not run since its reset.

    The run state alone does not tell: `prelaunch` is also a guest that `loadvm` has put back into
    a QEMU started with -S (measured on 5.2.0 and 10.0.13).
    """
    return run_state_of(sections) == _NOT_STARTED and all(cpu.untouched for cpu in cpus)


def run_state_of(sections: Iterable[DeviceSection]) -> str:
    """QEMU's run state in the section `globalstate`; empty without one."""
    for section in sections:
        if section.name == _GLOBAL_STATE:
            text, _, _ = section.payload[4:104].partition(b"\0")
            return text.decode("ascii", "backslashreplace")
    return ""


def cpus_of(sections: Iterable[DeviceSection], offset: int) -> tuple[CpuState, ...]:
    """The vCPUs among `sections`, in order.

    Raises UnsupportedStream when there is none, CorruptStream when one comes twice: what is
    decided on one of the two would be done to the other.
    """
    own = [section for section in sections if section.name == CPU_SECTION]
    seen: set[int] = set()
    for section in own:
        if section.instance in seen:
            raise CorruptStream(
                "the same vCPU comes twice",
                offset=section.offset,
                section=section.name,
                instance=section.instance,
            )
        seen.add(section.instance)
    cpus: list[CpuState] = []
    registers = 0
    for section in own:
        cpus.append(read_cpu(section))
        registers += len(cpus[-1].registers)
        if registers > MAX_REGISTERS_IN_ALL:
            raise OversizedStream(
                f"the vCPUs have more than {MAX_REGISTERS_IN_ALL} registers",
                offset=section.offset,
                section=section.name,
                instance=section.instance,
            )
    if not cpus:
        raise UnsupportedStream(
            "the stream holds no Arm CPU with a register list",
            offset=offset,
            advice="armferry carries aarch64 guests only",
        )
    return tuple(cpus)
