"""armferry's own properties of `-cpu host`: read, taken out, refused by name."""

import pytest

from armferry.wrapper.commandline.host_properties import Carry, HostProperties, take_host_properties
from armferry.wrapper.errors import ArgumentFault

PFR0 = 0x603000000013C020


def taken(*words: str) -> tuple[list[str], HostProperties]:
    return take_host_properties(words, "qemu")


def test_command_line_without_them_is_kept_to_the_byte() -> None:
    words = ["-cpu", "host,pmu=off,x-mig-hidden-regs=1,,2", "-global", "arm-cpu.pmu=off", "-S"]
    assert taken(*words) == (words, HostProperties())
    assert not HostProperties()


@pytest.mark.parametrize(
    "words",
    [
        ("-cpu", "host,x-armferry-as=atlas:5.10/neoverse-n1"),
        ("-cpu", "host", "-global", "arm-cpu.x-armferry-as=atlas:5.10/neoverse-n1"),
        ("-cpu", "host", "-global", "host-arm-cpu.x-armferry-as=atlas:5.10/neoverse-n1"),
        ("-cpu", "host", "-global",
         "driver=arm-cpu,property=x-armferry-as,value=atlas:5.10/neoverse-n1"),
    ],
)  # fmt: skip
def test_host_to_be_born_as(words: tuple[str, ...]) -> None:
    left, said = taken(*words)
    assert left == ["-cpu", "host"]
    assert said == HostProperties(born_as="atlas:5.10/neoverse-n1")
    assert said.first == "x-armferry-as"


def test_path_with_a_comma() -> None:
    assert taken("-cpu", "host,x-armferry-as=/a,,b.json,pmu=off") == (
        ["-cpu", "host,pmu=off"], HostProperties(born_as="/a,b.json")
    )  # fmt: skip


def test_field() -> None:
    left, said = taken("-cpu", "host,SYSREG_ID_AA64PFR0_EL1_CSV3=0x1,SYSREG_ID_AA64PFR0_EL1_EL0=1")
    assert left == ["-cpu", "host"]
    assert [(one.index, one.field.name, one.value) for one in said.fields] == [
        (PFR0, "CSV3", 1 << 60), (PFR0, "EL0", 1)
    ]  # fmt: skip
    assert said.first == "SYSREG_ID_AA64PFR0_EL1_CSV3"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SYSREG_NONE_SUCH=1",
         "SYSREG_NONE_SUCH: no register goes by this name; write SYSREG_ID_AA64PFR0_EL1_CSV3=0"),
        ("SYSREG_ID_AA64PFR0_EL1_CSV3=16", "SYSREG_ID_AA64PFR0_EL1_CSV3=16: the field has 4 bits"),
        ("SYSREG_ID_AA64PFR0_EL1_CSV3=-1",
         "SYSREG_ID_AA64PFR0_EL1_CSV3=-1: accepted is a number"),
        ("SYSREG_ID_AA64PFR0_EL1_CSV3=",
         "SYSREG_ID_AA64PFR0_EL1_CSV3=: accepted is a number"),
        ("SYSREG_ID_AA64PFR0_EL1_CSV3=" + "9" * 5000,
         "SYSREG_ID_AA64PFR0_EL1_CSV3=" + "9" * 40 + ": accepted is a number"),
        ("x-armferry-carry=maybe", "x-armferry-carry=maybe: accepted is on, here or off"),
        ("x-armferry-as=a,x-armferry-as=b", "x-armferry-as is given twice: 'a' and 'b'"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(text: str, message: str) -> None:
    with pytest.raises(ArgumentFault) as caught:
        taken("-cpu", f"host,{text}")
    assert str(caught.value) == f"qemu: {message}"


def test_unknown_field_names_those_there_are() -> None:
    with pytest.raises(ArgumentFault) as caught:
        taken("-cpu", "host,SYSREG_ID_AA64PFR0_EL1_NOPE=1")
    assert "ID_AA64PFR0_EL1 has no field 'NOPE'; it has EL0, EL1," in str(caught.value)


@pytest.mark.parametrize("carry", list(Carry))
def test_carrying(carry: Carry) -> None:
    _, said = taken("-cpu", f"host,x-armferry-carry={carry.value}")
    assert said == HostProperties(carry=carry)
    assert bool(said.carry) is (carry is not Carry.OFF)
