"""How QEMU, the kernel and their headers spell a register, where it is not by name or index.

Knows the forms that logs and sources show and turns each into an encoding or an index:

    0x1013c030                           QEMU's 32-bit key of a register under TCG
    op0:3 op1:0 crn:2 crm:0 op2:3        QEMU 11.1 under KVM; the kernel's `Op0( 3), Op1( 0), ...`
    fw reg 0, fw feat reg 3              QEMU 11.1 under KVM; firmware registers
    KVM_REG_ARM_PSCI_VERSION             uapi/asm/kvm.h, also with an argument in brackets
    ARM64_SYS_REG(3,0,2,0,3)             the same header; sys_reg() of the kernel
    SYS_TCR2_EL1                         arch/arm64/tools/sysreg

Refuses to know which registers there are; names that remain are for `parse`. Bits of QEMU's key:
target/arm/cpregs.h, its relation to the index measured in the texts of QEMU 11.1.3.
"""

import re

from .index import Arm64System, Encoding, Firmware, FirmwareBitmap, Unknown, decode, encode

__all__ = ["from_key", "is_index", "plain_name", "spelled"]

_AARCH64_KEY = 1 << 28
_WIDE_KEY = 1 << 15
_NUMBERED = re.compile(
    r"""
        op0\s*[:(]\s*(\d+)\s*\)?[\s,]*op1\s*[:(]\s*(\d+)\s*\)?[\s,]*
        crn\s*[:(]\s*(\d+)\s*\)?[\s,]*crm\s*[:(]\s*(\d+)\s*\)?[\s,]*
        op2\s*[:(]\s*(\d+)\s*\)?""",
    re.VERBOSE,
)
_MACRO = re.compile(
    r"(?:__)?(?:arm64_sys_reg|sys_reg)\s*\(\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*,"
    r"\s*(\d+)\s*\)"
)
_FIRMWARE = re.compile(r"(?:fw reg|kvm_reg_arm_fw_reg)\s*\(?\s*(\d{1,5})\s*\)?")
_BITMAP = re.compile(r"(?:fw feat reg|kvm_reg_arm_fw_feat_bmap_reg)\s*\(?\s*(\d{1,5})\s*\)?")
_UAPI_NAMES = {
    "timer_ctl": "cntv_ctl_el0",
    "ptimer_ctl": "cntp_ctl_el0",
    "ptimer_cnt": "cntpct_el0",
    "ptimer_cval": "cntp_cval_el0",
}
"""Names of the kernel's header that the architecture does not use, without their prefix."""
_HIGHEST = (3, 7, 15, 15, 7)


def spelled(folded: str) -> Encoding | None:
    """The encoding that a text in small letters spells in one of these ways, None for another."""
    if match := _NUMBERED.fullmatch(folded) or _MACRO.fullmatch(folded):
        numbers = [int(part) for part in match.groups() if len(part) <= 2]
        if len(numbers) < 5 or any(n > top for n, top in zip(numbers, _HIGHEST, strict=True)):
            return None
        return Arm64System(numbers[0], numbers[1], numbers[2], numbers[3], numbers[4])
    if match := _FIRMWARE.fullmatch(folded):
        return Firmware(int(match[1])) if int(match[1]) <= 0xFFFF else None
    if match := _BITMAP.fullmatch(folded):
        return FirmwareBitmap(int(match[1])) if int(match[1]) <= 0xFFFF else None
    return None


def plain_name(folded: str) -> str:
    """A name without what the kernel's sources put before it: `sys_tcr2_el1` is `tcr2_el1`."""
    for prefix in ("kvm_reg_arm64_", "kvm_reg_arm_", "sys_"):
        if folded.startswith(prefix):
            rest = folded.removeprefix(prefix)
            return _UAPI_NAMES.get(rest, rest)
    return folded


def from_key(key: int) -> int | None:
    """The index behind QEMU's 32-bit key, None where `key` cannot be one.

    A key has bit 28 for AArch64, else bit 29 for the non-secure bank and bit 15 for 64 bits.
    """
    if key >> 32:
        return None
    if key & _AARCH64_KEY:
        index = 0x6030 << 48 | key & ~_AARCH64_KEY
        fits = key >> 16 == 0x1013
    else:
        wide = key & _WIDE_KEY
        index = (0x4030 if wide else 0x4020) << 48 | key & ~_WIDE_KEY
        fits = key >> 16 & 0xDFFF in (0xE, 0xF)
    if not fits:
        return None
    encoding = decode(index)
    return None if isinstance(encoding, Unknown) else encode(encoding)


def is_index(number: int) -> bool:
    """Whether a number can be the index of an Arm register: KVM_REG_ARM or KVM_REG_ARM64."""
    return number >> 60 in (0x4, 0x6) and not number >> 64
