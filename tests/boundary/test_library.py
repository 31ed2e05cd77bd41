"""What the library makes of a kernel's answers, rule by rule, with sanitizers and without."""

import fcntl
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from armferry.boundary import Action, Event, EventKind, Preload, Rule, Table, carry, hide, pin, take
from armferry.boundary.rules import watch

Drive = Callable[..., Any]

TCR2, PIR = 0x603000000013C103, 0x603000000013C513
MIDR = 0x603000000013C000
PSCI, BITMAP_2 = 0x6030000000140000, 0x6030000000160003
CACHE = 0x6020000000110003
CNTV_CTL, CNTP_CTL = 0x603000000013DF19, 0x603000000013DF11
CORE = 0x6030000000100000
ENOENT, E2BIG, ENOEXEC, EINVAL = 2, 7, 8, 22

MACHINE = (
    f"reg {MIDR:x} 413fd0c1 ro",
    f"reg {CNTV_CTL:x} 0 rw",
    f"reg {CNTP_CTL:x} 0 rw",
    f"reg {PSCI:x} 10003 psci",
    f"reg {BITMAP_2:x} 0 rw",
    f"reg {CACHE:x} 701fe01a rw",
    f"reg {CORE:x} 7 rw",
    "create 0 100",
    "init 100 4",
)


def of(events: list[Event], *kinds: EventKind) -> list[Event]:
    return [one for one in events if one.kind in kinds]


def test_without_rules_all_is_as_the_kernel_has_it(drive: Drive) -> None:
    said = drive([], *MACHINE, "list 100 3", "list 100 7", f"get 100 {MIDR:x}", "run 100",
                 f"set 100 {MIDR:x} 1", f"get 100 {TCR2:x}", "get 55 1")  # fmt: skip
    assert said.status == 0, said.stderr
    order = " ".join(f"{one:x}" for one in (CORE, CACHE, BITMAP_2, PSCI, CNTP_CTL, CNTV_CTL, MIDR))
    assert said.answers == [
        "create 100", "init 0 0", f"list -1 {E2BIG} 7", f"list 0 0 7 {order}", "get 0 0 413fd0c1",
        "run 0 1", f"set -1 {EINVAL}", f"get -1 {ENOENT} 0", "get -1 25 0",
    ]  # fmt: skip
    started, refused = said.events
    assert started.kind is EventKind.STARTED
    assert refused == Event(EventKind.REFUSED, 0, MIDR, 1, 0x413FD0C1, EINVAL)
    assert said.stderr == ""


@pytest.mark.parametrize("signed", [(), ("signed",)], ids=["plain", "sign-extended"])
def test_hidden_register_is_in_no_list(drive: Drive, signed: tuple[str, ...]) -> None:
    said = drive([hide(BITMAP_2), hide(CACHE), hide(TCR2)], *signed, *MACHINE, "list 100 0",
                 "list 100 5", f"calls {BITMAP_2:x}", f"calls {CACHE:x}")  # fmt: skip
    assert said.status == 0, said.stderr
    assert said.answers[2] == f"list -1 {E2BIG} 5"
    assert said.answers[3] == "list 0 0 5 " + " ".join(
        f"{one:x}" for one in (CORE, PSCI, CNTP_CTL, CNTV_CTL, MIDR)
    )
    assert said.answers[4:] == ["calls 0", "calls 0"]
    hidden = of(said.events, EventKind.HIDDEN)
    assert hidden == [Event(EventKind.HIDDEN, 0, CACHE), Event(EventKind.HIDDEN, 0, BITMAP_2)]


@pytest.mark.parametrize("signed", [(), ("signed",)], ids=["plain", "sign-extended"])
@pytest.mark.parametrize(
    ("command", "request_number", "function"),
    [
        (f"get 100 {BITMAP_2:x}", 0x4010AEAB, "kvm_get_one_reg"),
        (f"set 100 {BITMAP_2:x} 0", 0x4010AEAC, "kvm_set_one_reg"),
    ],
)
def test_hidden_register_that_is_named_ends_the_program(
    drive: Drive, command: str, request_number: int, function: str, signed: tuple[str, ...]
) -> None:
    said = drive([hide(BITMAP_2)], *signed, *MACHINE, command, "run 100")
    assert said.status == -signal.SIGABRT
    assert said.answers == ["create 100", "init 0 0"]
    assert (
        said.stderr.splitlines()[0]
        == f"{function} reg 0x6030000000160003 is hidden and shall never been accessed"
    )
    assert said.events[-1] == Event(EventKind.FORBIDDEN, 0, BITMAP_2, request_number)


