"""The table's laws and what reports become."""

import errno

import pytest

from armferry.boundary import (
    Action,
    Event,
    EventKind,
    Rule,
    Table,
    TableError,
    events_of,
    hide,
    lines_of,
    pin,
)

TCR2, PIR, PSCI = 0x603000000013C103, 0x603000000013C513, 0x6030000000140000
ISAR0 = 0x603000000013C030


def test_rules_are_ordered_and_said_once() -> None:
    table = Table([pin(PSCI, 1), hide(TCR2), hide(TCR2), hide(PSCI)])
    assert [(one.index, one.action) for one in table.rules] == [
        (TCR2, Action.HIDE), (PSCI, Action.HIDE), (PSCI, Action.SET)
    ]  # fmt: skip
    assert len(table.packed()) == 16 + 3 * 64


def test_two_values_for_one_register_are_an_error() -> None:
    with pytest.raises(TableError) as caught:
        Table([pin(PSCI, 0x10000), pin(PSCI, 0x10001)])
    assert str(caught.value) == (
        "PSCI_VERSION has two different rules at the KVM boundary, SET with 0x10000 and with "
        "0x10001"
    )


def test_wide_registers_are_an_error() -> None:
    with pytest.raises(TableError, match="has 16 bytes; the KVM boundary carries 4 or 8"):
        Table([hide(0x6040000000150000)])


def test_too_many_rules_are_an_error() -> None:
    with pytest.raises(TableError, match="1025 rules at the KVM boundary; at most 1024"):
        Table(Rule(0x603000000013C000 + n, Action.HIDE) for n in range(1025))


def test_bytes_that_are_no_event_are_left_out() -> None:
    assert list(events_of(b"\0" * 200 + b"x" * 39)) == []


@pytest.mark.parametrize(
    ("events", "lines"),
    [
        ([Event(EventKind.STARTED, -1), Event(EventKind.MET, -1, 0, 3, 1)], []),
        (
            [Event(EventKind.HIDDEN, n, i) for n in (0, 1, 2, 5) for i in (TCR2, PIR)],
            ["hidden from vCPU 0-2, 5: TCR2_EL1, PIR_EL1"],
        ),
        ([Event(EventKind.CARRIED, 0, TCR2)], ["carried for vCPU 0: TCR2_EL1"]),
        ([Event(EventKind.PINNED, 0, PSCI, 1, 1)], []),
        (
            [Event(EventKind.PINNED, n, PSCI, 0x10001, 0x10003) for n in range(64)],
            [
                ("PSCI_VERSION is 0x10001 (PSCI 1.1) from the start; this host's own is 0x10003 "
                "(PSCI 1.3) (vCPU 0-63)")
            ],
        ),
        (
            [Event(EventKind.UNPINNED, 1, ISAR0, 1, 2, 0)],
            [("ID_AA64ISAR0_EL1 cannot be 0x1 here: it stays 0x2: the kernel ignores the write "
             "(vCPU 1)")],
        ),
        (
            [Event(EventKind.REFUSED, 0, TCR2, 5, 0, errno.ENOENT)],
            ["TCR2_EL1 came as 0x5, refused: ENOENT (vCPU 0)"],
        ),
        (
            [Event(EventKind.REFUSED, 0, PSCI, 0x10003, 0x10001, errno.EINVAL)],
            [("PSCI_VERSION came as 0x10003 (PSCI 1.3), refused: EINVAL; it holds 0x10001 "
             "(PSCI 1.1) (vCPU 0)")],
        ),
        (
            [Event(EventKind.FORBIDDEN, 0, TCR2, 0x4010AEAC)],
            ["QEMU wanted to set TCR2_EL1, which is hidden from it, and was stopped (vCPU 0)"],
        ),
        ([Event(EventKind.LOST, -1, 0, 9)],
         ["9 reports of the KVM boundary were lost: armferry was too slow"]),
    ],
)  # fmt: skip
def test_lines_of_events(events: list[Event], lines: list[str]) -> None:
    assert lines_of(events) == lines
