"""The atlas: recorded fingerprints of kernels and QEMUs that armferry carries with it."""

from .entries import Atlas, Entry, UnknownEntry, pack, read_atlas
from .history import Condition, Span, condition_of, history

__all__ = [
    "Atlas",
    "Condition",
    "Entry",
    "Span",
    "UnknownEntry",
    "condition_of",
    "history",
    "pack",
    "read_atlas",
]