def test_register_is_set_after_every_initialisation(drive: Drive) -> None:
    rules = [pin(PSCI, 0x10000), pin(CACHE, 0xFFFF, 0xFF), hide(CACHE), pin(MIDR, 0x413FD0C1)]
    said = drive(rules, *MACHINE, f"get 100 {PSCI:x}", f"set 100 {PSCI:x} 10000",
                 f"get 100 {PSCI:x}", "init 100 4", f"get 100 {PSCI:x}", "list 100 9")  # fmt: skip
    assert said.status == 0, said.stderr
    assert said.answers[2:7] == [
        "get 0 0 10000", "set 0 0", "get 0 0 10000", "init 0 0", "get 0 0 10000"
    ]  # fmt: skip
    assert f"{CACHE:x}" not in said.answers[7]
    pinned = of(said.events, EventKind.PINNED)
    assert pinned[0] == Event(EventKind.PINNED, 0, CACHE, 0x701FE0FF, 0x701FE01A)
    assert Event(EventKind.PINNED, 0, PSCI, 0x10000, 0x10003) in pinned
    assert Event(EventKind.PINNED, 0, MIDR, 0x413FD0C1, 0x413FD0C1) in pinned


def test_guest_that_comes_with_another_value_keeps_it(drive: Drive) -> None:
    """The kernel takes no other value once the guest has run, and a reset would end the guest."""
    said = drive([pin(PSCI, 0x10000)], *MACHINE, f"set 100 {PSCI:x} 10001", "init 100 4",
                 f"get 100 {PSCI:x}", f"set 100 {PSCI:x} 10000", "init 100 4",
                 f"get 100 {PSCI:x}", "create 0 100", "init 100 4",
                 f"get 100 {PSCI:x}")  # fmt: skip
    # this kernel forgets at every initialisation: 10003 shows that nothing was set
    assert said.answers[2:] == [
        "set 0 0", "init 0 0", "get 0 0 10003", "set 0 0", "init 0 0", "get 0 0 10000",
        "create 100", "init 0 0", "get 0 0 10000",
    ]  # fmt: skip
    assert of(said.events, EventKind.OVERRULED) == [
        Event(EventKind.OVERRULED, 0, PSCI, 0x10001, 0x10000)
    ]


def test_setting_that_needs_a_feature_is_left_out_of_a_vcpu_without_it(drive: Drive) -> None:
    """QEMU's first vCPU, with which it asks about the host, has no PSCI 0.2."""
    said = drive([pin(PSCI, 0x10000)], *MACHINE[:-2], "create 0 50", "init 50 0",
                 f"get 50 {PSCI:x}", "create 0 50", "init 50 4", f"get 50 {PSCI:x}")  # fmt: skip
    assert said.answers == [
        "create 50", "init 0 0", "get 0 0 10003", "create 50", "init 0 0", "get 0 0 10000"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "error"), [("ro", EINVAL), ("deaf", 0)], ids=["refused", "ignored"]
)
def test_setting_that_does_not_take_fails_the_initialisation(
    drive: Drive, mode: str, error: int
) -> None:
    said = drive([pin(MIDR, 0x77)], f"reg {MIDR:x} 41 {mode}", "create 3 100", "init 100 4")
    assert said.answers == ["create 100", f"init -1 {EINVAL}"]
    assert said.stderr == (
        "armferry: MIDR_EL1 (0x603000000013c000) of vCPU 3 cannot be given the value 0x77: this "
        f"kernel keeps 0x41 (errno {error})\n"
    )
    assert said.events[-1] == Event(EventKind.UNPINNED, 3, MIDR, 0x77, 0x41, error)


def test_setting_of_a_register_that_is_not_there_fails_the_initialisation(drive: Drive) -> None:
    said = drive([pin(TCR2, 1)], *MACHINE)
    assert said.answers == ["create 100", f"init -1 {EINVAL}"]
    assert said.events[-1] == Event(EventKind.UNPINNED, 0, TCR2, 1, 0, ENOENT)


def test_initialisation_that_the_kernel_refuses_sets_nothing(drive: Drive) -> None:
    said = drive([pin(PSCI, 1)], *MACHINE[:-1], "init 100 80000000", f"calls {PSCI:x}")
    assert said.answers == ["create 100", f"init -1 {EINVAL}", "calls 0"]


