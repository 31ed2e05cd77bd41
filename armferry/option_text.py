"""The value of one of QEMU's options as text: cut at its commas, and put together again.

A single comma ends a part, a doubled one stands for itself (util/qemu-option.c). Belongs to no
room and imports nothing, for it also runs before the quickest of probes.
"""

__all__ = ["joined", "keyed", "segments"]


def segments(text: str) -> "list[str]":
    """`text` cut at its single commas; doubled ones stay doubled, so that joining gives `text`."""
    parts: list[str] = []
    begin = at = 0
    while at < len(text):
        if text[at] != ",":
            at += 1
        elif text[at + 1 : at + 2] == ",":
            at += 2
        else:
            parts.append(text[begin:at])
            at += 1
            begin = at
    parts.append(text[begin:])
    return parts


def keyed(text: str, implied: str = "") -> "list[tuple[str, str]]":
    """The (key, value) pairs of an option's value, in order, as QEMU reads them.

    The first part without `=` is the value of `implied`. Any other is a switch: `NAME` is
    (NAME, on) and `noNAME` is (NAME, off).
    """
    pairs: list[tuple[str, str]] = []
    for number, part in enumerate(segments(text)):
        plain = part.replace(",,", ",")
        key, equals, value = plain.partition("=")
        if equals:
            pairs.append((key, value))
        elif number == 0 and implied:
            pairs.append((implied, plain))
        elif plain.startswith("no") and plain != "no":
            pairs.append((plain[2:], "off"))
        elif plain:
            pairs.append((plain, "on"))
    return pairs


def joined(pairs: "list[tuple[str, str]]", implied: str = "") -> str:
    """The value of an option again; `implied`, when it comes first, is written without its key."""
    parts: list[str] = []
    for number, (key, value) in enumerate(pairs):
        doubled = value.replace(",", ",,")
        bare = number == 0 and key == implied and implied
        parts.append(doubled if bare else f"{key}={doubled}")
    return ",".join(parts)
