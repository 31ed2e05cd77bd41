"""How the library is compiled: the flags, in one place for wheels, the lab and the tests.

Needs a C compiler and the headers of its C library, nothing else; imports nothing of armferry, for
the wheel's build reads this file before armferry is installed. The same source and compiler give
the same bytes, wherever they lie.
"""

import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

__all__ = ["CROSS", "FLAGS", "SOURCE", "BuildFault", "compile_library"]

SOURCE = Path(__file__).with_name("boundary.c")

CROSS = "aarch64-linux-gnu-gcc"
"""Debian's cross compiler (gcc-aarch64-linux-gnu)."""

WARNINGS = (
    "-Wall", "-Wextra", "-Werror", "-Wconversion", "-Wshadow", "-Wstrict-prototypes",
    "-Wmissing-prototypes", "-Wcast-qual", "-Wpointer-arith", "-Wvla", "-Wformat=2",
)  # fmt: skip

FLAGS = (
    "-std=c11", "-O2", *WARNINGS, "-fPIC", "-shared", "-fvisibility=hidden",
    "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2", "-Wl,-z,now", "-Wl,-z,relro", "-Wl,-z,defs",
    "-Wl,-z,noexecstack", "-Wl,--build-id=none", "-Wl,-soname,libarmferry-boundary.so",
)  # fmt: skip

_AARCH64 = ("-mbranch-protection=standard", "-mno-outline-atomics")


class BuildFault(Exception):
    """The compiler is missing or refuses; its own words."""


def compile_library(
    target: Path, compiler: str = "", *, aarch64: bool = True, extra: Sequence[str] = ()
) -> None:
    """Compiles the library into the file `target`. Raises BuildFault.

    `compiler` may have words of its own; empty for $CC or `cc`.
    """
    words = shlex.split(compiler or os.environ.get("CC", "cc"))
    machine = _AARCH64 if aarch64 else ()
    # relative to the source's folder, so that no path of this machine is in the result
    command = [*words, *FLAGS, *machine, *extra, SOURCE.name, "-o", str(target.absolute())]
    try:
        done = subprocess.run(
            command, cwd=SOURCE.parent, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise BuildFault(f"{words[0]}: {error.strerror}") from error
    if done.returncode:
        raise BuildFault(f"{shlex.join(command)}:\n{done.stderr}")
