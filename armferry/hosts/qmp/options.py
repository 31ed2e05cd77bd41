"""QEMU's command line as options and values, word by word, nothing lost.

Knows which options take a value (qemu-options.hx, as `-help` of QEMU 5.2 to 11.1 prints it) and
how one value is cut into `key=value` parts at single commas, a doubled comma standing for itself
(util/qemu-option.c). Refuses to know what any option means. Imports nothing beyond Python's own
start, for it also runs before the quickest of probes.
"""

__all__ = ["FLAGS", "Option", "joined", "keyed", "number_in", "options_of", "segments"]

FLAGS = frozenset(
    (
        "?", "S", "alt-grab", "async-teardown", "audio-help", "ctrl-grab", "curses", "daemonize",
        "enable-fips", "enable-kvm", "enable-sync-profile", "full-screen", "h", "help", "jitdump",
        "mem-prealloc", "no-acpi", "no-fd-bootchk", "no-hpet", "no-kvm", "no-quit", "no-reboot",
        "no-shutdown", "no-user-config", "nodefaults", "nographic", "old-param",
        "only-migratable", "perfmap", "portrait", "preconfig", "s", "sdl", "semihosting",
        "show-cursor", "singlestep", "snapshot", "usb", "version", "win2k-hack", "xen-attach",
        "xen-domid-restrict",
    )
)  # fmt: skip
"""Options without a value."""
_MOST_DIGITS = 9


class Option:
    """One option: `name` without dashes, `value` (None for a flag), `at` the index of its word.

    A word that is no option is a disk image; its `name` is empty and its `value` the word.
    """

    __slots__ = ("at", "name", "value")

    def __init__(self, name: str, value: "str | None", at: int) -> None:
        self.name = name
        self.value = value
        self.at = at


def options_of(words: "list[str] | tuple[str, ...]") -> "list[Option]":
    """Every option of a command line (the program's name left out), in order.

    The value of an option that should have one and has none is None: QEMU will say so.
    """
    found: list[Option] = []
    at = 0
    while at < len(words):
        word = words[at]
        if not word.startswith("-") or word == "-":
            found.append(Option("", word, at))
            at += 1
            continue
        name = word[2:] if word.startswith("--") else word[1:]
        if name in FLAGS:
            found.append(Option(name, None, at))
            at += 1
        else:
            found.append(Option(name, words[at + 1] if at + 1 < len(words) else None, at))
            at += 2
    return found


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


def number_in(text: str) -> "int | None":
    """The decimal number that `text` is, of a descriptor, a set or a count; None for any other."""
    fits = len(text) <= _MOST_DIGITS and text.isascii() and text.isdigit()
    return int(text) if fits else None


def joined(pairs: "list[tuple[str, str]]", implied: str = "") -> str:
    """The value of an option again; `implied`, when it comes first, is written without its key."""
    parts: list[str] = []
    for number, (key, value) in enumerate(pairs):
        doubled = value.replace(",", ",,")
        bare = number == 0 and key == implied and implied
        parts.append(doubled if bare else f"{key}={doubled}")
    return ",".join(parts)
