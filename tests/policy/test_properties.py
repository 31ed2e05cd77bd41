"""QEMU's property text, both directions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armferry.policy.errors import PropertyError
from armferry.policy.properties import (
    PSCI_VERSIONS,
    CpuOption,
    Properties,
    format_cpu,
    format_global,
    format_list,
    parse_cpu,
    parse_global,
    parse_list,
    parse_psci_version,
)
from armferry.policy.rules import Origin, OriginKind, PsciVersion
from armferry.registers import parse_register

TCR2 = 0x603000000013C103
DBGDTRTX = 0x40200000200E0298
PIR = 0x603000000013C513
ACCEPTED = (
    "accepted is a comma-separated list of 64-bit register indexes, hexadecimal or decimal, "
    "or register names, such as 0x603000000013c103, TCR2_EL1"
)

index_lists = st.lists(st.integers(0, 2**64 - 1), unique=True).map(lambda i: tuple(sorted(i)))
properties = st.builds(
    Properties, index_lists, index_lists, st.sampled_from([(), *((v,) for v in PSCI_VERSIONS)])
)


@pytest.mark.parametrize(
    ("text", "indexes"),
    [
        ("", ()),
        ("  ", ()),
        ("0x603000000013c103", (TCR2,)),
        ("0X603000000013C103", (TCR2,)),
        (str(TCR2), (TCR2,)),
        ("0x603000000013c103, 0x603000000013c513", (TCR2, PIR)),
        ("0x603000000013c513 ,0x603000000013c103", (TCR2, PIR)),
        ("0x603000000013c103,,0x603000000013c513", (TCR2, PIR)),
        ("0x603000000013c103,0x603000000013c103", (TCR2,)),
        ("TCR2_EL1, S3_0_C2_C0_3", (TCR2,)),
        ("p14,3,c0,c5,0", (DBGDTRTX,)),
        (f" P14,3,C0,C5,0 ,{TCR2}", (DBGDTRTX, TCR2)),
        ("TCR2_EL1,,p14,,3,,c0,,c5,,0", (DBGDTRTX, TCR2)),
        (
            "p15,0,c2, p15,0,c2,c0,0,s,PIR_EL1",
            tuple(sorted(map(parse_register, ("p15,0,c2", "p15,0,c2,c0,0,s", "PIR_EL1")))),
        ),
        ("0", (0,)),
        ("010", (8,)),
        ("0x10-0x12", (16, 17, 18)),
        ("18446744073709551615", (2**64 - 1,)),
    ],
)
def test_a_list_is_read(text: str, indexes: tuple[int, ...]) -> None:
    assert parse_list(text, "--hidden-regs") == indexes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("p14,3,c0,c5,0,", f"empty element in 'p14,3,c0,c5,0,'; {ACCEPTED}"),
        ("0x1,", f"empty element in '0x1,'; {ACCEPTED}"),
        (",0x1", f"empty element in ',0x1'; {ACCEPTED}"),
        ("0x1, ,0x2", f"empty element in '0x1, ,0x2'; {ACCEPTED}"),
        ("-1", f"'-1' has a sign; {ACCEPTED}"),
        ("+1", f"'+1' has a sign; {ACCEPTED}"),
        ("0x", f"'0x' is no number; {ACCEPTED}"),
        ("12ab", f"'12ab' is no number; {ACCEPTED}"),
        ("1_000", f"'1_000' is no number; {ACCEPTED}"),
        ("0x1 0x2", f"'0x1 0x2' is no number; {ACCEPTED}"),
        (
            "089",
            "'089' is no number (a leading 0 without x makes it octal, as for QEMU); " + ACCEPTED,
        ),
        ("0x10000000000000000", f"'0x10000000000000000' does not fit in 64 bits; {ACCEPTED}"),
        (
            "5-4",
            (
                "'5-4' is no range; accepted is FIRST-LAST, ascending, of at most 65536 "
                "register indexes"
            ),
        ),
        (
            "0-65536",
            (
                "'0-65536' is no range; accepted is FIRST-LAST, ascending, of at most 65536 "
                "register indexes"
            ),
        ),
    ],
)
def test_a_malformed_list_is_refused_with_the_text(text: str, message: str) -> None:
    with pytest.raises(PropertyError) as error:
        parse_list(text, "--hidden-regs")
    assert str(error.value) == f"--hidden-regs: {message}"


def test_an_unknown_name_is_refused_in_the_words_of_the_registers() -> None:
    with pytest.raises(Exception) as unknown:  # noqa: PT011 - the text is what is compared
        parse_register("TCR9_EL9")
    with pytest.raises(PropertyError) as error:
        parse_list("TCR2_EL1,TCR9_EL9", "--hidden-regs")
    assert str(error.value) == f"--hidden-regs: {unknown.value}"


@given(index_lists)
def test_a_list_written_is_the_list_read(indexes: tuple[int, ...]) -> None:
    assert parse_list(format_list(indexes), "x") == indexes


@given(st.text())
def test_any_text_is_a_list_or_a_named_error(text: str) -> None:
    try:
        assert all(0 <= index < 1 << 64 for index in parse_list(text, "x"))
    except PropertyError as error:
        assert str(error).startswith("x: ")  # noqa: PT017 - either outcome is right


def test_the_known_psci_versions_are_read_back() -> None:
    assert [parse_psci_version(str(version)) for version in PSCI_VERSIONS] == list(PSCI_VERSIONS)


@pytest.mark.parametrize("text", ["", "1", "1.4", "1.1.0", "v1.1", "0.1", "0x10001"])
def test_another_psci_version_is_refused_as_qemu_refuses_it(text: str) -> None:
    with pytest.raises(PropertyError) as error:
        parse_psci_version(text)
    assert str(error.value) == (
        f"--kvm-psci-version: Invalid PSCI version {text!r}. "
        "Valid values are 0.2, 1.0, 1.1, 1.2, 1.3"
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("arm-cpu.x-mig-hidden-regs=0x1,0x2", Properties(hidden=(1, 2))),
        ("arm-cpu.x-mig-hidden-regs=0x1,,0x2", Properties(hidden=(1, 2))),
        ("arm-cpu.x-mig-hidden-regs=", Properties()),
        ("host-arm-cpu.x-mig-safe-missing-regs=0x1", Properties(safe_missing=(1,))),
        ("arm-cpu.kvm-psci-version=1.1", Properties(psci=(PsciVersion(1, 1),))),
        (
            "driver=arm-cpu,property=x-mig-hidden-regs,value=0x1,,0x2",
            Properties(hidden=(1, 2)),
        ),
        ("arm-cpu.pmu=off", None),
        ("virtio-net-pci.x-mig-hidden-regs=0x1", None),
        ("driver=arm-cpu,property=pmu,value=off", None),
        ("nonsense", None),
    ],
)
def test_a_global_is_read_in_both_forms(text: str, found: Properties | None) -> None:
    assert parse_global(text) == found


def test_a_malformed_global_names_the_property() -> None:
    with pytest.raises(PropertyError) as error:
        parse_global("arm-cpu.x-mig-hidden-regs=zz,")
    assert str(error.value).startswith("-global arm-cpu.x-mig-hidden-regs: ")


@given(properties)
def test_globals_written_are_the_properties_read(given_: Properties) -> None:
    hidden: tuple[int, ...] = ()
    safe_missing: tuple[int, ...] = ()
    psci: tuple[PsciVersion, ...] = ()
    for text in format_global(given_):
        found = parse_global(text)
        assert found is not None
        hidden += found.hidden
        safe_missing += found.safe_missing
        psci += found.psci
    assert Properties(hidden, safe_missing, psci) == given_


def test_globals_are_written_as_qemu_takes_them_without_doubled_commas() -> None:
    assert format_global(Properties(hidden=(TCR2, PIR), psci=(PsciVersion(1, 1),))) == (
        "arm-cpu.kvm-psci-version=1.1",
        "arm-cpu.x-mig-hidden-regs=0x603000000013c103,0x603000000013c513",
    )


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("host", CpuOption("host", Properties())),
        ("host,pmu=off", CpuOption("host,pmu=off", Properties())),
        ("host,x-mig-hidden-regs=0x1", CpuOption("host", Properties(hidden=(1,)))),
        (
            "host,x-mig-hidden-regs=0x1,,0x2,pmu=off",
            CpuOption("host,pmu=off", Properties(hidden=(1, 2))),
        ),
        (
            "max,sve=on,x-mig-safe-missing-regs=TCR2_EL1,,PIR_EL1,kvm-psci-version=1.0",
            CpuOption("max,sve=on", Properties((), (TCR2, PIR), (PsciVersion(1, 0),))),
        ),
        (
            "host,x-mig-hidden-regs=0x1,x-mig-hidden-regs=0x2",
            CpuOption("host", Properties(hidden=(1, 2))),
        ),
    ],
)
def test_a_cpu_argument_is_taken_apart_and_put_together(text: str, option: CpuOption) -> None:
    assert parse_cpu(text) == option
    assert parse_cpu(format_cpu(option)) == option


@given(properties, st.sampled_from(["host", "max,sve=on", "host,a=b,c=d,,e"]))
def test_cpu_arguments_written_are_read_back(given_: Properties, rest: str) -> None:
    option = CpuOption(rest, given_)
    assert parse_cpu(format_cpu(option)) == option


def test_a_single_comma_inside_a_cpu_list_is_refused_as_qemu_refuses_it() -> None:
    with pytest.raises(PropertyError) as error:
        parse_cpu("host,x-mig-hidden-regs=0x1,0x2")
    assert str(error.value) == (
        "-cpu x-mig-hidden-regs: Expected key=value format, found '0x2'. Inside -cpu the commas "
        "of a list are doubled, such as x-mig-hidden-regs=A,,B"
    )


def test_properties_become_a_policy_that_says_where_they_stood() -> None:
    policy = Properties((1,), (2,), (PsciVersion(1, 1),)).policy("-cpu")
    assert policy.hidden == {1: (Origin(OriginKind.COMMAND_LINE, "-cpu x-mig-hidden-regs"),)}
    assert policy.safe_missing == {
        2: (Origin(OriginKind.COMMAND_LINE, "-cpu x-mig-safe-missing-regs"),)
    }
    assert policy.psci_origins == (Origin(OriginKind.COMMAND_LINE, "-cpu kvm-psci-version"),)
