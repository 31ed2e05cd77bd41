"""Lines out of logs, explained: which register or block, what it means, what to type next.

Takes text, gives values; refuses to know files and terminals. A log is read line by line in
bounded memory: what is longer than a line can be is cut, what was explained once is only counted.
"""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from armferry.explain.presence import presence
from armferry.explain.table import KnownLine, known_lines
from armferry.registers import RegisterTextError, describe, explain_value, name, parse_register

__all__ = ["Explanation", "explain_line", "explain_log", "explain_text"]

LONGEST_LINE = 8192
"""Characters of one line that are looked at."""
MOST_KINDS = 200
"""Different lines of one log that are explained; a log has a handful."""

_BLOCK_HINTS = {
    "pvtime": "It holds stolen time under KVM (-cpu host,kvm-steal-time=on|off), and its size is "
    "that of the host's page.",
    "mach-virt.tag": "It holds memory tags: start the destination with the machine option mte=on.",
    "virt.secure-ram": "It is the secure world's memory: the machine option secure=on.",
    "mach-virt.ram": "It is the guest's memory: start the destination with the same -m.",
    "mach-virt.secure-ram": "It is the secure world's memory: the machine option secure=on.",
}
_ROM = "It is a device's ROM: give the destination the same file (romfile=, romsize=)."


@dataclass(frozen=True, slots=True)
class Explanation:
    """What one line means.

    `register` is the index that it is about, None where it names none; `history` says in which
    kernels and QEMUs that register is. `count` is how often the same was said in a log.
    """

    line: str
    name: str
    program: str
    means: str
    next: tuple[str, ...]
    register: int | None = None
    history: tuple[str, ...] = ()
    count: int = 1


def explain_line(line: str) -> Explanation | None:
    """What `line` means, None when no known line is in it."""
    text = _printable(line[:LONGEST_LINE]).strip()
    for known in known_lines():
        if match := known.pattern.search(text):
            return _explained(text, known, match.groupdict())
    return None


def explain_text(text: str) -> Explanation | None:
    """What a text means that a person typed: a line, a register in any spelling, a word of QEMU's.

    None when it is none of them.
    """
    if found := explain_line(text):
        return found
    if text.strip() == "cpreg_vmstate_array_len":
        return explain_line("Failed to load cpu:cpreg_vmstate_array_len")
    try:
        index = parse_register(text)
    except RegisterTextError:
        return None
    register = describe(index)
    return Explanation(
        line=_printable(text).strip(),
        name="register",
        program="",
        means=f"{register.name} ({index:#018x}), {register.kind}.",
        next=(f"armferry atlas why {register.name}",),
        register=index,
        history=presence(index),
    )


def explain_log(lines: Iterable[str]) -> Iterator[Explanation]:
    """Each different thing that a log says, in the order of its first line, with its count."""
    found: dict[tuple[str, str, int | None], Explanation] = {}
    for line in lines:
        explained = explain_line(line)
        if explained is None:
            continue
        key = (explained.name, explained.means, explained.register)
        if key in found:
            found[key] = replace(found[key], count=found[key].count + 1)
        elif len(found) < MOST_KINDS:
            found[key] = explained
    yield from found.values()


def _explained(line: str, known: KnownLine, groups: Mapping[str, str | None]) -> Explanation:
    words = {key: value or "" for key, value in groups.items()}
    index = _register(words.get("register", ""))
    words["name"] = words.get("register", "") if index is None else name(index)
    for group in ("value", "own"):
        if group in words:
            words[f"{group}_text"] = _value(index, words[group])
    for group in ("theirs", "ours"):
        if words.get(group, "").startswith("0x"):
            words[f"{group}_text"] = _size(int(words[group], 16))
    if "incoming" in words:
        words["excess"] = str(max(int(words["incoming"]) - int(words["own"]), 1))
    if "block" in words:
        words["block_hint"] = _block_hint(words["block"])
    quoted = {key: shlex.quote(value) for key, value in words.items()}
    return Explanation(
        line=line,
        name=known.name,
        program=str(known.program),
        means=_filled(known.means, words),
        next=tuple(_filled(command, quoted) for command in known.next),
        register=index,
        history=() if index is None else presence(index),
    )


def _filled(text: str, words: Mapping[str, str]) -> str:
    """The text with its `{groups}`; what a log brings is not read as a format itself."""
    return re.sub(r"\{(\w+)\}", lambda match: words.get(match[1], ""), text).strip()


def _printable(text: str) -> str:
    """What a log holds, without what a terminal would obey."""
    return "".join(one if one.isprintable() else " " for one in text)


def _register(text: str) -> int | None:
    try:
        return parse_register(text) if text else None
    except RegisterTextError:
        return None


def _value(index: int | None, digits: str) -> str:
    number = int(digits, 16)
    meaning = "" if index is None else explain_value(index, number)
    return f"{number:#x} ({meaning})" if meaning else f"{number:#x}"


def _size(count: int) -> str:
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count and not count & (1 << shift) - 1:
            return f"{count >> shift} {unit}"
    return f"{count} bytes"


def _block_hint(block: str) -> str:
    if block in _BLOCK_HINTS:
        return _BLOCK_HINTS[block]
    return _ROM if block.endswith((".rom", "/rom")) or "rom" in block else ""
