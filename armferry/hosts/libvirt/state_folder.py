"""What is kept on a host below /var/lib/armferry.

    host/index.json      this host's name and what each of its fingerprints was made of
    host/*.json          this host's fingerprints
    host/report.json     what it tells a fleet (`collect`)
    hosts/NAME/          the same folder of another host, copied here by the operator
    hook.json            what libvirt's hook looks up (`hook_table`)

Knows the layout and when a fingerprint is stale; refuses to know how one is made (`probe`).
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from armferry.errors import ArmferryError, EnvironmentFault
from armferry.hosts.files.atomic import write_whole
from armferry.hosts.files.descriptor import read_regular
from armferry.hosts.fingerprints.fingerprint import Fingerprint, dump, parse
from armferry.hosts.libvirt.domain import UnreadableDomain, read_domain
from armferry.hosts.program_identity import identity

__all__ = [
    "DOMAIN_FOLDERS",
    "REPORT",
    "DomainKinds",
    "GuestKind",
    "Known",
    "OtherHosts",
    "StateFault",
    "Stored",
    "host_folder",
    "kinds_of_domains",
    "kinds_of_hosts",
    "other_hosts",
    "remove_stored",
    "store",
    "stored",
    "write_json",
]

DOMAIN_FOLDERS = (Path("/etc/libvirt/qemu"), Path("/run/libvirt/qemu"))
"""Where libvirt keeps the XML of defined and of running domains."""

_INDEX = "index.json"
REPORT = "report.json"
"""The host's report, beside its fingerprints."""
_FORMAT, _VERSION = "armferry-host", 1
_MAX_INDEX = 16 << 20
"""Bytes of an index or of a fingerprint at most; those that armferry writes take 60 KiB."""


class StateFault(EnvironmentFault):
    """A file below the state folder that cannot be read or written."""


@dataclass(frozen=True, slots=True)
class GuestKind:
    """What decides which registers a guest has on a host.

    `machine` is the text after -machine (virt-10.0,gic-version=3), `cpu` that after -cpu,
    `accelerator` is `tcg` or `kvm`, `emulator` the QEMU's path.
    """

    machine: str
    cpu: str
    accelerator: str
    emulator: str

    def __str__(self) -> str:
        return f"{self.machine} {self.cpu} {self.accelerator}, {self.emulator}"

    @property
    def guest(self) -> str:
        """What must be equal on both hosts for a move, as `DomainFacts.kind` has it."""
        return f"{self.machine} {self.cpu} {self.accelerator}"


@dataclass(frozen=True, slots=True)
class Stored:
    """One stored fingerprint, and the kernel and the QEMU (size, time in ns) it was made of."""

    kind: GuestKind
    file: str
    kernel: str
    emulator_identity: tuple[int, int]
    fingerprint: Fingerprint

    @property
    def fresh(self) -> bool:
        """Whether kernel and QEMU are still those."""
        found = identity(self.kind.emulator)
        return self.kernel == os.uname().release and found == [*self.emulator_identity]


@dataclass(frozen=True, slots=True)
class DomainKinds:
    """The kinds of a host's domains, each once, and why the XML of a domain could not be read."""

    kinds: tuple[GuestKind, ...]
    unreadable: Mapping[Path, str]


@dataclass(frozen=True, slots=True)
class Known:
    """A kind of guest of another host, that host's fingerprint for it, and its file."""

    kind: GuestKind
    fingerprint: Fingerprint
    path: Path


@dataclass(frozen=True, slots=True)
class OtherHosts:
    """The fingerprints of other hosts by name, and why a file of theirs could not be read."""

    guests: Mapping[str, tuple[Known, ...]]
    unreadable: Mapping[Path, str]


def kinds_of_domains(folders: Iterable[Path] = DOMAIN_FOLDERS) -> DomainKinds:
    """The kinds of the aarch64 domains that libvirt has on this host.

    A domain whose XML does not determine its CPU is left out.
    """
    found: dict[GuestKind, None] = {}
    unreadable: dict[Path, str] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.xml")):
            try:
                domain = read_domain(path.read_text(encoding="utf-8"))
            except FileNotFoundError:
                continue  # the domain has just ended
            except (OSError, UnicodeDecodeError, UnreadableDomain) as error:
                # one that cannot be read is no reason to know nothing of the others
                unreadable[path] = getattr(error, "strerror", None) or str(error)
                continue
            if domain is not None and domain.cpu:
                kind = GuestKind(domain.machine, domain.cpu, domain.accelerator, domain.emulator)
                found[kind] = None
    return DomainKinds(tuple(found), unreadable)


def kinds_of_hosts(hosts: Mapping[str, Iterable[Known]], emulator: str) -> tuple[GuestKind, ...]:
    """The kinds of guests that other hosts have and could send here, for the QEMU `emulator`."""
    kinds = (one.kind for known in hosts.values() for one in known)
    return tuple(dict.fromkeys(replace(kind, emulator=emulator) for kind in kinds))


def stored(state: Path) -> tuple[Stored, ...]:
    """This host's fingerprints. Raises StateFault or FingerprintError."""
    folder = state / "host"
    return tuple(Stored(*row, _load(folder / row[1])) for row in _rows(folder))


