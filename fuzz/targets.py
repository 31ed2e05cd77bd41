"""The targets: each a function of bytes, with what must hold whatever the bytes are.

A target ends, or raises AssertionError or an exception that is none of armferry's named errors:
that is a finding. Inputs are whole files or streams; what else a target needs (where to cut) comes
from the bytes too, so that a finding is one file.
"""

import bz2
import gzip
import json
import lzma
import struct
from collections.abc import Callable
from dataclasses import dataclass

from armferry.hosts.files.journal import Journal, encoded
from armferry.hosts.files.patch import Patch
from armferry.hosts.fingerprints.fingerprint import dump, parse
from armferry.hosts.fingerprints.from_stream import fingerprint_of_stream
from armferry.hosts.report import (
    HostReport,
    ReportedGuest,
    ReportedKind,
    ReportHead,
    dump_report,
)
from armferry.stream import SavedCollector, StreamParser
from armferry.stream.events import DeviceStateBegins
from fuzz.corpus import IMAGE_KINDS, NAMES, recorded, small, small_image
from fuzz.file_targets import disk_image, journal, mapped, packed, save_image
from fuzz.regressions import REGRESSIONS
from fuzz.stream_targets import (
    description,
    device_state,
    edit,
    events_of,
    identity,
    parser,
    readers,
    return_path,
    session,
)
from fuzz.text_targets import (
    command_line,
    document,
    domain,
    explanation,
    fingerprint,
    monitor,
    policy,
    report,
    words,
)

__all__ = ["TARGETS", "Target"]


@dataclass(frozen=True, slots=True)
class Target:
    """`run` one input; `seeds` to begin with; `memory` in bytes that any input may take."""

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    memory: int = 4 << 20


def _streams() -> list[bytes]:
    return [small(name) for name in NAMES] + REGRESSIONS["stream"]


def _states() -> list[bytes]:
    found = []
    for name in NAMES:
        events, _ = events_of([small(name)])
        found += [small(name)[e.offset :] for e in events if isinstance(e, DeviceStateBegins)]
    return found + REGRESSIONS["state"]


def _descriptions() -> list[bytes]:
    return [data[data.rindex(b"\0\x06") + 6 :] for data in _streams()[:4]] + REGRESSIONS["json"]


def _mapped_files() -> list[bytes]:
    return [small("ignore-shared").replace(b"\x0fx-ignore-shared", b"\x0amapped-ram"), *_streams()]


def _images() -> list[bytes]:
    return [small_image(kind) for kind in IMAGE_KINDS] + REGRESSIONS["qcow2"]


def _fingerprints() -> list[bytes]:
    collector, parser = SavedCollector(), StreamParser()
    stream = recorded(NAMES[2])
    collector.take(parser.feed(stream))
    collector.take(parser.close())
    text = dump(fingerprint_of_stream(collector.saved(len(stream))))
    document = json.loads(text)
    slim = {k: v[:1] if isinstance(v, list) else v for k, v in document.items()}
    return [text.encode(), json.dumps(slim).encode(), *REGRESSIONS["fingerprint"]]


def _reports() -> list[bytes]:
    found = parse(_fingerprints()[1], "seed")
    kinds = (ReportedKind("virt-10.0", "host", "kvm", "/usr/bin/qemu-system-aarch64", found),)
    guest = ReportedGuest("1", "one", "virt-10.0 host kvm", 4 << 30, "here")
    head = ReportHead("host", 1_790_000_000, "boot")
    one = HostReport(head, "6.12.1", "0.1", ("10.0.2",), "", kinds=kinds, guests=(guest,))
    text = dump_report(one).encode()
    return [text, text + b"\n" + text.replace(b'"host"', b'"other"')]


def _packed() -> list[bytes]:
    plain = small(NAMES[1])
    coded = [gzip.compress(plain), bz2.compress(plain), lzma.compress(plain), plain]
    xml = b"<domain/>\0"
    heads = [
        b"LibvirtQemudSave" + struct.pack("<19I", 2, len(xml), 1, number, 0, *[0] * 14) + xml
        for number in (1, 2, 3, 0)
    ]
    return [*coded, *(head + body for head, body in zip(heads, coded, strict=True))]


def _journals() -> list[bytes]:
    first = (Patch(0, b"old", b"new"), Patch(9, b"", b"x"))
    patches = Journal((first, (Patch(3, b"a", b"b"),)), 9, 10)
    return [encoded(patches), *REGRESSIONS["journal"]]


TARGETS = {
    "parser": Target(parser, _streams),
    "device-state": Target(device_state, _states),
    "readers": Target(readers, _streams),
    "identity": Target(identity, _streams),
    "edit": Target(edit, _streams),
    "session": Target(session, _streams),
    "description": Target(description, _descriptions),
    "save-image": Target(save_image, lambda: REGRESSIONS["image"]),
    "disk-image": Target(disk_image, _images),
    "packed": Target(packed, _packed, memory=(128 << 20) + (4 << 20)),  # what xz may take
    "journal": Target(journal, _journals),
    "mapped-ram": Target(mapped, _mapped_files),
    "return-path": Target(return_path, lambda: REGRESSIONS["answers"]),
    "policy": Target(policy, lambda: REGRESSIONS["policy"]),
    "fingerprint": Target(fingerprint, _fingerprints),
    "document": Target(document, lambda: [*_fingerprints(), *REGRESSIONS["document"]]),
    "report": Target(report, _reports),
    "words": Target(words, lambda: REGRESSIONS["words"]),
    "command-line": Target(command_line, lambda: REGRESSIONS["command line"]),
    "explanation": Target(explanation, lambda: REGRESSIONS["log"]),
    "domain": Target(domain, lambda: REGRESSIONS["domain"]),
    "monitor": Target(monitor, lambda: REGRESSIONS["monitor"]),
}
