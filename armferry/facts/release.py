"""Releases of kernels and QEMUs, as text: in which order they came, and which one is meant.

Knows how Linux, QEMU and their packagers number: `7.4-rc3` and `7.4~rc3` come before `7.4`, and a
QEMU whose last number is 50 or more (`11.0.92`) is on its way to the next release. Refuses to know
what any release does.
"""

import re
from collections.abc import Iterable

from armferry.errors import ArmferryError

__all__ = ["UnknownQemuVersion", "newest_match", "qemu_release", "release_key", "series_of"]

_NUMBERS = re.compile(r"[0-9]{1,9}")
_KERNEL = re.compile(
    r"(?P<numbers>[0-9]{1,9}(?:\.[0-9]{1,9}){0,2})(?:[-~]rc(?P<candidate>[0-9]{1,9}))?"
)
_RELEASED = 1 << 32  # after every release candidate
_QEMU = re.compile(
    r"v?([0-9]{1,4})(?:\.([0-9]{1,4}))?(?:\.([0-9]{1,4}))?(?:\.[0-9]{1,4})*(?!\.?[0-9])(?P<rc>-rc[0-9])?"
)
_ON_ITS_WAY = 50
_LAST_OF_A_YEAR = 2


class UnknownQemuVersion(ArmferryError):
    """A text that is no version of QEMU."""


def release_key(release: str) -> tuple[int, ...]:
    """Sorts releases oldest first: up to three numbers, then a candidate, then what is left.

    What is left are the numbers of the packager: `5.10.0-30` comes before `5.10.0-32`.
    """
    found = _KERNEL.match(release)
    if found is None:
        return (0, 0, 0, 0, *map(int, _NUMBERS.findall(release)))
    numbers = [int(number) for number in found["numbers"].split(".")]
    candidate = found["candidate"]
    return (
        *[*numbers, 0, 0][:3],
        _RELEASED if candidate is None else int(candidate),
        *map(int, _NUMBERS.findall(release[found.end() :])),
    )


def series_of(release: str) -> str:
    """The first two numbers of a release: `6.12` of `6.12.107+deb13`."""
    return ".".join(map(str, release_key(release)[:2]))


def newest_match(request: str, releases: Iterable[str]) -> str | None:
    """The newest release that `request` names: itself, or one that continues it.

    `6.1` continues as `6.1.0-50`, never as `6.12.95`.
    """
    fitting = [
        release
        for release in releases
        if release == request or re.match(re.escape(request) + r"[.+~-]", release)
    ]
    return max(fitting, key=release_key, default=None)


def qemu_release(version: str) -> tuple[int, int, int]:
    """A version of QEMU as numbers that compare; a missing one is 0.

    A version on its way to the next release has that release's numbers, with -1 at the end: it
    comes before it, and has what it will have. Raises UnknownQemuVersion.
    """
    found = _QEMU.match(version)
    if found is None:
        raise UnknownQemuVersion(
            f"{version[:40]!r} is no version of QEMU; write it as qemu-system-aarch64 --version "
            "does, such as 10.0.13"
        )
    major, minor, micro = (int(part or 0) for part in found.groups()[:3])
    if found["rc"]:
        return major, minor, -1
    if micro < _ON_ITS_WAY:
        return major, minor, micro
    return (major, minor + 1, -1) if minor < _LAST_OF_A_YEAR else (major + 1, 0, -1)
