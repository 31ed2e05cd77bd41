"""QEMU's command line as options and values, word by word, nothing lost.

Knows which options take a value (qemu-options.hx, as `-help` of QEMU 5.2 to 11.1 prints it).
Refuses to know what any option means, and how a value is cut (`armferry.option_text`). Imports
nothing beyond Python's own start, for it also runs before the quickest of probes.
"""

__all__ = ["FLAGS", "Option", "number_in", "options_of"]

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


def number_in(text: str) -> "int | None":
    """The decimal number that `text` is, of a descriptor, a set or a count; None for any other."""
    fits = len(text) <= _MOST_DIGITS and text.isascii() and text.isdigit()
    return int(text) if fits else None
