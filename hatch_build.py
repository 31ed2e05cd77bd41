"""The wheels: one for any machine, and one for aarch64 with the library of the KVM boundary.

The library is compiled on aarch64, and elsewhere when ARMFERRY_BOUNDARY_CC names a cross compiler
(aarch64-linux-gnu-gcc); without either, the wheel is pure. Its flags are those of
armferry/boundary/build.py, and it needs glibc 2.17 or newer, hence the tag.
"""

import os
import platform
import runpy
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_LIBRARY = "libarmferry-boundary.so"
_TAG = "py3-none-manylinux_2_17_aarch64"


class BoundaryHook(BuildHookInterface):  # type: ignore[type-arg]
    """Compiles the library into the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Adds the library and the tag when there is a compiler for aarch64."""
        compiler = os.environ.get("ARMFERRY_BOUNDARY_CC", "")
        native = platform.machine() == "aarch64" and platform.libc_ver()[0] == "glibc"
        if self.target_name != "wheel" or version == "editable" or not (compiler or native):
            return
        build = runpy.run_path(str(Path(self.root, "armferry", "boundary", "build.py")))
        library = Path(self.directory, _LIBRARY)
        library.parent.mkdir(parents=True, exist_ok=True)
        build["compile_library"](library, compiler)
        build_data["force_include"][str(library)] = f"armferry/boundary/{_LIBRARY}"
        build_data["pure_python"] = False
        build_data["tag"] = _TAG

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Removes what the compiler left beside the wheel."""
        Path(self.directory, _LIBRARY).unlink(missing_ok=True)
