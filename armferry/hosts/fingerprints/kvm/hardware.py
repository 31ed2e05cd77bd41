"""What the hardware under this kernel gives a guest, whatever KVM lists.

Knows the counter's frequency, the page size and the kinds of cores; asks the processor and the
kernel, changes nothing. What cannot be read is None, never a guess. Sources: Arm architecture
manual (DDI 0487), CNTFRQ_EL0; Documentation/ABI/testing/sysfs-devices-system-cpu.
"""

import contextlib
import ctypes
import mmap
import os
from pathlib import Path

__all__ = ["CORES", "counter_hz", "kinds_of_cores", "page_bytes"]

CORES = Path("/sys/devices/system/cpu")
_READ_COUNTER_FREQUENCY = bytes.fromhex("00e03bd5c0035fd6")
"""MRS X0, CNTFRQ_EL0; RET: Linux lets every program read it."""
_MAX_CORES = 16384
_FAILED = ctypes.c_void_p(-1).value


def counter_hz() -> int | None:
    """CNTFRQ_EL0 of this machine in Hz; None where it cannot be read.

    Firmware sets it, and every guest under KVM reads the same one.
    """
    if os.uname().machine != "aarch64" or not hasattr(os, "memfd_create"):
        return None
    with contextlib.suppress(OSError):
        return _run(_READ_COUNTER_FREQUENCY) or None
    return None


def page_bytes() -> int:
    """The page size of this kernel in bytes: 4096, 16384 or 65536."""
    return mmap.PAGESIZE


def kinds_of_cores(folder: Path = CORES) -> dict[int, tuple[int, ...]] | None:
    """MIDR_EL1 -> the processors that have it; None where the kernel does not say.

    `folder` is that of the kernel's processors. Processors that are off are not among them.
    """
    kinds: dict[int, list[int]] = {}
    for number in range(_MAX_CORES):
        core = folder / f"cpu{number}"
        if not core.exists():
            break
        with contextlib.suppress(OSError, ValueError):
            text = (core / "regs/identification/midr_el1").read_text(encoding="ascii")
            kinds.setdefault(int(text, 16), []).append(number)
    return {midr: tuple(numbers) for midr, numbers in sorted(kinds.items())} or None


def _run(code: bytes) -> int:
    """What the instructions `code` leave in X0. Raises OSError.

    They are mapped from a file, so that the kernel sees to the instruction cache.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_long,
    ]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    descriptor = os.memfd_create("armferry-cntfrq")
    try:
        os.write(descriptor, code)
        protection = mmap.PROT_READ | mmap.PROT_EXEC
        place = libc.mmap(None, mmap.PAGESIZE, protection, mmap.MAP_PRIVATE, descriptor, 0)
        if place == _FAILED:
            raise OSError(ctypes.get_errno(), "mmap")
    finally:
        os.close(descriptor)
    try:
        return int(ctypes.CFUNCTYPE(ctypes.c_uint64)(place)())
    finally:
        libc.munmap(place, mmap.PAGESIZE)
