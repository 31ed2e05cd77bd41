"""How a load by stock QEMU ends, and the words of its lines for registers and devices.

Texts are what the real releases print (measured).
"""

import enum
from dataclasses import dataclass

from armferry.registers import (
    Accelerator,
    Arm64System,
    Demux,
    Firmware,
    FirmwareBitmap,
    Sve,
    decode,
)

__all__ = ["MessageClass", "StockVerdict", "called", "device_error"]


class MessageClass(enum.StrEnum):
    """How the load ends, told from what QEMU prints."""

    LOADS = "loads"
    MACHINE_TYPE = "machine type"
    UNKNOWN_BLOCK = "unknown memory block"
    BLOCK_SIZE = "memory block size"
    VCPUS = "number of vCPUs"
    LIST_TOO_LONG = "register list too long"
    REGISTERS_REFUSED = "registers refused"
    UNKNOWN_SUBSECTION = "unknown subsection"
    UNKNOWN_DEVICE = "unknown device"
    DEVICE_VERSION = "device version"
    CRASH = "QEMU aborts"


@dataclass(frozen=True, slots=True)
class StockVerdict:
    """What one release does.

    `message` are the lines that QEMU prints, warnings included; `culprits` the registers that
    stand in the way, by index, and `rules` the name of the rule set that says so.
    """

    loads: bool
    message_class: MessageClass
    message: str
    culprits: tuple[int, ...]
    rules: str


def device_error(instance: int, device: str = "cpu") -> str:
    """The line for a device whose section was not loaded."""
    return f"error while loading state for instance {instance:#x} of device '{device}'"


def called(index: int, accelerator: Accelerator) -> str:
    """QEMU's word for a register: the encoding under KVM, else its own number."""
    if accelerator is not Accelerator.KVM:
        return f"system register {_tcg_number(index):#x}"
    match decode(index):
        case Arm64System(op0=op0, op1=op1, crn=crn, crm=crm, op2=op2):
            return f"system register op0:{op0} op1:{op1} crn:{crn} crm:{crm} op2:{op2}"
        case Firmware(number):
            return f"fw reg {number}"
        case FirmwareBitmap(number):
            return f"fw feat reg {number}"
        case Demux():
            return f"demuxed reg {index:x}"
        case Sve():
            return f"SVE register {index:x}"
    return f"{index:x}"


def _tcg_number(index: int) -> int:
    """The 32-bit number by which TCG knows a register (measured in the texts of 11.1.3)."""
    number = index & 0xFFFFFFFF
    if index >> 60 == 0x6:
        return number | 1 << 28
    wide = index >> 52 & 0xF == 3
    return number | 1 << 29 | (1 << 15 if wide else 0)
