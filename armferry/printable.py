"""Text of files and peers, made fit for a terminal.

A name in a stream, a reason in a log or a fingerprint's words may hold what a terminal obeys: it is
shown instead, as \\x1b is. Line ends and tabs stay; the printer of a table decides on those.
"""

import re

__all__ = ["printable"]

# control characters of both sets, marks that turn the direction of a line, lone surrogates (bytes
# of a file's name that are no text)
_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """`text`, what a terminal would obey written as Python writes it."""
    return _OBEYED.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found.group())
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"  # the byte that it stands for
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
