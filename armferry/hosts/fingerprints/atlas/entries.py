"""Entries of the atlas: a fingerprint each, by name, and how it was made.

An entry of a kernel is `RELEASE/CPU`, what its KVM gives a VM on that CPU model; one of a QEMU is
`qemu-VERSION/MACHINE/CPU`, what it gives a VM under TCG, and `qemu-VERSION/kvm/CPU`, what it saves
under KVM. There the kernel alone makes the list and QEMU alone the sections, so that
`RELEASE/CPU/qemu-VERSION` is the list of the one with the sections of the other. A beginning of
the release or version names the newest one that continues it: `6.12/neoverse-n1`. All of them are
in one compressed file beside this module: a line of JSON that names them, then a line for each, so
that a command reads the two it asks for. The lab records them (`armferry.lab.atlas_record`).
"""

import json
import lzma
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from armferry.errors import ArmferryError
from armferry.facts.release import newest_match, release_key
from armferry.hosts.fingerprints.fingerprint import Fingerprint, parse

__all__ = ["Atlas", "Entry", "UnknownEntry", "pack", "read_atlas"]

FORMAT = "armferry-atlas"
VERSION = 2
_FILE = "atlas.jsonl.xz"
_QEMU = "qemu-"
PREFIX = "atlas:"
"""What stands before an entry's name where it is one end of a move."""
_KVM = "kvm"


class UnknownEntry(ArmferryError):
    """The atlas has no entry of that name."""


class Entry:
    """One recorded fingerprint."""

    def __init__(self, name: str, line: str) -> None:
        """`line` is the entry's JSON object, read when it is first asked for."""
        self.name = name
        self._line = line

    @cached_property
    def _recorded(self) -> Mapping[str, Any]:
        read: Mapping[str, Any] = json.loads(self._line)
        return read

    @property
    def made(self) -> Mapping[str, str]:
        """From which package and with which command the fingerprint was made."""
        found: Mapping[str, str] = self._recorded["made"]
        return found

    @property
    def document(self) -> Mapping[str, Any]:
        """The fingerprint as a JSON object."""
        found: Mapping[str, Any] = self._recorded["fingerprint"]
        return found

    @property
    def release(self) -> str:
        """The kernel's release or the QEMU's version."""
        return self.name.partition("/")[0].removeprefix(_QEMU)

    @property
    def cpu(self) -> str:
        """The CPU model: the host's under KVM, the guest's under TCG."""
        return self.name.split("/")[2 if self.is_qemu else 1]

    @property
    def machine(self) -> str:
        """The machine type of a QEMU's entry under TCG, empty for the others."""
        return self.name.split("/")[1] if self.is_qemu and not self.under_kvm else ""

    @property
    def under_kvm(self) -> bool:
        """Whether the host's kernel made the list."""
        return not self.is_qemu or self.name.split("/")[1] == _KVM

    @property
    def is_qemu(self) -> bool:
        return self.name.startswith(_QEMU)

    @property
    def length(self) -> int:
        """How many registers the first vCPU has; much quicker than to read the fingerprint."""
        return len(self.document["cpus"][0]["registers"])

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """As if it had just been recorded, but for where it came from: `how` is `atlas`."""
        found = parse(json.dumps(self.document).encode(), f"{PREFIX}{self.name}")
        about = replace(found.provenance, how="atlas")
        if self.under_kvm:
            about = replace(about, cpu=f"host ({self.cpu})")
        return replace(found, provenance=about)


@dataclass(frozen=True, slots=True)
class Atlas:
    """Every entry: kernels first, then QEMUs, oldest release first."""

    entries: tuple[Entry, ...]

    @property
    def kernels(self) -> tuple[Entry, ...]:
        return tuple(entry for entry in self.entries if not entry.is_qemu)

    @property
    def emulated(self) -> tuple[Entry, ...]:
        """What each QEMU gives a VM under TCG, one entry for each release and CPU model.

        Which registers there are does not hang on the machine type; of several the newest is taken.
        """
        found = {
            (entry.release, entry.cpu): entry
            for entry in sorted(self.entries, key=lambda entry: release_key(entry.machine))
            if not entry.under_kvm
        }
        return tuple(sorted(found.values(), key=lambda entry: release_key(entry.release)))

    def find(self, text: str) -> Entry:
        """The entry that `text` names. Raises UnknownEntry, which says what there is instead."""
        first, *rest = text.removeprefix(PREFIX).split("/")
        if len(rest) == 2 and rest[1].startswith(_QEMU):
            kernel, qemu = self.find(f"{first}/{rest[0]}"), self.find(f"{rest[1]}/{_KVM}/{rest[0]}")
            return _with_sections(kernel, qemu)
        wanted_qemu = first.startswith(_QEMU)
        same = [entry for entry in self.entries if entry.is_qemu is wanted_qemu]
        fitting = {entry.release: entry for entry in same if entry.name.split("/")[1:] == rest}
        release = newest_match(first.removeprefix(_QEMU), fitting)
        if release is not None:
            return fitting[release]
        known = {entry.release for entry in same}
        if newest_match(first.removeprefix(_QEMU), known) is None:
            releases = ", ".join(sorted(known, key=release_key))
            what = "QEMUs" if wanted_qemu else "kernels"
            raise UnknownEntry(f"{_named(text)}: the atlas has no {first}; its {what}: {releases}")
        others = [
            "/".join(entry.name.split("/")[1:])
            for entry in same
            if newest_match(first.removeprefix(_QEMU), [entry.release])
        ]
        raise UnknownEntry(
            f"{_named(text)}: of {first} the atlas has {', '.join(dict.fromkeys(others))}: write"
            f" atlas:{first}/{others[0]}"
        )


def _named(text: str) -> str:
    return PREFIX + text.removeprefix(PREFIX)


def _with_sections(kernel: Entry, qemu: Entry) -> Entry:
    """The list of a kernel with the sections that a QEMU saves under KVM."""
    sections = qemu.document
    about = {**kernel.document["provenance"], "qemu": sections["provenance"]["qemu"]}
    united = {
        "made": {
            **kernel.made,
            **{f"sections {key}": value for key, value in qemu.made.items()},
        },
        "fingerprint": {
            **kernel.document,
            "provenance": about,
            "devices": sections["devices"],
            "features": sections["features"],
        },
    }
    return Entry(f"{kernel.name}/{_QEMU}{qemu.release}", json.dumps(united))


@cache
def read_atlas() -> Atlas:
    """The atlas that comes with armferry."""
    packed = Path(__file__).with_name(_FILE).read_bytes()
    first, *lines = lzma.decompress(packed).decode().splitlines()
    named = zip(json.loads(first)["entries"], lines, strict=True)
    return Atlas(tuple(Entry(name, line) for name, line in named))


def pack(folder: Path) -> bytes:
    """The atlas of every entry recorded in `folder`, compressed."""
    recorded = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]
    recorded.sort(key=lambda entry: _order(str(entry["name"])))
    names = [entry["name"] for entry in recorded]
    first = {"format": FORMAT, "version": VERSION, "entries": names}
    lines = [json.dumps(one, separators=(",", ":")) for one in (first, *recorded)]
    return lzma.compress("\n".join(lines).encode(), preset=9 | lzma.PRESET_EXTREME)


def _order(name: str) -> tuple[bool, tuple[int, ...], list[str]]:
    release, *rest = name.split("/")
    return release.startswith(_QEMU), release_key(release), rest


def of_cpu(entries: Iterable[Entry], cpu: str) -> list[Entry]:
    """The entries of one CPU model, in their order."""
    return [entry for entry in entries if entry.cpu == cpu]
