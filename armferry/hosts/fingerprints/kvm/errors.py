"""What can go wrong with /dev/kvm: the machine's fault, the kernel's refusal, a hidden register."""

import errno
import os

from armferry.errors import ArmferryError, EnvironmentFault
from armferry.registers import Accelerator, name

__all__ = ["HiddenRegister", "KvmFault", "RegisterRefused"]


class KvmFault(EnvironmentFault):
    """This machine has no usable arm64 KVM."""


class HiddenRegister(ArmferryError):
    """A hidden register was named; nothing was read or written."""

    def __init__(self, index: int, action: str) -> None:
        self.index = index
        super().__init__(
            f"cannot {action} {name(index, Accelerator.KVM)} ({index:#018x}): it is hidden from"
            " this VM; take it out of x-mig-hidden-regs to let the VM have it"
        )


class RegisterRefused(ArmferryError):
    """The kernel refused to read or write a register.

    `errno` is the kernel's; `value` is what was to be written, None when it was a read.
    """

    def __init__(self, index: int, number: int, value: int | None = None) -> None:
        self.index = index
        self.errno = number
        self.value = value
        action = "read" if value is None else f"set to {value:#x}"
        symbol = errno.errorcode.get(number, str(number))
        super().__init__(
            f"the kernel does not let {name(index, Accelerator.KVM)} ({index:#018x}) be {action}:"
            f" {symbol}, {os.strerror(number)}"
        )
