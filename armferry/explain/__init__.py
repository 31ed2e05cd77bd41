"""What a line means that QEMU, libvirt or the kernel printed, and what to type next."""

from armferry.explain.lines import Explanation, explain_line, explain_log, explain_text
from armferry.explain.table import KnownLine, Program, known_lines

__all__ = [
    "Explanation",
    "KnownLine",
    "Program",
    "explain_line",
    "explain_log",
    "explain_text",
    "known_lines",
]