def host_folder(folder: Path) -> tuple[str, tuple[tuple[GuestKind, str], ...]]:
    """The host whose own folder, or a copy of it, this is: its name, its kinds with their files.

    The name is empty in a folder of an armferry that did not write it. Raises StateFault.
    """
    rows = tuple((kind, Path(file).name) for kind, file, *_ in _rows(folder))
    name = (_index(folder) or {}).get("name")
    return name if isinstance(name, str) and name.isprintable() else "", rows


def _index(folder: Path) -> Any:
    """The JSON of the index in `folder`; None where there is none. Raises StateFault."""
    try:
        return json.loads(read_regular(folder / _INDEX, _MAX_INDEX))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise StateFault(f"{folder / _INDEX}: cannot be read: {error}") from error


def _rows(folder: Path) -> list[tuple[GuestKind, str, str, tuple[int, int]]]:
    """The kind, file, kernel and QEMU of each fingerprint in `folder`. Raises StateFault."""
    index = _index(folder)
    if index is None:
        return []
    try:
        if index["format"] != _FORMAT or index["version"] != _VERSION:
            raise ValueError(f"format {index['format']!r} version {index['version']!r}")
        return [
            (
                GuestKind(**row["kind"]),
                str(row["file"]),
                str(row["kernel"]),
                (int(row["emulator"][0]), int(row["emulator"][1])),
            )
            for row in index["fingerprints"]
        ]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise StateFault(
            f"{folder / _INDEX}: not an index of this armferry: {error!r}; remove {folder} and run "
            "armferry host fingerprint"
        ) from None


def store(
    state: Path, kind: GuestKind, fingerprint: Fingerprint, *, before: Iterable[Stored]
) -> tuple[Stored, ...]:
    """Keeps `fingerprint` as this host's for `kind`; all that is stored then. Raises StateFault."""
    found = identity(kind.emulator)
    if found is None:
        raise StateFault(f"{kind.emulator}: is not there any more")
    kept = [one for one in before if one.kind != kind]
    file = _file_name(kind, {one.file for one in kept})
    one = Stored(kind, file, os.uname().release, (found[0], found[1]), fingerprint)
    _write(state / "host" / file, dump(fingerprint))
    kept.append(one)
    _write_index(state, kept)
    return tuple(kept)


def remove_stored(state: Path, gone: Stored, *, before: Iterable[Stored]) -> tuple[Stored, ...]:
    """Forgets one fingerprint; all that is stored then. Raises StateFault."""
    kept = [one for one in before if one is not gone]
    _write_index(state, kept)
    (state / "host" / gone.file).unlink(missing_ok=True)
    return tuple(kept)


def other_hosts(state: Path) -> OtherHosts:
    """What is known of other hosts."""
    found: dict[str, tuple[Known, ...]] = {}
    unreadable: dict[Path, str] = {}
    for folder in sorted((state / "hosts").glob("*")):
        read: list[Known] = []
        try:
            kinds = {row[1]: row[0] for row in _rows(folder)}
        except ArmferryError as error:
            unreadable[folder / _INDEX] = str(error).removeprefix(f"{folder / _INDEX}: ")
            kinds = {}
        for path in sorted(folder.glob("*.json")):
            if path.name not in (_INDEX, REPORT):
                try:
                    fingerprint = _load(path)
                except ArmferryError as error:
                    unreadable[path] = str(error).removeprefix(f"{path}: ")
                    continue
                kind = kinds.get(path.name) or _kind_of(fingerprint)
                if kind.machine and kind.cpu:
                    read.append(Known(kind, fingerprint, path))
        found[folder.name] = tuple(read)
    return OtherHosts(found, unreadable)


def _kind_of(fingerprint: Fingerprint) -> GuestKind:
    """What a fingerprint of which no index tells was made for."""
    about = fingerprint.provenance
    return GuestKind(about.machine, about.cpu, fingerprint.accelerator.value, "")


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Writes a document in one step. Raises StateFault."""
    _write(path, json.dumps(document, indent=1) + "\n")


def _load(path: Path) -> Fingerprint:
    try:
        return parse(read_regular(path, _MAX_INDEX), str(path))
    except OSError as error:
        raise StateFault(f"{path}: cannot be read: {error.strerror}") from error


def _write_index(state: Path, rows: Iterable[Stored]) -> None:
    write_json(
        state / "host" / _INDEX,
        {
            "format": _FORMAT,
            "version": _VERSION,
            "name": os.uname().nodename,
            "fingerprints": [
                {
                    "kind": asdict(one.kind),
                    "file": one.file,
                    "kernel": one.kernel,
                    "emulator": list(one.emulator_identity),
                }
                for one in rows
            ],
        },
    )


def _file_name(kind: GuestKind, taken: set[str]) -> str:
    plain = "".join(
        letter if letter.isalnum() or letter in ".-" else "_"
        for letter in f"{kind.machine.partition(',')[0]}-{kind.cpu}-{kind.accelerator}"
    )
    name, number = f"{plain}.json", 2
    while name in taken or name in (_INDEX, REPORT):
        name, number = f"{plain}-{number}.json", number + 1
    return name


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    except OSError as error:
        raise StateFault(f"{path}: cannot be written: {error.strerror}") from error
