"""The atlas: recorded fingerprints of kernels and QEMUs that armferry carries with it."""

from .entries import Atlas, Entry, UnknownEntry, pack, read_atlas
from .history import Span, history

__all__ = [
    "Atlas",
    "Entry",
    "Span",
    "UnknownEntry",
    "history",
    "pack",
    "read_atlas",
]
