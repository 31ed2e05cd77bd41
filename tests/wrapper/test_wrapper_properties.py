"""The mission's properties found on a command line and taken out of it."""

import pytest

from armferry.policy import Properties, PsciVersion
from armferry.wrapper.commandline.essential_registers import refuse_needed
from armferry.wrapper.commandline.properties import parse_properties, policy_of, strip_properties
from armferry.wrapper.errors import ArgumentFault

A, B = 0x603000000013C103, 0x603000000013C512
BMAP = 0x6030000000160003
QEMU = "qemu-system-aarch64"

CASES = [
    (["-M", "virt"], [], ["-M", "virt"]),
    (
        ["-cpu", "host,x-mig-hidden-regs=0x6030000000160003"],
        [("host-arm-cpu", Properties(hidden=(BMAP,)))],
        ["-cpu", "host"],
    ),
    (
        ["-cpu", f"max,x-mig-safe-missing-regs={A:#x},,{B},pmu=off", "-S"],
        [("max-arm-cpu", Properties(safe_missing=(A, B)))],
        ["-cpu", "max,pmu=off", "-S"],
    ),
    (
        ["-S", "-global", f"arm-cpu.x-mig-safe-missing-regs={A:#x},{B:#x}", "-m", "64"],
        [("arm-cpu", Properties(safe_missing=(A, B)))],
        ["-S", "-m", "64"],
    ),
    (
        ["-global", f"arm-cpu.x-mig-safe-missing-regs={A:#x},,{B:#x}"],
        [("arm-cpu", Properties(safe_missing=(A, B)))],
        [],
    ),
    (
        ["-global", f"driver=host-arm-cpu,property=x-mig-hidden-regs,value={A:#x},,{B:#x}"],
        [("host-arm-cpu", Properties(hidden=(A, B)))],
        [],
    ),
    (
        ["-device", f"max-arm-cpu,id=a,x-mig-hidden-regs={A:#x},,{B:#x}"],
        [("max-arm-cpu", Properties(hidden=(A, B)))],
        ["-device", "max-arm-cpu,id=a"],
    ),
    (
        ["-device", f'{{"driver":"max-arm-cpu","x-mig-hidden-regs":[{A},"TCR2_EL1"],"id":"a"}}'],
        [("max-arm-cpu", Properties(hidden=(A,)))],
        ["-device", '{"driver": "max-arm-cpu", "id": "a"}'],
    ),
    (
        ["-cpu", "host,kvm-psci-version=1.1"],
        [("host-arm-cpu", Properties(psci=(PsciVersion(1, 1),)))],
        ["-cpu", "host"],
    ),
    (
        ["-append", f"-cpu x-mig-hidden-regs={A:#x}", "-global", "virtio-net-pci.romfile="],
        [],
        ["-append", f"-cpu x-mig-hidden-regs={A:#x}", "-global", "virtio-net-pci.romfile="],
    ),
]


@pytest.mark.parametrize(("words", "found", "rest"), CASES)
def test_found_and_taken_out(
    words: list[str], found: list[tuple[str, Properties]], rest: list[str]
) -> None:
    assert [(one.driver, one.properties) for one in parse_properties(words, QEMU)] == found
    assert strip_properties(words) == rest
    assert parse_properties(strip_properties(words), QEMU) == ()


def test_what_qemu_knows_stays_in_a_form_it_reads() -> None:
    words = ["-cpu", f"host,x-mig-hidden-regs={A:#x},,{B:#x},kvm-psci-version=1.1,pmu=off"]
    assert strip_properties(words, {"kvm-psci-version", "x-mig-hidden-regs"}) == [
        "-cpu",
        "host,pmu=off,kvm-psci-version=1.1",
        "-global",
        f"arm-cpu.x-mig-hidden-regs={A:#018x},{B:#018x}",
    ]
    assert strip_properties(words, {"kvm-psci-version"}) == [
        "-cpu",
        "host,pmu=off,kvm-psci-version=1.1",
    ]


def test_statements_for_another_model_do_not_apply_and_the_rest_is_united() -> None:
    words = ["-cpu", f"max,x-mig-hidden-regs={A:#x}"]
    words += ["-global", f"arm-cpu.x-mig-hidden-regs={B:#x}"]
    words += ["-global", f"cortex-a53-arm-cpu.x-mig-hidden-regs={BMAP:#x}"]
    policy = policy_of(parse_properties(words, QEMU), "max")
    assert {index: [o.where for o in origins] for index, origins in policy.hidden.items()} == {
        A: ["-cpu x-mig-hidden-regs"],
        B: ["-global x-mig-hidden-regs"],
    }


BAD = [
    (
        ["-cpu", "max,x-mig-hidden-regs=0x1,0x2"],
        (
            "qemu-system-aarch64: -cpu x-mig-hidden-regs: Expected key=value format, found '0x2'. "
            "Inside -cpu the commas of a list are doubled, such as x-mig-hidden-regs=A,,B"
        ),
    ),
    (
        ["-global", "arm-cpu.x-mig-safe-missing-regs=0x1,,,0x2"],
        (
            "qemu-system-aarch64: -global arm-cpu.x-mig-safe-missing-regs: empty element in "
            "'0x1,,0x2'; accepted is a comma-separated list of 64-bit register indexes, "
            "hexadecimal or decimal, or register names, such as 0x603000000013c103, TCR2_EL1"
        ),
    ),
    (
        ["-device", "max-arm-cpu,x-mig-hidden-regs=09"],
        (
            "qemu-system-aarch64: -device max-arm-cpu: x-mig-hidden-regs: '09' is no number (a "
            "leading 0 without x makes it octal, as for QEMU); accepted is a comma-separated "
            "list of 64-bit register indexes, hexadecimal or decimal, or register names, such as "
            "0x603000000013c103, TCR2_EL1"
        ),
    ),
    (
        ["-cpu", "host,kvm-psci-version=2"],
        (
            "qemu-system-aarch64: -cpu kvm-psci-version: Invalid PSCI version '2'. Valid "
            "values are 0.2, 1.0, 1.1, 1.2, 1.3"
        ),
    ),
]


@pytest.mark.parametrize(("words", "message"), BAD)
def test_bad_values(words: list[str], message: str) -> None:
    with pytest.raises(ArgumentFault) as caught:
        parse_properties(words, QEMU)
    assert str(caught.value) == message
    assert caught.value.exit_code == 3


def test_registers_that_the_guest_needs_cannot_be_hidden() -> None:
    refuse_needed([BMAP, A, B], QEMU, "-cpu")
    with pytest.raises(ArgumentFault) as caught:
        refuse_needed([0x603000000013C080, 0x6030000000100040, A], QEMU, "-cpu")
    assert str(caught.value) == (
        "qemu-system-aarch64: -cpu: the guest needs SCTLR_EL1 (0x603000000013c080), core.PC "
        "(0x6030000000100040) to run: hidden, its content would be lost in every migration; take "
        "it off the list"
    )
