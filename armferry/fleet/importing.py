"""Reports read from where rsync, git or Ansible laid them: folders, files, standard input.

In a folder, at any depth: documents of `armferry host report`, and folders that hold what
`armferry host fingerprint` keeps on a host (`index.json` and its fingerprints), which tell of no
guests. What cannot be read is named, and the rest taken in.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from armferry.errors import ArmferryError
from armferry.facts import qemu_release
from armferry.hosts.files.descriptor import read_regular
from armferry.hosts.fingerprints.fingerprint import Fingerprint, read_object
from armferry.hosts.libvirt.state_folder import REPORT, host_folder
from armferry.hosts.report import (
    FORMAT,
    MAX_REPORT,
    BadReport,
    HostReport,
    ReportedKind,
    ReportHead,
    read_head,
    read_report,
)

__all__ = ["Reader"]

_INDEX = "index.json"
_DEEPEST = 8


@dataclass
class Reader:
    """Reads reports; `times` are those of the hosts that are known, whose older reports are not
    looked into. `refused` says why a document was not taken, by its name, `passed` counts reports
    that are no news.
    """

    times: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    passed: list[str] = field(default_factory=list)
    _fingerprints: dict[bytes, Fingerprint] = field(default_factory=dict)

    def folder(self, top: Path) -> Iterator[HostReport]:
        """Every report below `top`. Raises ArmferryError where it is no folder."""
        if not top.exists():
            raise ArmferryError(f"{top}: no such file or folder")
        if top.is_file():
            yield from self._file(top)
            return
        for place, folders, files in os.walk(top):
            folders.sort()
            if len(Path(place).relative_to(top).parts) >= _DEEPEST:
                folders.clear()
            if _INDEX in files and REPORT not in files:
                here = Path(place)
                yield from self._named(str(here / _INDEX), partial(self._state, here))
                continue
            # beside an index only the report is one: the others are its fingerprints
            for name in [REPORT] if _INDEX in files else sorted(files):
                if name.endswith(".json"):
                    yield from self._file(Path(place) / name)

    def stream(self, data: bytes, where: str) -> Iterator[HostReport]:
        """The reports in `data`: one JSON document, or one in each line."""
        lines = data.splitlines() if data.count(b'"' + FORMAT.encode() + b'"') > 1 else [data]
        for number, line in enumerate(lines, 1):
            if line.strip():
                name = where if len(lines) == 1 else f"{where}: line {number}"
                yield from self._named(name, partial(self._document, line, name))

    def _file(self, path: Path) -> Iterator[HostReport]:
        yield from self._named(str(path), partial(self._read, path))

    def _read(self, path: Path) -> HostReport | None:
        return self._document(read_regular(path, MAX_REPORT), str(path))

    def _named(self, name: str, read: Callable[[], HostReport | None]) -> Iterator[HostReport]:
        try:
            found = read()
        except (ArmferryError, OSError) as error:
            said = getattr(error, "strerror", None) or str(error)
            self.refused[name] = said.removeprefix(f"{name}: ")
            return
        if found is not None:
            yield found

    def _document(self, data: bytes, where: str) -> HostReport | None:
        if len(data) > MAX_REPORT:
            raise BadReport(f"{where}: not a report: it is longer than {MAX_REPORT} bytes")
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise BadReport(f"{where}: not a report: it is not JSON ({error})") from None
        head = read_head(document, where)
        if head.time <= self.times.get(head.host, -1):
            self.passed.append(head.host)
            return None
        return self._sound(read_report(document, where, self._fingerprint), where)

    def _state(self, folder: Path) -> HostReport | None:
        """The folder that a host keeps of itself, as a report without guests."""
        name, rows = host_folder(folder)
        where = str(folder / _INDEX)
        time = (folder / _INDEX).stat().st_mtime
        head = ReportHead(name or folder.name, time)
        if time <= self.times.get(head.host, -1):
            self.passed.append(head.host)
            return None
        kinds = []
        for kind, file in rows:
            path = folder / file
            try:
                document = json.loads(read_regular(path, MAX_REPORT))
            except (ValueError, RecursionError) as error:
                raise BadReport(f"{where}: {file} is not JSON ({error})") from None
            found = self._fingerprint(document, str(path))
            kinds.append(
                ReportedKind(kind.machine, kind.cpu, kind.accelerator, kind.emulator, found)
            )
        abouts = [one.fingerprint.provenance for one in kinds]
        return self._sound(
            HostReport(
                head,
                next((about.kernel for about in abouts if about.kernel), ""),
                "",
                tuple(sorted({about.qemu for about in abouts if about.qemu})),
                next((about.hardware for about in abouts if about.hardware), ""),
                kinds=tuple(kinds),
            ),
            where,
        )

    def _sound(self, report: HostReport, where: str) -> HostReport:
        """The report, once nothing in it would stop the others. Raises BadReport."""
        for kind in report.kinds:
            try:
                qemu_release(kind.fingerprint.provenance.qemu or "10.0")
            except ArmferryError as error:
                raise BadReport(f"{where}: {error}") from None
        return report

    def _fingerprint(self, document: object, where: str) -> Fingerprint:
        """One object for all fingerprints that say the same."""
        digest = hashlib.sha256(json.dumps(document).encode()).digest()
        found = self._fingerprints.get(digest)
        if found is None:
            found = self._fingerprints[digest] = read_object(document, where)
        return found