def test_carried_register_is_listed_kept_and_given_back(drive: Drive) -> None:
    said = drive([carry(TCR2, 0), carry(PIR, 0xDE), carry(CNTV_CTL, 9)], *MACHINE, "list 100 8",
                 "list 100 9", f"get 100 {PIR:x}", f"set 100 {TCR2:x} 1234", f"get 100 {TCR2:x}",
                 f"set 100 {TCR2:x} 1234", "init 100 4", f"get 100 {TCR2:x}",
                 f"get 100 {CNTV_CTL:x}")  # fmt: skip
    assert said.answers[2] == f"list -1 {E2BIG} 9"
    assert said.answers[3].startswith("list 0 0 9 ")
    assert said.answers[3].endswith(f"{TCR2:x} {PIR:x}")
    assert said.answers[4:] == [
        "get 0 0 de", "set 0 0", "get 0 0 1234", "set 0 0", "init 0 0", "get 0 0 0", "get 0 0 0"
    ]  # fmt: skip
    assert of(said.events, EventKind.STORED) == [Event(EventKind.STORED, 0, TCR2, 0x1234)]
    assert of(said.events, EventKind.CARRIED) == [
        Event(EventKind.CARRIED, 0, TCR2, 0), Event(EventKind.CARRIED, 0, PIR, 0xDE)
    ]  # fmt: skip


def test_carried_values_belong_to_one_vcpu(drive: Drive) -> None:
    said = drive([carry(TCR2, 0)], *MACHINE, "create 1 101", "init 101 4", f"set 100 {TCR2:x} 5",
                 f"get 101 {TCR2:x}", f"get 100 {TCR2:x}")  # fmt: skip
    assert said.answers[-2:] == ["get 0 0 0", "get 0 0 5"]


def test_descriptor_that_is_used_again_is_a_new_vcpu(drive: Drive) -> None:
    """QEMU's scratch vCPU is closed, and its number given to another."""
    said = drive([carry(TCR2, 0)], *MACHINE, f"set 100 {TCR2:x} 5", "create 7 100",
                 f"get 100 {TCR2:x}", "init 100 4", f"get 100 {TCR2:x}",
                 f"set 100 {TCR2:x} 6")  # fmt: skip
    assert said.answers[-4:] == [f"get -1 {ENOEXEC} 0", "init 0 0", "get 0 0 0", "set 0 0"]
    assert said.events[-1] == Event(EventKind.STORED, 7, TCR2, 6)


@pytest.mark.parametrize(
    ("rule", "came", "now"),
    [
        (take(PSCI), 0x10001, 0x10003),
        (take(PSCI, 0xF), 0x20001, 0x20003),
        (Rule(PSCI, Action.CAP, 0x10001), 0x10003, 0x10001),
        (Rule(PSCI, Action.CAP, 0x10001), 0x10000, 0x10000),
        (Rule(PSCI, Action.REFUSE, 0x10000, 0xFFFF0000), 0x10001, 0x10001),
    ],
)
def test_what_a_write_becomes(drive: Drive, rule: Rule, came: int, now: int) -> None:
    said = drive([rule], *MACHINE, f"set 100 {PSCI:x} {came:x}", f"get 100 {PSCI:x}")
    assert said.answers[-2:] == ["set 0 0", f"get 0 0 {now:x}"]
    changes = of(said.events, EventKind.KEPT, EventKind.CAPPED)
    assert [(one.value, one.other) for one in changes] == [(came, now)] * (came != now)


def test_constant_keeps_its_own_value_whatever_comes(drive: Drive) -> None:
    said = drive([take(MIDR)], *MACHINE, f"set 100 {MIDR:x} 1", f"get 100 {MIDR:x}")
    assert said.answers[-2:] == ["set 0 0", "get 0 0 413fd0c1"]


def test_register_that_is_neither_there_nor_carried_stays_unknown(drive: Drive) -> None:
    said = drive([take(TCR2)], *MACHINE, f"set 100 {TCR2:x} 1", f"get 100 {TCR2:x}")
    assert said.answers[-2:] == [f"set -1 {ENOENT}", f"get -1 {ENOENT} 0"]


