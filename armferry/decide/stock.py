"""What the destination's QEMU would do with a guest all by itself, and what it would print.

Follows the stream: machine type, blocks of guest memory, sections; the first that is refused ends
the load. Knows the cpu section to the register, other sections by name, version and instance;
whether a release reads an older version of a device, or a subsection of one that it did not send
itself, cannot be seen from outside, so both are taken to be fine here. Rule sets are data
(`armferry.facts`); texts are whole, without the program's name before each line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from armferry.decide.conditions import taken_away
from armferry.decide.kept_bits import never_changes, not_kept
from armferry.decide.layout import brings_own_word, is_of_a_device, paired_sections
from armferry.decide.memory import BlockProblem, compare_memory, grown_limit
from armferry.decide.stock_lines import MessageClass, StockVerdict, called, device_error
from armferry.decide.stock_sections import (
    parts_of,
    trusts_features,
    unknown_parts,
    walked,
)
from armferry.decide.values import refusal
from armferry.ends import UNKNOWN, Destination, Move
from armferry.facts import QemuRules, qemu_rules
from armferry.registers import Accelerator, describe

if TYPE_CHECKING:
    # a move of two fingerprints reads no stream
    from armferry.stream.description import DeviceLayout

__all__ = ["stock_verdict"]

_CPU = "cpu"
_PER_CPU_GIC = "arm_gicv3"


def stock_verdict(move: Move) -> StockVerdict:
    """What the destination's QEMU, of version `move.qemu`, makes of the guest.

    Without layouts of both ends the register lists alone are looked at. Raises UnknownQemuVersion,
    also where the version is not known.
    """
    return _Load(move).run()


class _Load:
    """One load, section by section."""

    def __init__(self, move: Move) -> None:
        self._move = move
        self._lists = move.lists
        self._destinations = move.destinations
        self._rules: QemuRules = qemu_rules(str(move.qemu))
        self._lines: list[str] = []
        self._said_of_first: list[str] = []

    def run(self) -> StockVerdict:
        source, destination = self._move.source.devices, self._move.destination.devices
        refused: StockVerdict | None = self._configuration() or self._memory() or self._vcpus()
        if refused is not None:
            return refused
        if not source or not destination:
            for vcpu in range(len(self._lists)):
                refused = self._length(vcpu) or self._registers(vcpu)
                if refused is not None:
                    return refused
            return self._verdict(MessageClass.LOADS)
        whole = self._move.destination.whole
        for device, there in paired_sections(source, destination):
            if there is None and not whole and is_of_a_device(device):
                continue  # the destination gets it from its command line
            refused = self._section(device, there)
            if refused is None and there is not None and device.name == _CPU:
                refused = self._cpu(device, there)
            if refused is not None:
                return refused
        return self._verdict(MessageClass.LOADS)

    def _configuration(self) -> StockVerdict | None:
        here, there = self._move.source.machine, self._move.destination.machine
        if not here or not there or here == there:
            return None
        cause = f"Machine type received is '{here}' and local is '{there}'"
        if self._rules.device_error_on_own_line:
            self._lines += [cause, "load of migration failed: Invalid argument"]
        else:
            self._lines.append(
                "load of migration failed: Invalid argument: post load hook failed for: "
                f"configuration, version_id: 1, minimum_version: 0: {cause}"
            )
        return self._verdict(MessageClass.MACHINE_TYPE)

    def _memory(self) -> StockVerdict | None:
        """The first block that is refused; what only the destination's record lacks is not."""
        here, there = self._move.source.memory, self._move.destination.memory
        if here is UNKNOWN or there is UNKNOWN:
            return None
        for one in compare_memory(here, there, whole=self._move.of_one_guest):
            if one.of_record or not one.refused:
                continue
            group, cause = MessageClass.BLOCK_SIZE, ""
            match one.problem:
                case BlockProblem.MISSING:
                    group = MessageClass.UNKNOWN_BLOCK
                    cause = f'Unknown ramblock "{one.name}", cannot accept migration'
                case BlockProblem.SIZE:
                    sizes = f"{one.here:#x} != {one.there:#x}"
                    cause = f"Size mismatch: {one.name}: {sizes}: Invalid argument"
                case BlockProblem.TOO_LARGE:
                    sizes = f"{one.here:#x} > {grown_limit(one.name):#x}"
                    cause = f"Size too large: {one.name}: {sizes}: Invalid argument"
                case _:  # the page size: what is only on the destination is not refused
                    sizes = f"{one.there} != {one.here}"
                    cause = f"Mismatched RAM page size {one.name} (local) {sizes}"
            self._lines.append(cause)
            return self._ram_failed(group)
        return None

    def _vcpus(self) -> StockVerdict | None:
        """A GICv3 of another number of vCPUs: QEMU then reads on at the wrong place."""
        here, there = self._move.source, self._move.destination
        redistributors = any(one.name == _PER_CPU_GIC for one in here.devices)
        if not self._move.of_one_guest or len(here.cpus) == len(there.cpus) or not redistributors:
            return None
        return self._verdict(MessageClass.VCPUS)

    def _ram_failed(self, group: MessageClass) -> StockVerdict:
        failed = "load of migration failed: Invalid argument"
        where = "error while loading state for instance 0x0 of device 'ram'"
        if self._rules.device_error_on_own_line:
            self._lines += [where, failed]
        else:
            self._lines.append(f"{failed}: {where}: Failed to load vmstate version_id: 4, ret: -22")
        return self._verdict(group)

    def _section(self, device: DeviceLayout, there: DeviceLayout | None) -> StockVerdict | None:
        own_line = self._rules.device_error_on_own_line
        if there is None:
            setup = (
                "Make sure that your current VM setup matches your saved VM setup, "
                "including any hotplugged devices"
            )
            word = "savevm section" if own_line else "section"
            text = f"Unknown {word} or instance '{device.name}' {device.instance}. {setup}"
            return self._stopped(MessageClass.UNKNOWN_DEVICE, text)
        if device.version > there.version:
            prefix = "savevm: " if own_line else ""
            text = (
                f"{prefix}unsupported version {device.version} for '{device.name}' v{there.version}"
            )
            return self._stopped(MessageClass.DEVICE_VERSION, text)
        return None if device.name == _CPU else self._unknown_part(device)

    def _unknown_part(self, device: DeviceLayout) -> StockVerdict | None:
        """The first subsection that the release does not know, of the device or inside it."""
        found = next(unknown_parts(device.state, str(self._move.qemu)), None)
        if found is None:
            return None
        fields, parent, name = found
        text = self._rules.unknown_subsection.format(name=name, parent=parent)
        error = device_error(device.instance, device.name)
        if self._rules.device_error_on_own_line:
            self._lines += [*(f"Failed to load {field}" for field in fields), error, text]
        else:
            self._lines.append(f"load of migration failed: Invalid argument: {error}: {text}")
        return self._verdict(MessageClass.UNKNOWN_SUBSECTION)

    def _stopped(self, group: MessageClass, text: str) -> StockVerdict:
        """A load that ended outside any device's own state."""
        if self._rules.device_error_on_own_line:
            self._lines += [text, "load of migration failed: Invalid argument"]
        else:
            self._lines.append(f"load of migration failed: Invalid argument: {text}")
        return self._verdict(group)

    def _cpu(self, device: DeviceLayout, there: DeviceLayout) -> StockVerdict | None:
        vcpu = device.instance
        refused = self._length(vcpu) or self._subsections(device, there)
        if refused is not None:
            return refused
        own_word = brings_own_word(self._move, vcpu)
        if trusts_features(there) and not (own_word or trusts_features(device)):
            # what comes is 0: a CPU without any feature, whose registers read back differently
            return self._failed(vcpu, MessageClass.REGISTERS_REFUSED, ())
        return self._registers(vcpu)

    def _length(self, vcpu: int) -> StockVerdict | None:
        incoming, own = len(self._lists[vcpu]), len(self._destinations[vcpu].registers)
        if not self._rules.refuses_longer or incoming <= own:
            return None
        self._lines += [
            f"Invalid value {incoming} expecting positive value <= {own}",
            "Failed to load cpu:cpreg_vmstate_array_len",
            device_error(vcpu),
            "load of migration failed: Invalid argument",
        ]
        culprits = set(self._lists[vcpu]) - set(self._destinations[vcpu].registers)
        return self._verdict(MessageClass.LIST_TOO_LONG, tuple(sorted(culprits)))

    def _subsections(self, device: DeviceLayout, there: DeviceLayout) -> StockVerdict | None:
        own = {part.name for _, part in parts_of(there.state)}
        for parent, part in parts_of(device.state):
            for abort in self._rules.aborts:
                if part.name == abort.subsection and part.name not in own:
                    self._lines.append(abort.message)
                    return self._verdict(MessageClass.CRASH)
            if part.name not in own | self._rules.subsections:
                group = MessageClass.UNKNOWN_SUBSECTION
                text = self._rules.unknown_subsection.format(name=part.name, parent=parent)
                if self._rules.device_error_on_own_line:
                    self._lines += [device_error(device.instance), text]
                else:
                    self._lines.append(
                        "load of migration failed: Invalid argument: "
                        f"{device_error(device.instance)}: {text}"
                    )
                return self._verdict(group)
        return None

    def _registers(self, vcpu: int) -> StockVerdict | None:
        if self._like_first(vcpu):
            self._lines += self._said_of_first
            return None
        before = len(self._lines)
        merge = self._merge_to_own_end if self._rules.stops_at_own_end else self._merge_named
        refused = merge(vcpu)
        if vcpu == 0 and refused is None:
            self._said_of_first = self._lines[before:]
        return refused

    def _like_first(self, vcpu: int) -> bool:
        """Whether a vCPU goes the way of the first, which was taken.

        It lists the same registers, and where a value is another it is one that is taken as well.
        """
        differing = self._move.differing[vcpu]
        if not vcpu or differing is None:
            return False
        incoming, destination = self._lists[vcpu], self._destinations[vcpu]
        if destination.accelerator is not Accelerator.KVM:
            return not any(
                self._does_not_stay(index, self._slot(incoming, index), destination)
                for index in differing
                if index in destination.registers
            )
        return not any(
            describe(index).constant
            or (
                index in incoming
                and index in destination.registers
                and refusal(index, incoming[index], destination) is not None
            )
            for index in differing
        )

    def _merge_to_own_end(self, vcpu: int) -> StockVerdict | None:
        incoming = self._lists[vcpu]
        left, right = self._orders(vcpu)
        slots: dict[int, int] = {}
        at = to = 0
        while at < len(left) and to < len(right):
            if left[at] < right[to]:
                return self._mismatch(vcpu, (left[at],), slots)
            if left[at] == right[to]:
                slots[right[to]] = incoming[left[at]]
                at += 1
            to += 1
        return self._write(vcpu, slots)

    def _merge_named(self, vcpu: int) -> StockVerdict | None:
        incoming, destination = self._lists[vcpu], self._destinations[vcpu]
        culprits: list[int] = []
        failed = False
        slots: dict[int, int] = {}
        for index, comes, here in walked(*self._orders(vcpu)):
            rule = self._rules.tolerance(index, destination.accelerator)
            if comes and here:
                slots[index] = incoming[index]
            elif here:
                if rule is None or not rule.either_end:
                    self._lines.append(
                        "warning: handle_cpreg_missing_in_incoming_stream: "
                        f"{called(index, destination.accelerator)} expected by the destination "
                        "but not in the incoming stream: skip it"
                    )
            else:
                tolerated = self._rules.tolerates_missing(
                    index, incoming[index], destination.accelerator
                )
                if not tolerated:
                    culprits.append(index)
                    self._lines.append(
                        "handle_cpreg_only_in_incoming_stream: "
                        f"{called(index, destination.accelerator)} in the incoming stream but "
                        "unknown on the destination: fail migration"
                    )
                failed = not tolerated if self._rules.last_register_decides else bool(culprits)
        return self._mismatch(vcpu, tuple(culprits), slots) if failed else self._write(vcpu, slots)

    def _orders(self, vcpu: int) -> tuple[list[int], list[int]]:
        """Both lists as QEMU walks them: those of HVF as they stand, the others ascend."""
        own = self._destinations[vcpu]
        if own.accelerator is Accelerator.HVF:
            return list(self._lists[vcpu]), list(own.registers)
        return sorted(self._lists[vcpu]), sorted(own.registers)

    def _mismatch(
        self, vcpu: int, unknown: tuple[int, ...], slots: Mapping[int, int]
    ) -> StockVerdict:
        """The merge has refused; `slots`, what it had taken by then, may be put all the same."""
        refused = self._kernel_refuses(vcpu, slots)
        if not refused or not self._rules.put_failure:
            return self._failed(vcpu, MessageClass.REGISTERS_REFUSED, unknown)
        self._name_values(vcpu, slots, refused)
        return self._put_failure(vcpu, tuple(sorted({*unknown, *refused})))

    def _write(self, vcpu: int, slots: Mapping[int, int]) -> StockVerdict | None:
        """Each register is written and, under TCG, read back."""
        destination = self._destinations[vcpu]
        if destination.accelerator is Accelerator.KVM:
            culprits = self._kernel_refuses(vcpu, slots)
            self._name_values(vcpu, slots, culprits)
            if culprits and self._rules.put_failure:
                self._name_values(vcpu, slots, culprits)
                return self._put_failure(vcpu, culprits)
        else:
            culprits = tuple(
                index
                for index in sorted(destination.registers)
                if self._does_not_stay(index, self._slot(slots, index), destination)
            )
        if culprits:
            return self._failed(vcpu, MessageClass.REGISTERS_REFUSED, culprits)
        return None

    def _kernel_refuses(self, vcpu: int, slots: Mapping[int, int]) -> tuple[int, ...]:
        """The registers whose put the destination's kernel does not take; none under TCG.

        QEMU puts its whole list: also registers that the kernel has taken away by then.
        """
        destination = self._destinations[vcpu]
        if destination.accelerator is not Accelerator.KVM:
            return ()
        refused = {i for i, value in slots.items() if refusal(i, value, destination) is not None}
        taken = {i: value for i, value in slots.items() if i not in refused}
        gone = taken_away(taken, destination.registers, destination.accelerator)
        return tuple(sorted(refused | gone.keys()))

    def _name_values(self, vcpu: int, slots: Mapping[int, int], refused: tuple[int, ...]) -> None:
        if self._rules.names_registers:
            own = self._destinations[vcpu].registers
            self._lines += [
                f"Could not set register {called(i, Accelerator.KVM)} to {slots.get(i, own[i]):x} "
                f"(is {own[i]:x})"
                for i in refused
            ]

    def _put_failure(self, vcpu: int, culprits: tuple[int, ...]) -> StockVerdict:
        """The values are kept and put once more after the load, failed or not; it ends QEMU."""
        if self._rules.device_error_on_own_line:
            self._lines.append(device_error(vcpu))
        self._lines.append(self._rules.put_failure)
        return self._verdict(MessageClass.REGISTERS_REFUSED, culprits)

    def _does_not_stay(self, index: int, value: int | None, destination: Destination) -> bool:
        """Whether TCG reads back another value than the one that is written."""
        if value is None:  # what is written is unknown
            return never_changes(index, destination)
        return bool(not_kept(index, value, destination))

    def _slot(self, slots: Mapping[int, int], index: int) -> int | None:
        """The value that is written: None for one that nobody can know."""
        return slots.get(index, 0 if self._rules.empty_slot_is_zero else None)

    def _failed(self, vcpu: int, group: MessageClass, culprits: tuple[int, ...]) -> StockVerdict:
        """The hook after the section's load has refused it."""
        if self._rules.device_error_on_own_line:
            self._lines += [
                device_error(vcpu),
                "load of migration failed: Operation not permitted",
            ]
        else:
            self._lines.append(
                f"load of migration failed: Invalid argument: {device_error(vcpu)}: post load "
                "hook failed for: cpu, version_id: 22, minimum_version: 22, ret: -1"
            )
        return self._verdict(group, culprits)

    def _verdict(self, group: MessageClass, culprits: tuple[int, ...] = ()) -> StockVerdict:
        return StockVerdict(
            group is MessageClass.LOADS, group, "\n".join(self._lines), culprits, self._rules.name
        )
