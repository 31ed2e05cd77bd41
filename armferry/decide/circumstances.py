"""What stands around the register lists: accelerator, machine type, memory, vCPUs, the host.

QEMU compares the first of these before any register, and refuses; the last it does not compare at
all, and the guest notices. In the order of the load. Knows which of them hang on the host and
which only on the command line with which the destination was recorded (`of_record`): a record made
without the guest's devices says nothing against a guest that has some.
"""

from collections.abc import Iterator

from armferry.decide.circumstance import Circumstance, CircumstanceKind, Weight
from armferry.decide.host_differences import compare_hosts, unknown_of_hosts
from armferry.decide.layout import is_of_a_device, paired_sections
from armferry.decide.memory import (
    STEAL_TIME,
    BlockDifference,
    BlockKind,
    BlockProblem,
    compare_memory,
    host_page_bytes,
    size_text,
)
from armferry.ends import UNKNOWN, End, HostFacts, Move
from armferry.policy import AcceptedRisk
from armferry.registers import Accelerator

__all__ = ["compare_circumstances"]


def compare_circumstances(move: Move, accepted: AcceptedRisk) -> tuple[Circumstance, ...]:
    """Everything around the lists that differs or is not known, in the order of the load.

    Between two accelerators nothing else can be compared: that alone is said.
    """
    return tuple(_accelerator(move)) or tuple(_compared(move, accepted))


def _compared(move: Move, accepted: AcceptedRisk) -> Iterator[Circumstance]:
    yield from _machine(move)
    yield from _memory(move)
    yield from _pages(move)
    yield from _vcpus(move)
    yield from _devices(move)
    yield from compare_hosts(move, accepted)
    yield from _unrecorded(move)


def _accelerator(move: Move) -> Iterator[Circumstance]:
    here, there = move.source.accelerator, move.destination.accelerator
    if Accelerator.WHPX in (here, there):
        yield Circumstance(
            CircumstanceKind.ACCELERATOR,
            Accelerator.WHPX.value,
            Weight.REFUSED,
            "a guest under WHPX cannot be moved at all: QEMU blocks its migration "
            "(the state of the virtual processor cannot be read whole)",
        )
    elif here is not there:
        yield Circumstance(
            CircumstanceKind.ACCELERATOR,
            f"{here.value} to {there.value}",
            Weight.REFUSED,
            f"{move.source.text} was made under {here.name}, {move.destination.text} is of "
            f"{there.name}: QEMU keeps other registers, timers and interrupt controller state for "
            f"each, and armferry does not carry a guest from one to the other; start the "
            f"destination with -accel {here.value}, or shut the guest down and start it anew",
        )


def _machine(move: Move) -> Iterator[Circumstance]:
    here, there = move.source.machine, move.destination.machine
    if here and there and here != there:
        yield Circumstance(
            CircumstanceKind.MACHINE,
            str(here),
            Weight.REFUSED,
            f"the guest's machine type is {here}, the destination was asked about {there}: "
            "QEMU loads a guest only into its own machine type; make the fingerprint of the "
            f"destination with --machine {here}",
        )


def _memory(move: Move) -> Iterator[Circumstance]:
    for difference in _blocks(move):
        if difference.of_record and difference.kind is not BlockKind.BOARD:
            continue  # goes with its device
        if difference.of_record and not difference.refused:
            continue
        refused = difference.refused and not difference.of_record
        yield Circumstance(
            CircumstanceKind.MEMORY,
            difference.name,
            Weight.REFUSED if refused else Weight.NOTED,
            _memory_words(move, difference),
            of_record=difference.of_record,
        )


def _pages(move: Move) -> Iterator[Circumstance]:
    """Kernels with pages of another size, where no block of the guest has told it already."""
    here, there = (_page_bytes(end, facts) for end, facts in move.both_hosts)
    if here is None or there is None or here == there:
        return
    if any(one.kind is BlockKind.STEAL_TIME and one.refused for one in _blocks(move)):
        return
    facts = (
        f"the hosts' kernels have pages of {size_text(here)} here, of {size_text(there)} on the "
        "destination"
    )
    memory = move.source.memory
    if memory is UNKNOWN or any(block.name == STEAL_TIME for block in memory):
        yield Circumstance(
            CircumstanceKind.MEMORY,
            "page size",
            Weight.REFUSED,
            f"{facts}: a guest under KVM has a memory block of one page ({STEAL_TIME}), which QEMU "
            "refuses in another size; move it to a host whose kernel has the same page size, or "
            "start it with -cpu host,kvm-steal-time=off on both",
        )
    else:
        yield Circumstance(
            CircumstanceKind.MEMORY,
            "page size",
            Weight.NOTED,
            f"{facts}: without stolen time QEMU loads the guest all the same, but no postcopy",
        )


def _page_bytes(end: End, facts: HostFacts) -> int | None:
    """Bytes in a page of an end's kernel, as it was recorded or as its memory blocks tell."""
    if end.accelerator is not Accelerator.KVM:
        return None
    if facts.page_bytes is not UNKNOWN:
        return facts.page_bytes
    return None if end.memory is UNKNOWN else host_page_bytes(end.memory, len(end.cpus))


def _blocks(move: Move) -> tuple[BlockDifference, ...]:
    here, there = move.source.memory, move.destination.memory
    if here is UNKNOWN or there is UNKNOWN:
        return ()
    return compare_memory(here, there, whole=move.of_one_guest)