def test_value_that_a_rule_refuses_is_neither_written_nor_carried(drive: Drive) -> None:
    only_zero = Rule(TCR2, Action.REFUSE, 0, (1 << 64) - 1)
    said = drive([only_zero, carry(TCR2, 0)], *MACHINE, f"set 100 {TCR2:x} 1",
                 f"get 100 {TCR2:x}", f"set 100 {TCR2:x} 0")  # fmt: skip
    assert said.answers[-3:] == [f"set -1 {EINVAL}", "get 0 0 0", "set 0 0"]
    assert said.stderr == (
        "armferry: TCR2_EL1 (0x603000000013c103) of vCPU 0 comes with the value 0x1, which the "
        "policy does not allow\n"
    )
    assert said.events[-1] == Event(EventKind.REFUSED, 0, TCR2, 1, 0, EINVAL)


def test_four_byte_register_is_never_touched_beyond_its_bytes(drive: Drive) -> None:
    """The driver's buffer has no byte more: the address sanitizer sees any other access."""
    said = drive([carry(0x6020000000110009, 0xABCD), pin(CACHE, 0x1), take(CACHE)], *MACHINE,
                 "get 100 6020000000110009", "set 100 6020000000110009 12345678",
                 "get 100 6020000000110009", f"set 100 {CACHE:x} 99",
                 f"get 100 {CACHE:x}")  # fmt: skip
    assert said.status == 0, said.stderr
    assert said.answers[2:] == [
        "get 0 0 abcd", "set 0 0", "get 0 0 12345678", "set 0 0", "get 0 0 1"
    ]  # fmt: skip


def test_hidden_register_is_told_once_it_holds_something(drive: Drive) -> None:
    reading = f"get 100 {CNTV_CTL:x}"
    # what a guest does to the register does not pass the library: the kernel's own is changed
    said = drive([hide(CNTP_CTL), watch(CNTP_CTL, 0)], *MACHINE[:2], f"reg {CNTP_CTL:x} 5 rw",
                 *MACHINE[-2:], reading, reading, "init 100 4", reading)  # fmt: skip
    assert said.answers[2:] == ["get 0 0 0", "get 0 0 0", "init 0 0", "get 0 0 0"]
    assert of(said.events, EventKind.WATCHED) == [Event(EventKind.WATCHED, 0, CNTP_CTL, 5)] * 2
    quiet = drive([hide(CNTP_CTL), watch(CNTP_CTL, 0)], *MACHINE, reading)
    assert of(quiet.events, EventKind.WATCHED) == []


def test_many_vcpus_at_once(drive: Drive) -> None:
    rules = [hide(BITMAP_2), pin(PSCI, 0x10000), carry(TCR2, 0), carry(PIR, 1), take(CACHE)]
    said = drive(
        rules, *MACHINE[:-2], "threads 64 20", *(f"get {100 + n} {TCR2:x}" for n in (0, 63))
    )
    assert said.status == 0, said.stderr
    assert said.answers == ["threads 64", "get 0 0 1300", "get 0 0 1300"]
    lost = sum(one.value for one in of(said.events, EventKind.LOST))
    assert lost or {one.vcpu for one in of(said.events, EventKind.HIDDEN)} == set(range(64))


def test_reader_that_has_gone_or_is_slow_stops_nothing(
    plain_driver: Path, own_library: Path
) -> None:
    preload = Preload.of(Table([hide(BITMAP_2), pin(PSCI, 0x10000)]).packed(), own_library)
    preload.reports.close()
    process = subprocess.run(
        [str(plain_driver)],
        input="\n".join((*MACHINE, "threads 8 50", "run 100\n")),
        capture_output=True,
        text=True,
        env=preload.environment({}),
        pass_fds=(preload.table, preload.writing),
        timeout=300,
        check=False,
    )
    preload.close_for_qemu()
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[-1] == "run 0 1"


def test_more_registers_than_it_has_room_for_end_the_program(drive: Drive) -> None:
    many = (f"reg {MIDR + n:x} 0 rw" for n in range(4097))
    said = drive([], *many, "create 0 100", "init 100 4", "list 100 4097")
    assert said.status == 4
    assert said.stderr == (
        "armferry: the KVM boundary cannot be used: the kernel lists more registers than it has "
        "room for\n"
    )


def test_descriptor_beyond_its_table_ends_the_program(drive: Drive) -> None:
    said = drive([], "create 0 65536")
    assert said.status == 4
    assert "descriptor beyond 65535" in said.stderr


# -- the start


