"""What a host tells of itself: an envelope around its fingerprints, as a value and as JSON.

Which kernel and QEMUs it runs, what it has, the kinds of guests it was fingerprinted for, and the
guests on it with the place of their birth. The document is versioned (docs/json.md); keys that a
newer armferry wrote are passed over. Refuses to know how any of it is found out (`libvirt.collect`)
and where it is kept.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from armferry.errors import ArmferryError
from armferry.hosts.fingerprints.fingerprint import (
    Fingerprint,
    FingerprintError,
    dump,
    read_object,
)

__all__ = [
    "CAME",
    "FORMAT",
    "HERE",
    "MAX_REPORT",
    "BadReport",
    "Birth",
    "HostReport",
    "ReportHead",
    "ReportedGuest",
    "ReportedKind",
    "dump_report",
    "read_head",
    "read_report",
]

FORMAT, VERSION = "armferry-report", 1
MAX_REPORT = 64 << 20
"""Bytes of a document; a kind of guest takes 60 KiB, a guest some hundred bytes."""
HERE, CAME = "here", "came"
"""Where a guest was born: on this host, or on another, which its host does not know."""
_MOST_KINDS, _MOST_GUESTS, _MOST_PINS, _MOST_QEMUS = 64, 10_000, 1000, 64
_LONGEST = 300
_LATEST = 1 << 40  # seconds; 36,000 years on

Birth = str
"""`here`, `came`, or the id of a class."""


class BadReport(ArmferryError):
    """A document that is no report, or one that this armferry cannot read."""


@dataclass(frozen=True, slots=True)
class ReportedKind:
    """A kind of guest, as `GuestKind` has it, and what the host would accept for it."""

    machine: str
    cpu: str
    accelerator: str
    emulator: str
    fingerprint: Fingerprint

    @property
    def guest(self) -> str:
        """What must be equal on both hosts for a move: machine, CPU, accelerator."""
        return f"{self.machine} {self.cpu} {self.accelerator}"


@dataclass(frozen=True, slots=True)
class ReportedGuest:
    """A running guest: `kind` as `ReportedKind.guest`, `memory` in bytes, `pins` the only hosts
    that it may run on, empty for all.
    """

    id: str
    name: str
    kind: str
    memory: int = 0
    birth: Birth = CAME
    pins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReportHead:
    """Who reports and when: `time` in seconds since 1970, `boot` names the host's last start."""

    host: str
    time: float
    boot: str = ""


@dataclass(frozen=True, slots=True)
class HostReport:
    """A whole report. `memory` is what the host has for guests, in bytes; `qemus` are versions."""

    head: ReportHead
    kernel: str
    armferry: str = ""
    qemus: tuple[str, ...] = ()
    cpu: str = ""
    memory: int = 0
    site: str = ""
    failure_domain: str = ""
    kinds: tuple[ReportedKind, ...] = ()
    guests: tuple[ReportedGuest, ...] = field(default=())


def dump_report(report: HostReport) -> str:
    """The JSON document."""
    head = report.head
    document = {
        "format": FORMAT,
        "version": VERSION,
        "host": head.host,
        "boot": head.boot,
        "time": head.time,
        "armferry": report.armferry,
        "kernel": report.kernel,
        "qemus": list(report.qemus),
        "cpu": report.cpu,
        "memory": report.memory,
        "site": report.site,
        "failure_domain": report.failure_domain,
        "kinds": [
            {
                "machine": kind.machine,
                "cpu": kind.cpu,
                "accelerator": kind.accelerator,
                "emulator": kind.emulator,
                "fingerprint": json.loads(dump(kind.fingerprint)),
            }
            for kind in report.kinds
        ],
        "guests": [
            {
                "id": guest.id,
                "name": guest.name,
                "kind": guest.kind,
                "memory": guest.memory,
                "birth": guest.birth,
                "pins": list(guest.pins),
            }
            for guest in report.guests
        ],
    }
    return json.dumps(document, indent=1) + "\n"


