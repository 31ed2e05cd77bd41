"""Policy documents: the TOML form that compat levels, site files and `--policy` files share.

    level = "virt-10.1"             # who it is for: this version and older; left out: everyone
    kvm-psci-version = "1.1"
    present-as = "atlas:5.10/neoverse-n1"   # guests under KVM are born as on that host
    accept-risk = ["MIDR_EL1", "guest-visible"]

    [[entry]]
    register = "0x603000000013c103" # an index or a name, or several: ["PIR_EL1", "PIRE0_EL1"];
                                    # or  kind = "identification"
    action = "safe-missing"         # or "hidden", or a tolerance's rule
    accelerator = "kvm"             # or "tcg"; left out: any
    reset = ["0x0"]                 # values it is known to hold after reset
    reason = "why, in a sentence"   # also: source, risk, kernel; prose

    [machine."virt-rhel9.4.0"]      # this machine type only
    like = "virt-8.2"               # whose levels, and whose section here, it takes as well
    [[machine."virt-rhel9.4.0".entry]]

An entry with `reset` alone states values and permits nothing. What this module refuses to know:
which machine type is older than which (`levels`) and how documents are united (`aggregate`).
Files are read only by `read_file` and `read_site`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from armferry.facts import is_device_subsection
from armferry.policy.errors import DocumentError, PropertyError, RuleError
from armferry.policy.properties import parse_psci_version
from armferry.policy.rules import (
    EMPTY,
    NO_RISK,
    AcceptedRisk,
    Origin,
    OriginKind,
    Policy,
    PsciVersion,
    Selector,
    Tolerance,
    TolerancePlaced,
)
from armferry.policy.tolerance import parse_number, parse_rule, parse_selector
from armferry.registers import Accelerator, Kind

__all__ = [
    "HIDDEN",
    "SAFE_MISSING",
    "SITE_FOLDER",
    "Document",
    "Entry",
    "MachineSection",
    "parse_accepted",
    "parse_document",
    "read_file",
    "read_site",
]

HIDDEN = "hidden"
SAFE_MISSING = "safe-missing"
_SUBSECTION = "cpu/"
"""How the name of every part of the cpu section begins."""
SITE_FOLDER = Path("/etc/armferry")

_MAX_BYTES = 1 << 20
_TOP = ("level", "kvm-psci-version", "present-as", "accept-risk", "entry", "machine")
_SECTION = ("like", "kvm-psci-version", "present-as", "accept-risk", "entry")
_ENTRY = (
    "register",
    "kind",
    "action",
    "accelerator",
    "reset",
    "reason",
    "source",
    "risk",
    "kernel",
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: which registers, what is permitted, and why.

    `action` is `HIDDEN`, `SAFE_MISSING`, a tolerance, or None for an entry that only states reset
    values. `accelerator` is None for any.
    """

    select: Selector
    action: str | Tolerance | None
    accelerator: Accelerator | None = None
    reset: frozenset[int] = frozenset()
    reason: str = ""
    source: str = ""
    risk: str = ""
    kernel: str = ""

    def policy(self, source: OriginKind, where: str) -> Policy:
        """This entry alone, as coming from `where`."""
        origins = (Origin(source, where, self.reason),)
        listed: dict[int, tuple[Origin, ...]] = {}
        resets: dict[int, frozenset[int]] = {}
        if not isinstance(self.select, Kind):
            listed = {self.select: origins}
            resets = {self.select: self.reset}
        if self.action == HIDDEN:
            return Policy(hidden=listed, resets=resets)
        if self.action == SAFE_MISSING:
            return Policy(safe_missing=listed, resets=resets)
        if self.action is None or isinstance(self.action, str):
            return Policy(resets=resets)
        return Policy(tolerances=(TolerancePlaced(self.action, origins),), resets=resets)


@dataclass(frozen=True, slots=True)
class MachineSection:
    """What a document says to one group of machine types: its top level, or one `[machine]`."""

    entries: tuple[Entry, ...] = ()
    psci: PsciVersion | None = None
    accepted: AcceptedRisk = NO_RISK
    like: str | None = None
    present_as: str | None = None

    def policy(self, accelerator: Accelerator | None, source: OriginKind, where: str) -> Policy:
        """Everything in it that applies under this accelerator."""
        pinned = {} if self.psci is None else {self.psci: (Origin(source, where),)}
        policy = Policy(psci=pinned, accepted=self.accepted)
        for entry in self.entries:
            if entry.accelerator in (None, accelerator):
                policy = policy.union(entry.policy(source, where))
        return policy


