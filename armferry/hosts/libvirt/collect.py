"""This host's report: what is stored of it, what it runs on, and the guests that libvirt runs.

Reads files of the kernel and of libvirt, asks no daemon. A guest whose QEMU was started to take a
migration in was born elsewhere, every other one here.
"""

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from armferry import __version__
from armferry.hosts.fingerprints.kvm.hardware import CORES, kinds_of_cores
from armferry.hosts.libvirt.domain import UnreadableDomain, read_domain
from armferry.hosts.libvirt.state_folder import stored
from armferry.hosts.report import (
    CAME,
    HERE,
    HostReport,
    ReportedGuest,
    ReportedKind,
    ReportHead,
)
from armferry.registers.midr import identify

__all__ = ["collect_report"]

_RUNNING = "run/libvirt/qemu"
_UNITS = {"b": 1, "bytes": 1, "KB": 10**3, "k": 1 << 10, "KiB": 1 << 10, "MB": 10**6, "M": 1 << 20}
_UNITS |= {"MiB": 1 << 20, "GB": 10**9, "G": 1 << 30, "GiB": 1 << 30, "T": 1 << 40, "TiB": 1 << 40}


def collect_report(
    state: Path, *, site: str = "", failure_domain: str = "", root: Path = Path("/")
) -> HostReport:
    """The report of the host whose files are below `root`; `state` is armferry's folder.

    Raises StateFault or FingerprintError where what is stored cannot be read.
    """
    about = os.uname()
    kept = stored(state)
    kinds = tuple(
        ReportedKind(
            one.kind.machine,
            one.kind.cpu,
            one.kind.accelerator,
            one.kind.emulator,
            one.fingerprint,
        )
        for one in kept
    )
    versions = {one.fingerprint.provenance.qemu for one in kept} - {""}
    return HostReport(
        ReportHead(about.nodename, time.time(), _text(root / "proc/sys/kernel/random/boot_id")),
        about.release,
        __version__,
        tuple(sorted(versions)),
        _cpu(root),
        _memory(root),
        site,
        failure_domain,
        kinds,
        tuple(_guests(root)),
    )


def _cpu(root: Path) -> str:
    kinds = kinds_of_cores(root / CORES.relative_to("/")) or {}
    return ", ".join(identify(midr).text for midr in kinds)


def _memory(root: Path) -> int:
    found = re.search(r"^MemTotal:\s*(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    return int(found[1]) << 10 if found else 0


def _text(path: Path) -> str:
    """What a file says, empty where it is not there."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8").strip()
    return ""


def _guests(root: Path) -> Iterator[ReportedGuest]:
    for path in sorted((root / _RUNNING).glob("*.xml")):
        xml = _text(path)
        try:
            domain = read_domain(xml)  # refuses entities, too
        except UnreadableDomain:
            continue
        if domain is None:
            continue
        status = ElementTree.fromstring(xml)  # noqa: S314 - libvirt's own file, without entities
        yield ReportedGuest(
            domain.uuid or domain.name,
            domain.name,
            domain.kind,
            _bytes(status),
            _birth(root, status.get("pid", "")),
        )


def _bytes(status: ElementTree.Element) -> int:
    memory = status.find(".//domain/memory")
    if memory is None or not (memory.text or "").strip().isdigit():
        return 0
    return int(memory.text or 0) * _UNITS.get(memory.get("unit", "KiB"), 1 << 10)


def _birth(root: Path, pid: str) -> str:
    """Where the guest of this process was born; `came` too where the process cannot be seen."""
    if not pid.isdigit():
        return CAME
    with contextlib.suppress(OSError):
        words = (root / "proc" / pid / "cmdline").read_bytes().split(b"\0")
        return CAME if not any(words) or b"-incoming" in words else HERE
    return CAME
