"""The QEMU releases of the rig: which Debian suite carries each, and how a person names one.

Data only; nothing here installs or runs anything. A suite is the identity: point releases roll,
so the version in the table is the one the suite carried when it was written, and what is really
installed is asked of the binary (`armferry.lab.qemu_install`).
"""

from dataclasses import dataclass

from armferry.errors import ArmferryError

__all__ = ["RELEASES", "Release", "UnknownReleaseError", "release_named"]


class UnknownReleaseError(ArmferryError):
    """The text names no release of the rig."""


@dataclass(frozen=True, slots=True)
class Release:
    """One QEMU of the rig.

    `version` is the upstream version the suite is known to carry, `suite` the Debian suite it
    comes from and `base` the suite that the rest of the root comes from (the same one, except
    for backports).
    """

    version: str
    base: str
    suite: str


RELEASES = (
    Release("5.2.0", "bullseye", "bullseye"),
    Release("7.2.22", "bookworm", "bookworm"),
    Release("10.0.2", "bookworm", "bookworm-backports"),
    Release("10.0.13", "trixie", "trixie"),
    Release("11.1.3", "trixie", "trixie-backports"),
)
"""Oldest first."""


def release_named(name: str) -> Release:
    """The release that `name` means: a suite, a version, or the beginning of one.

    `10.0` fits two releases; the newest wins. Raises UnknownReleaseError with the whole choice.
    """
    for release in RELEASES:
        if name in (release.suite, release.version):
            return release
    for release in reversed(RELEASES):
        if release.version.startswith(f"{name}."):
            return release
    choice = ", ".join(f"{release.version} ({release.suite})" for release in RELEASES)
    raise UnknownReleaseError(
        f"no QEMU release {name!r} in the rig; name a version, its beginning or a suite of: "
        f"{choice}"
    )