@dataclass(frozen=True, slots=True)
class Document:
    """One document: what it says to everyone at or below its level, and to single machine types.

    `name` is the file, as messages and origins quote it. `level` is None for every machine type.
    """

    name: str
    source: OriginKind
    level: str | None = None
    everyone: MachineSection = MachineSection()
    machines: Mapping[str, MachineSection] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """How origins name the part of the document that is for everyone."""
        level = self.level or "defaults"
        if self.source is OriginKind.BUILTIN:
            return f"compat level {level}"
        return f"{self.name}: level {level}" if self.level else self.name

    def general(self, accelerator: Accelerator | None) -> Policy:
        """The part for everyone, whatever the machine type; the caller looks at `level`."""
        return self.everyone.policy(accelerator, self.source, self.where)

    def single(self, machine: str, accelerator: Accelerator | None) -> Policy:
        """The part for exactly this machine type."""
        section = self.machines.get(machine)
        if section is None:
            return EMPTY
        return section.policy(accelerator, self.source, f"{self.name}: machine {machine}")


def parse_document(text: str, name: str, source: OriginKind = OriginKind.FILE) -> Document:
    """Read a document; raises DocumentError, its message beginning with `name` and the key."""
    try:
        top = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # beyond TOMLDecodeError: a number of thousands of digits, brackets thousands deep
        raise DocumentError(f"{name}: not TOML: {error}") from error
    _known(top, _TOP, name)
    machines = _table(top.get("machine", {}), f"{name}: machine")
    sections: dict[str, MachineSection] = {}
    for machine, section in machines.items():
        where = f'{name}: machine."{machine}"'
        _known(_table(section, where), _SECTION, where)
        sections[machine] = _section(_table(section, where), where)
    return Document(name, source, _text(top, "level", name), _section(top, name), sections)


