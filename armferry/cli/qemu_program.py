"""Which QEMU a command means: a program, or a release that armferry has installed.

The lab is looked at only where nothing of that name is on PATH, and nothing is imported before it
is asked: a host that only asks its kernel needs none of it.
"""

from pathlib import Path

__all__ = ["QEMU_HELP", "qemu_program"]

QEMU_HELP = "a program, or a release of `armferry lab qemu list` (default: QEMU on PATH)"
"""What `--qemu` takes, in every command."""


def qemu_program(text: str | None) -> Path:
    """The program that `--qemu TEXT` means, the QEMU on PATH without it. Raises ProbeError."""
    from armferry.hosts.fingerprints.probe import ProbeError, find_qemu

    try:
        return find_qemu(text)
    except ProbeError as error:
        from armferry.lab.qemu_install import installed, resolve
        from armferry.lab.releases import RELEASES, UnknownReleaseError

        if text is not None:
            try:
                there = installed(resolve(text))
            except UnknownReleaseError:
                there = None
            if there is not None:
                return there.launcher
        names = [there.version for release in RELEASES if (there := installed(release))]
        if not names:
            raise
        raise ProbeError(
            f"{error}, or give --qemu one of those that armferry installed: {', '.join(names)}"
        ) from None