def _started(
    program: Path, path: Path, environment: dict[str, str], pass_fds: tuple[int, ...] = ()
) -> tuple[int, str, str]:
    done = subprocess.run(
        [str(program)],
        input="environment\n",
        capture_output=True,
        text=True,
        env={"LD_PRELOAD": str(path), **environment},
        pass_fds=pass_fds,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_children_of_qemu_know_nothing_of_it(
    start: Callable[[list[Rule], dict[str, str]], Any], own_library: Path
) -> None:
    befores: tuple[tuple[dict[str, str], str], ...] = (
        ({"PATH": os.defpath}, "-"),
        ({"PATH": os.defpath, "LD_PRELOAD": "libc.so.6"}, "libc.so.6"),
    )
    for before, left in befores:
        said = start([hide(MIDR)], before)
        names = str(own_library) if left == "-" else f"{own_library}:{left}"
        first, variables, descriptors, *rest = said.answers
        assert first.startswith(f"environment {names} ")
        # a launcher passes all of it on
        assert (variables, descriptors) == ("2", "2")
        assert rest == ["vm 4", "vm 4", f"environment {left} -", "0", "0"]
        (met,) = of(said.events, EventKind.MET)
        assert met.value == 1


def test_it_does_nothing_unless_it_is_asked_to(plain_driver: Path, own_library: Path) -> None:
    status, stdout, stderr = _started(plain_driver, own_library, {})
    assert (status, stdout, stderr) == (0, f"environment {own_library} -\n", "")


@pytest.mark.parametrize("text", ["", "3", "3 ", " 3 4", "3 4 5", "a b", "-1 4", "3  4", "3\t4"])
def test_text_that_is_not_two_descriptors_ends_the_program(
    plain_driver: Path, own_library: Path, text: str
) -> None:
    said = _started(plain_driver, own_library, {"ARMFERRY_BOUNDARY": text})
    assert said == (
        4,
        "",
        "armferry: the KVM boundary cannot be used: ARMFERRY_BOUNDARY is not two descriptors\n",
    )


SEALED = "its table is not a sealed memfd"
UNREADABLE = "its table is not what this library reads"
ONE = Table([hide(MIDR)]).packed()
TWO = Table([hide(MIDR), pin(MIDR, 1), hide(TCR2)]).packed()


def _swapped(table: bytes) -> bytes:
    return table[:16] + table[80:144] + table[16:80] + table[144:]


@pytest.mark.parametrize(
    ("content", "seals", "message"),
    [
        (ONE, 0x7, SEALED),
        (ONE, 0, SEALED),
        (b"", 0xF, SEALED),
        (ONE[:-1], 0xF, UNREADABLE),
        (ONE + b"\0", 0xF, UNREADABLE),
        (b"AFBOUND2" + ONE[8:], 0xF, UNREADABLE),
        (ONE[:8], 0xF, UNREADABLE),
        (ONE[:8] + b"\xff\xff\xff\xff" + ONE[12:], 0xF, UNREADABLE),
        (ONE[:8] + b"\x00\x00\x00\x04" + ONE[12:], 0xF, UNREADABLE),
        (ONE[:24] + b"\x08" + ONE[25:], 0xF, UNREADABLE),
        (ONE[:24] + b"\x00" + ONE[25:], 0xF, UNREADABLE),
        (ONE[:22] + b"\x40" + ONE[23:], 0xF, UNREADABLE),
        (ONE[:48] + b"N" * 32, 0xF, UNREADABLE),
        (_swapped(TWO), 0xF, UNREADABLE),
        (TWO[:16] + TWO[144:] + TWO[16:144], 0xF, UNREADABLE),
        (ONE[:8] + b"\x02" + ONE[9:] + ONE[16:], 0xF, UNREADABLE),
    ],
)
def test_table_that_is_not_sealed_or_not_whole_ends_the_program(
    plain_driver: Path, own_library: Path, content: bytes, seals: int, message: str
) -> None:
    number = os.memfd_create("table", os.MFD_ALLOW_SEALING)
    os.write(number, content)
    fcntl.fcntl(number, fcntl.F_ADD_SEALS, seals)
    variable = {"ARMFERRY_BOUNDARY": f"{number} {number}"}
    said = _started(plain_driver, own_library, variable, (number,))
    os.close(number)
    assert said == (4, "", f"armferry: the KVM boundary cannot be used: {message}\n")


def test_file_is_no_table(plain_driver: Path, own_library: Path, tmp_path: Path) -> None:
    path = tmp_path / "table"
    path.write_bytes(ONE)
    with path.open("rb") as file:
        number = file.fileno()
        variable = {"ARMFERRY_BOUNDARY": f"{number} {number}"}
        status, _, stderr = _started(plain_driver, own_library, variable, (number,))
    assert (status, SEALED in stderr) == (4, True)
