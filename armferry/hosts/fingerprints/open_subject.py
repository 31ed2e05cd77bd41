"""Anything with a register list, named on a command line.

A stream, a save image, a fingerprint or somebody else's register list, in a file or on standard
input (`-`); this host's own KVM
(`kvm:`, or `kvm:nested` for vCPUs with EL2); an entry of the atlas (`atlas:6.12/neoverse-n1`).
Looks at the first bytes of a file, never at its name; one that is called like a host is `./kvm:`.
"""

import os
import sys

from armferry.hosts.files.descriptor import UnreadableFile
from armferry.hosts.fingerprints.atlas import read_atlas
from armferry.hosts.fingerprints.documents import document_start, read_document
from armferry.hosts.fingerprints.fingerprint import MAX_DOCUMENT
from armferry.hosts.fingerprints.subject import Subject

__all__ = [
    "OWN_KVM",
    "OWN_NESTED_KVM",
    "STANDARD_INPUT",
    "open_subject",
    "standard_input",
]

STANDARD_INPUT = "-"
OWN_KVM = "kvm:"
OWN_NESTED_KVM = "kvm:nested"
ATLAS = "atlas:"
_CHUNK = 1 << 20
_START = 64  # enough to tell a document from a stream


def open_subject(text: str) -> Subject:
    """What `text` names.

    Raises UnreadableFile, InterruptedRewrite, BadStream, CompressionFault, MissingProgram,
    FingerprintError, KvmFault, UnknownEntry or ImageInUse.
    """
    if text == STANDARD_INPUT:
        return _standard_input()
    if text in (OWN_KVM, OWN_NESTED_KVM):
        from armferry.hosts.fingerprints.from_kvm import fingerprint_of_kvm
        from armferry.hosts.fingerprints.kvm import ask

        host = ask(nested=text == OWN_NESTED_KVM)
        return Subject(text, fingerprint_of_kvm(host), None)
    if text.startswith(ATLAS):
        return Subject(text, read_atlas().find(text.removeprefix(ATLAS)).fingerprint, None)
    from armferry.hosts.files.locked import FileWindow
    from armferry.hosts.files.state_name import named_state

    path, snapshot = named_state(text)
    with FileWindow(path) as window:
        if not document_start(window.read(0, _START)):
            from armferry.hosts.fingerprints.saved_subject import state_in, stream_subject

            return stream_subject(text, state_in(window, snapshot))
        return _document(window.read(0, MAX_DOCUMENT + 1), text)


def standard_input() -> int:
    """The descriptor of standard input. Raises UnreadableFile when there is none."""
    if sys.stdin is None:
        raise UnreadableFile("standard input is closed; give the name of a file instead of -")
    return sys.stdin.fileno()


def _standard_input() -> Subject:
    source = standard_input()
    data = _read(source)
    if document_start(data[:_START]):
        while len(data) <= MAX_DOCUMENT and (more := _read(source)):
            data += more
        return _document(data, STANDARD_INPUT)
    from armferry.hosts.files.saved_file import saved_from
    from armferry.hosts.fingerprints.naming import naming
    from armferry.hosts.fingerprints.saved_subject import stream_subject

    with naming(STANDARD_INPUT):
        saved = saved_from(source, data)
    return stream_subject(STANDARD_INPUT, saved)


def _document(data: bytes, text: str) -> Subject:
    return Subject(text, read_document(data, text), None)


def _read(source: int) -> bytes:
    try:
        return os.read(source, _CHUNK)
    except OSError as error:
        raise UnreadableFile(f"standard input cannot be read: {error.strerror}") from error