def read_head(document: object, where: str) -> ReportHead:
    """Who reports and when, without looking at the rest. Raises BadReport."""
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise BadReport(
            f'{where}: not a report: it does not say "format": "{FORMAT}"; make one on the host '
            "with armferry host report"
        )
    if document.get("version") != VERSION:
        raise BadReport(
            f"{where}: report version {str(document.get('version'))[:40]}; this armferry reads "
            f"version {VERSION}: use the newest armferry here"
        )
    try:
        time = document["time"]
        if isinstance(time, bool) or not isinstance(time, int | float):
            raise ValueError(f"time is {str(time)[:40]!r}, no number of seconds")
        if not (math.isfinite(time) and 0 <= time < _LATEST):
            raise ValueError(f"time is {str(time)[:40]}, no time")
        host = _text(document, "host")
        if not host:
            raise ValueError("host is empty")
        return ReportHead(host, float(time), _text(document, "boot", ""))
    except (KeyError, ValueError) as error:
        raise BadReport(f"{where}: malformed report: {_said(error)}") from None


def read_report(
    document: Mapping[str, Any],
    where: str,
    fingerprint: Callable[[object, str], Fingerprint] = read_object,
) -> HostReport:
    """The whole report; `fingerprint` reads one of its fingerprints. Raises BadReport."""
    head = read_head(document, where)
    try:
        kinds = tuple(
            _kind(row, f"{where}: kind {number}", fingerprint)
            for number, row in enumerate(_rows(document, "kinds", _MOST_KINDS))
        )
        guests = tuple(_guest(row) for row in _rows(document, "guests", _MOST_GUESTS))
        report = HostReport(
            head,
            _text(document, "kernel"),
            _text(document, "armferry", ""),
            tuple(_word(one, "qemus") for one in _rows(document, "qemus", _MOST_QEMUS)),
            _text(document, "cpu", ""),
            _bytes(document, "memory"),
            _text(document, "site", ""),
            _text(document, "failure_domain", ""),
            kinds,
            guests,
        )
        if len({guest.id for guest in guests}) != len(guests):
            raise ValueError("a guest comes twice")
    except FingerprintError as error:
        raise BadReport(str(error)) from None
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise BadReport(f"{where}: malformed report: {_said(error)}") from None
    return report


def _kind(
    row: Mapping[str, Any], where: str, fingerprint: Callable[[object, str], Fingerprint]
) -> ReportedKind:
    return ReportedKind(
        _text(row, "machine"),
        _text(row, "cpu"),
        _text(row, "accelerator"),
        _text(row, "emulator", ""),
        fingerprint(row["fingerprint"], where),
    )


def _guest(row: Mapping[str, Any]) -> ReportedGuest:
    found = ReportedGuest(
        _text(row, "id"),
        _text(row, "name", ""),
        _text(row, "kind"),
        _bytes(row, "memory"),
        _text(row, "birth", CAME) or CAME,
        tuple(_word(one, "pins") for one in _rows(row, "pins", _MOST_PINS)),
    )
    if not found.id:
        raise ValueError("a guest without id")
    return found


def _rows(document: Mapping[str, Any], key: str, most: int) -> list[Any]:
    rows = document.get(key, [])
    if not isinstance(rows, list):
        raise ValueError(f"{key} is no list")
    if len(rows) > most:
        raise ValueError(f"{len(rows)} {key}, more than {most}")
    return rows


def _text(document: Mapping[str, Any], key: str, default: str | None = None) -> str:
    return _word(document[key] if default is None else document.get(key, default), key)


def _word(value: object, key: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{key} is {str(value)[:40]!r}, no text")
    if len(value) > _LONGEST or "\0" in value or not value.isprintable():
        raise ValueError(f"{key} is no name: {value[:40]!r}")
    return value


def _bytes(document: Mapping[str, Any], key: str) -> int:
    value = document.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 50:
        raise ValueError(f"{key} is {str(value)[:40]!r}, no number of bytes")
    return value


def _said(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)
