"""Lines of QEMU, libvirt and Linux, explained."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armferry.cli.main import main
from armferry.explain import KnownLine, explain_line, explain_log, explain_text, known_lines
from armferry.explain.lines import LONGEST_LINE, MOST_KINDS

LINES = known_lines()
PSCI = 0x6030000000140000


@pytest.mark.parametrize("known", LINES, ids=lambda known: known.name)
def test_each_kind_is_found_by_its_own_entry(known: KnownLine) -> None:
    found = explain_line(known.example)
    assert found is not None
    assert found.name == known.name
    assert "{" not in found.means
    assert not any("{" in command for command in found.next)
    assert found.next


def test_names_are_unique_and_each_line_has_a_source() -> None:
    assert len({known.name for known in LINES}) == len(LINES)
    assert all(known.where or known.source for known in LINES)


@pytest.mark.parametrize(
    ("line", "register"),
    [
        ("Could not set register fw reg 0 to 10003 (is 10001)", PSCI),
        (
            (
                "handle_cpreg_only_in_incoming_stream: system register 0x1013c030 in the incoming "
                "stream but unknown on the destination: fail migration"
            ),
            0x603000000013C030,
        ),
        (
            (
                "warning: handle_cpreg_missing_in_incoming_stream: system register op0:3 op1:0 "
                "crn:2 crm:0 op2:3 expected by the destination but not in the incoming stream: "
                "skip it"
            ),
            0x603000000013C103,
        ),
        ("{ Op0( 3), Op1( 0), CRn( 2), CRm( 0), Op2( 3), func_write },", 0x603000000013C103),
        ("Failed to set KVM_REG_ARM_TIMER_CNT", 0x603000000013DF1A),
        ("fw reg 0", PSCI),
        ("KVM_REG_ARM_PSCI_VERSION", PSCI),
        ("SYS_TCR2_EL1", 0x603000000013C103),
        ("0x1013c030", 0x603000000013C030),
        ("DBGDTRTX", 0x40200000200E0298),
        ("cpreg_vmstate_array_len", None),
    ],
)
def test_what_people_paste(line: str, register: int | None) -> None:
    found = explain_text(line)
    assert found is not None
    assert found.register == register
    assert bool(found.history) is (register is not None)


def test_values_are_told_with_their_meaning() -> None:
    found = explain_line("qemu: Could not set register fw reg 0 to 10003 (is 10001)")
    assert found is not None
    assert "the guest has 0x10003 (PSCI 1.3), the host 0x10001 (PSCI 1.1)" in found.means
    assert found.history[0].startswith("under KVM: listed by Linux 5.10.0-")


def test_a_log_says_each_thing_once() -> None:
    refused = "qemu: Size mismatch: mach-virt.ram: 0x4000000 != 0x8000000"
    log = ["starting up", refused, "", f"2026-01-01 {refused}", "qemu: Not a migration stream"]
    found = list(explain_log(log))
    assert [(one.name, one.count) for one in found] == [("memory-size", 2), ("not-a-stream", 1)]
    assert "64 MiB in the guest and 128 MiB in this machine" in found[0].means


def test_a_log_of_any_length_is_bounded() -> None:
    log = (f"qemu: Failed to load device{number}:field" for number in range(3 * MOST_KINDS))
    assert len(list(explain_log(log))) == MOST_KINDS
    far = " " * LONGEST_LINE + "Not a migration stream"
    assert explain_line(far) is None


def test_what_a_log_brings_is_neither_obeyed_nor_run() -> None:
    found = explain_line(
        "handle_cpreg_only_in_incoming_stream: x;touch INJECTED\x1b[31m in the incoming stream but "
        "unknown on the destination: fail migration"
    )
    assert found is not None
    assert found.register is None
    assert "\x1b" not in found.means + found.line
    assert "armferry atlas why 'x;touch INJECTED [31m'" in found.next


@given(st.text(max_size=300))
def test_any_text_is_explained_or_not(text: str) -> None:
    found = explain_text(text)
    assert found is None or found.means


@given(st.sampled_from(LINES), st.text(max_size=20), st.text(max_size=20))
def test_whatever_stands_around_a_line(known: KnownLine, before: str, after: str) -> None:
    found = explain_line(f"{before} {known.example} {after}")
    assert found is not None
    assert re.fullmatch(r"[\w-]+", found.name)


PASTED = sorted((Path(__file__).parent / "pasted").glob("*.txt"))


@pytest.mark.parametrize("file", PASTED, ids=lambda file: file.stem)
def test_pasted_lines_are_explained_as_their_files_have_it(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each file begins with the line that was pasted; the rest is what `explain` says of it."""
    text = file.read_text(encoding="utf-8")
    assert main(["explain", text.partition("\n")[0]]) == 0
    assert capsys.readouterr().out == text
