"""What a host gives a guest beside the register list, as a fingerprint records it.

None is what was not recorded, or could not be read; it is never taken for nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["HostRecord", "host_json", "read_host"]

_MAX_KINDS = 64
_MAX_LENGTHS = 64


@dataclass(frozen=True, slots=True)
class HostRecord:
    """`counter_hz` is CNTFRQ_EL0 in Hz, `page_bytes` the kernel's page size, `sve_bits` and
    `sme_bits` are vector lengths in bits, ascending (empty: none), `gic` the versions of the
    interrupt controller that the host's KVM can give, `its` whether it can give an ITS, and `cores`
    MIDR_EL1 -> processors.
    """

    counter_hz: int | None = None
    page_bytes: int | None = None
    sve_bits: tuple[int, ...] | None = None
    sme_bits: tuple[int, ...] | None = None
    gic: tuple[int, ...] | None = None
    its: bool | None = None
    cores: Mapping[int, tuple[int, ...]] | None = None


def host_json(host: HostRecord) -> dict[str, Any]:
    """The record as a JSON object."""
    return {
        "counter_hz": host.counter_hz,
        "page_bytes": host.page_bytes,
        "sve_bits": None if host.sve_bits is None else list(host.sve_bits),
        "sme_bits": None if host.sme_bits is None else list(host.sme_bits),
        "gic": None if host.gic is None else list(host.gic),
        "its": host.its,
        "cores": None
        if host.cores is None
        else [
            {"midr": f"{midr:#x}", "processors": list(numbers)}
            for midr, numbers in host.cores.items()
        ],
    }


def read_host(document: Mapping[str, Any] | None) -> HostRecord:
    """The record in a JSON object. Raises KeyError, TypeError or ValueError for a malformed one."""
    if document is None:
        return HostRecord()
    its = document.get("its")
    if its is not None and not isinstance(its, bool):
        raise ValueError(f"its is {its!r}, not true or false")
    cores = document.get("cores")
    if cores is not None and len(cores) > _MAX_KINDS:
        raise ValueError(f"{len(cores)} kinds of cores")
    return HostRecord(
        counter_hz=_number(document.get("counter_hz"), "counter_hz"),
        page_bytes=_number(document.get("page_bytes"), "page_bytes"),
        sve_bits=_numbers(document.get("sve_bits"), "sve_bits"),
        sme_bits=_numbers(document.get("sme_bits"), "sme_bits"),
        gic=_numbers(document.get("gic"), "gic"),
        its=its,
        cores=None
        if cores is None
        else {
            _midr(kind["midr"]): tuple(int(number) for number in kind["processors"])
            for kind in cores
        },
    )


def _number(number: Any, what: str) -> int | None:
    if number is None:
        return None
    if not isinstance(number, int) or isinstance(number, bool) or not 0 < number < 1 << 64:
        raise ValueError(f"{what} is {str(number)[:40]}")
    return number


def _numbers(numbers: Any, what: str) -> tuple[int, ...] | None:
    if numbers is None:
        return None
    if len(numbers) > _MAX_LENGTHS:
        raise ValueError(f"{what} has {len(numbers)} entries")
    found = [_number(number, what) for number in numbers]
    return tuple(sorted({number for number in found if number is not None}))


def _midr(text: str) -> int:
    midr = int(text, 16)
    if not 0 <= midr < 1 << 64:
        raise ValueError(f"midr {midr:#x} is out of range")
    return midr