def read_file(path: Path, source: OriginKind = OriginKind.FILE) -> Document:
    """Read one file; raises DocumentError also when it cannot be opened or is not text."""
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise DocumentError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > _MAX_BYTES:
        raise DocumentError(f"{path}: no policy is longer than {_MAX_BYTES} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DocumentError(f"{path}: not TOML: byte {error.start} is not UTF-8 text") from error
    return parse_document(text, str(path), source)


def read_site(folder: Path = SITE_FOLDER) -> tuple[Document, ...]:
    """The site's documents, `*.toml` of one folder, by name; none when there is no such folder."""
    if not folder.is_dir():
        return ()
    return tuple(read_file(path, OriginKind.SITE) for path in sorted(folder.glob("*.toml")))


def parse_accepted(texts: Iterable[str], where: str = "--accept-risk") -> AcceptedRisk:
    """Registers, subsections, guest-visible, lossy, breaks; RuleError for anything else."""
    registers: set[int] = set()
    subsections: set[str] = set()
    sorts = {"guest-visible": False, "lossy": False, "breaks": False}
    for text in texts:
        if text.strip() in sorts:
            sorts[text.strip()] = True
        elif text.strip().startswith(_SUBSECTION) or is_device_subsection(text.strip()):
            subsections.add(text.strip())
        else:
            select = parse_selector(text, f"{where}: neither guest-visible, lossy nor breaks")
            if isinstance(select, Kind):
                raise RuleError(
                    f"{where}: {select.value!r} is a kind of register; accepted is one register, "
                    "guest-visible, lossy or breaks"
                )
            registers.add(select)
    visible, lossy, breaks = sorts.values()
    return AcceptedRisk(frozenset(registers), visible, lossy, frozenset(subsections), breaks)


def _section(table: Mapping[str, object], where: str) -> MachineSection:
    entries = table.get("entry", [])
    if not isinstance(entries, list):
        raise DocumentError(f"{where}: entry: must be an array of tables, written [[entry]]")
    pinned = _text(table, "kvm-psci-version", where)
    accepted = _texts(table, "accept-risk", where)
    try:
        psci = None if pinned is None else parse_psci_version(pinned, f"{where}: kvm-psci-version")
        risk = parse_accepted(accepted, f"{where}: accept-risk")
    except (PropertyError, RuleError) as error:
        raise DocumentError(str(error)) from error
    return MachineSection(
        entries=tuple(
            _entry(one, f"{where}: entry {number}")
            for number, entry in enumerate(entries, 1)
            for one in _each_register(_table(entry, f"{where}: entry {number}"))
        ),
        psci=psci,
        accepted=risk,
        like=_text(table, "like", where),
        present_as=_text(table, "present-as", where),
    )


def _each_register(table: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    """An entry that lists registers as one for each of them."""
    registers = table.get("register")
    if not isinstance(registers, list) or not registers:
        yield table
        return
    for register in registers:
        yield {**table, "register": register}


def _entry(table: Mapping[str, object], where: str) -> Entry:
    _known(table, _ENTRY, where)
    try:
        select = _selector(table, where)
        values = _texts(table, "reset", where)
        reset = frozenset(parse_number(value, f"{where}: reset") for value in values)
        action = _action(select, _text(table, "action", where), f"{where}: action")
    except RuleError as error:
        raise DocumentError(str(error)) from error
    if isinstance(select, Kind) and reset:
        raise DocumentError(f"{where}: reset: values belong to one register, not to a kind")
    if action is None and not reset:
        raise DocumentError(
            f"{where}: action: missing; accepted: hidden, safe-missing, or a tolerance such as "
            "only-source-if-reset"
        )
    return Entry(
        select=select,
        action=action,
        accelerator=_accelerator(table, where),
        reset=reset,
        reason=_text(table, "reason", where) or "",
        source=_text(table, "source", where) or "",
        risk=_text(table, "risk", where) or "",
        kernel=_text(table, "kernel", where) or "",
    )


def _accelerator(table: Mapping[str, object], where: str) -> Accelerator | None:
    text = _text(table, "accelerator", where)
    if text in (None, "any"):
        return None
    try:
        return Accelerator(text)
    except ValueError:
        raise DocumentError(
            f"{where}: accelerator: {text!r} is not known; accepted: any, kvm, tcg"
        ) from None


def _selector(table: Mapping[str, object], where: str) -> Selector:
    if ("register" in table) == ("kind" in table):
        raise DocumentError(f"{where}: needs either a register or a kind of register")
    if "kind" in table:
        text = _text(table, "kind", where) or ""
        try:
            return Kind(text)
        except ValueError:
            kinds = ", ".join(kind.value for kind in Kind)
            raise DocumentError(
                f"{where}: kind: {text!r} is no kind of register; accepted: {kinds}"
            ) from None
    register = table["register"]
    text = str(register) if type(register) is int else _text(table, "register", where) or ""
    select = parse_selector(text, f"{where}: register")
    if isinstance(select, Kind):
        raise DocumentError(f"{where}: register: {text!r} is a kind of register; write kind = ")
    return select


def _action(select: Selector, text: str | None, where: str) -> str | Tolerance | None:
    if text not in (HIDDEN, SAFE_MISSING, None):
        return parse_rule(select, text or "", where)
    if text and isinstance(select, Kind):
        raise DocumentError(
            f"{where}: {text} is for one register, not for a kind; accepted is a tolerance"
        )
    return text


def _known(table: Mapping[str, object], keys: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in keys:
            import difflib  # only a failing command pays for it

            near = difflib.get_close_matches(key, keys, 1)
            hint = f", did you mean {near[0]!r}?" if near else "."
            raise DocumentError(f"{where}: unknown key {key!r}{hint} Accepted: {', '.join(keys)}")


def _table(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise DocumentError(f"{where}: must be a table, not {value!r}")
    return value


def _text(table: Mapping[str, object], key: str, where: str) -> str | None:
    value = table.get(key)
    if value is None or isinstance(value, str):
        return value
    raise DocumentError(f"{where}: {key}: must be text in quotes, not {value!r}")


def _texts(table: Mapping[str, object], key: str, where: str) -> list[str]:
    """A list of texts; numbers are as welcome, since TOML's own reach 63 bits."""
    values = table.get(key, [])
    if not isinstance(values, list):
        raise DocumentError(f"{where}: {key}: must be a list, not {values!r}")
    for value in values:
        if not isinstance(value, str) and type(value) is not int:
            raise DocumentError(f"{where}: {key}: must hold texts or numbers, not {value!r}")
    return [str(value) for value in values]
