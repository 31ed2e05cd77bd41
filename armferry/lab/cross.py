"""Debian's cross tools for arm64, run to build what the lab boots."""

import shutil
import subprocess

from armferry.errors import EnvironmentFault

__all__ = ["CrossBuildError", "cross_tool"]

_PREFIX = "aarch64-linux-gnu-"
_PACKAGES = {
    "as": "binutils-aarch64-linux-gnu",
    "ld": "binutils-aarch64-linux-gnu",
    "gcc": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
}
_LIMIT = 300.0


class CrossBuildError(EnvironmentFault):
    """A guest cannot be built on this machine."""


def cross_tool(what: str, name: str, *arguments: str) -> None:
    """Runs `aarch64-linux-gnu-NAME` to build `what`. Raises CrossBuildError with its words."""
    program = shutil.which(_PREFIX + name)
    if program is None:
        raise CrossBuildError(
            f"building {what}: {_PREFIX}{name} is missing; apt-get install {_PACKAGES[name]}"
        )
    command = [program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT, check=False)
    if done.returncode != 0:
        raise CrossBuildError(
            f"building {what}: {_PREFIX}{name} ended with status {done.returncode}:\n"
            f"{done.stderr.strip()}\nthe sources are part of armferry: reinstall it, or report this"
        )