def _devices(move: Move) -> Iterator[Circumstance]:
    """What a record without the guest's devices cannot say of them, in one sentence."""
    there = move.destination
    if there.whole:
        return
    pairs = paired_sections(move.source.devices, there.devices)
    sections = [one.name for one, own in pairs if own is None and is_of_a_device(one)]
    blocks = [
        one.name
        for one in _blocks(move)
        if one.of_record and one.refused and one.kind is not BlockKind.BOARD
    ]
    names = list(dict.fromkeys([*sections, *blocks]))
    if names:
        yield Circumstance(
            CircumstanceKind.DEVICES,
            ", ".join(names),
            Weight.NOTED,
            f"{there.text} was made without the guest's devices, so these are not compared: "
            f"{', '.join(names)}; start the destination with the same devices, or make the "
            "fingerprint with the guest's command line (armferry fingerprint qemu -- "
            "QEMU-ARGUMENTS)",
            of_record=True,
        )


def _unrecorded(move: Move) -> Iterator[Circumstance]:
    """What is compared wherever it is known, and is not known of these two."""
    ends = move.source, move.destination
    unknown = [f"the machine type ({end.text})" for end in ends if not end.machine]
    unknown += [f"the memory blocks ({end.text})" for end in ends if end.memory is UNKNOWN]
    unknown += [
        f"the devices and the parts of a vCPU's state ({end.text})"
        for end in ends
        if not end.devices
    ]
    unknown += [f"registers that {end.text} leaves out, if any" for end in ends if end.partial]
    unknown += unknown_of_hosts(move)
    if unknown:
        yield Circumstance(
            CircumstanceKind.UNRECORDED,
            "",
            Weight.UNKNOWN,
            f"not compared, for it was not recorded: {', '.join(unknown)}",
        )


def _memory_words(move: Move, difference: BlockDifference) -> str:
    here, there = (
        "" if size is None else size_text(size) for size in (difference.here, difference.there)
    )
    what = f"memory block {difference.name}"
    if difference.problem is BlockProblem.MISSING:
        facts = f"{what} ({here}, {difference.kind.value}) is not on the destination"
    elif difference.problem is BlockProblem.ONLY_THERE:
        facts = f"{what} ({there}, {difference.kind.value}) is only on the destination"
        return f"{facts}: QEMU lets it be, it keeps what it holds there"
    elif difference.problem is BlockProblem.PAGE_SIZE:
        facts = f"{what} is made of pages of {here} here, of {there} on the destination"
    else:
        facts = f"{what} ({difference.kind.value}) has {here} here, {there} on the destination"
    if difference.of_record:
        return (
            f"{facts}: that comes from the fingerprint, made without the guest's own command line; "
            f"{_remedy(move, difference)}"
        )
    return f"{facts}: {_remedy(move, difference)}"


def _remedy(move: Move, difference: BlockDifference) -> str:
    missing = difference.problem is BlockProblem.MISSING
    match difference.kind:
        case BlockKind.BOARD if not missing and difference.here:
            return f"start the destination with -m {_memory_option(difference.here)}"
        case BlockKind.ROM if missing:
            return (
                "start the destination with the same device, and give that a boot ROM of this "
                "size: romfile=FILE; nothing of the guest is in it, QEMU fills it from the file"
            )
        case BlockKind.ROM:
            return (
                "the device's boot ROM is another file; give the destination's device "
                f"romfile=FILE with the source's, or romsize={difference.here} where its own is "
                "smaller"
            )
        case BlockKind.TAGS:
            return (
                "the guest was started with mte=on: start the destination with -machine mte=on"
                f"{_or_left_out(difference)}"
            )
        case BlockKind.SECURE:
            return (
                "the guest was started with secure=on: start the destination with "
                f"-machine secure=on{_or_left_out(difference)}"
            )
        case BlockKind.STEAL_TIME if missing:
            return (
                "its kernel or QEMU does not account stolen time, or it was started with "
                "kvm-steal-time=off: give the destination -cpu host,kvm-steal-time=on, or the "
                "guest kvm-steal-time=off from its start"
            )
        case BlockKind.STEAL_TIME:
            return _page_remedy(move)
        case BlockKind.TABLES if missing:
            return "the guest has ACPI tables: start the destination without acpi=off"
    return "start the destination with the same memory and devices as the source"


def _or_left_out(difference: BlockDifference) -> str:
    """What is done only when asked: that nothing is in the block shows when its pages are read."""
    if difference.problem is not BlockProblem.MISSING:
        return ""
    return f"; if the guest never touched it, armferry ferry --leave-out {difference.name}"


def _page_remedy(move: Move) -> str:
    """What the block of stolen time tells of the two hosts: it is rounded up to a page."""
    pages = []
    for end in (move.source, move.destination):
        page = host_page_bytes(end.memory, len(end.cpus)) if end.memory is not UNKNOWN else None
        pages.append("another size" if page is None else size_text(page))
    return (
        f"the hosts' kernels have pages of {pages[0]} and {pages[1]}; move the guest to a host "
        "whose kernel has the same page size, or start it with -cpu host,kvm-steal-time=off on both"
    )


def _memory_option(size: int) -> str:
    return f"{size >> 20}M" if not size % (1 << 20) else f"{size >> 10}K"


def _vcpus(move: Move) -> Iterator[Circumstance]:
    here, there = len(move.source.cpus), len(move.destination.cpus)
    if here == there or not move.of_one_guest:
        return
    yield Circumstance(
        CircumstanceKind.VCPUS,
        str(here),
        Weight.REFUSED,
        f"the guest has {here} vCPUs, the destination {there}: start it with -smp {here}",
    )
