"""The wire format of a QEMU migration stream, sans-I/O.

`StreamParser` turns bytes into events, for connections; `read_saved` reads a saved state from
both ends without touching guest memory; `rewrite_tail` gives a saved state other register lists.
Each is loaded when it is first used: two fingerprints are compared without any stream.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from armferry.stream.cpu import CPU_SECTION, CpuEdit, CpuState, read_cpu, rewrite_cpu
    from armferry.stream.errors import (
        CorruptStream,
        NotAStream,
        OversizedStream,
        StreamError,
        TruncatedStream,
        UnsupportedStream,
    )
    from armferry.stream.parser import StreamParser
    from armferry.stream.reading import Window, read_saved
    from armferry.stream.rewrite import NewTail, StateEdit, old_tail, rewrite_tail
    from armferry.stream.saved_state import SavedCollector, SavedState

__all__ = [
    "CPU_SECTION",
    "CorruptStream",
    "CpuEdit",
    "CpuState",
    "NewTail",
    "NotAStream",
    "OversizedStream",
    "SavedCollector",
    "SavedState",
    "StateEdit",
    "StreamError",
    "StreamParser",
    "TruncatedStream",
    "UnsupportedStream",
    "Window",
    "old_tail",
    "read_cpu",
    "read_saved",
    "rewrite_cpu",
    "rewrite_tail",
]

_MODULES = {
    "cpu": ("CPU_SECTION", "CpuEdit", "CpuState", "read_cpu", "rewrite_cpu"),
    "parser": ("StreamParser",),
    "reading": ("Window", "read_saved"),
    "rewrite": ("NewTail", "StateEdit", "old_tail", "rewrite_tail"),
    "saved_state": ("SavedCollector", "SavedState"),
}


if not TYPE_CHECKING:  # pragma: no branch - a type checker, which never runs, is to know names

    def __getattr__(name: str) -> object:
        import importlib

        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = next((one for one, names in _MODULES.items() if name in names), "errors")
        return getattr(importlib.import_module(f"{__name__}.{module}"), name)
