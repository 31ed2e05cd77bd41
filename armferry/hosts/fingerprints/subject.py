"""Anything with a register list, named on a command line.

A stream, a save image, a fingerprint or somebody else's register list, in a file or on standard
input (`-`); this host's own KVM
(`kvm:`, or `kvm:nested` for vCPUs with EL2); an entry of the atlas (`atlas:6.12/neoverse-n1`).
Looks at the first bytes of a file, never at its name; one that is called like a host is `./kvm:`.
"""

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from armferry.ends import UNKNOWN, End, guest_end
from armferry.errors import ArmferryError
from armferry.hosts.files.descriptor import UnreadableFile
from armferry.hosts.files.locked import FileWindow
from armferry.hosts.files.qcow2.image import NoSuchSnapshot
from armferry.hosts.files.saved_file import Saved, named_state, saved_from, saved_in
from armferry.hosts.fingerprints.as_end import end_of
from armferry.hosts.fingerprints.atlas import read_atlas
from armferry.hosts.fingerprints.documents import document_start, read_document
from armferry.hosts.fingerprints.fingerprint import MAX_DOCUMENT, Fingerprint
from armferry.hosts.fingerprints.from_kvm import fingerprint_of_kvm
from armferry.hosts.fingerprints.from_stream import fingerprint_of_stream
from armferry.hosts.fingerprints.kvm import ask
from armferry.registers import Accelerator
from armferry.stream import SavedState, StreamError
from armferry.stream.save_image import SaveImage

__all__ = [
    "OWN_KVM",
    "OWN_NESTED_KVM",
    "STANDARD_INPUT",
    "BadStream",
    "Subject",
    "naming",
    "open_subject",
    "read_state",
    "standard_input",
    "state_in",
    "stream_subject",
]

STANDARD_INPUT = "-"
OWN_KVM = "kvm:"
OWN_NESTED_KVM = "kvm:nested"
ATLAS = "atlas:"
_CHUNK = 1 << 20
_START = 64  # enough to tell a document from a stream


class BadStream(ArmferryError):
    """A stream that cannot be understood, and the name of the file it is in."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One end of a move. `saved` is None unless it is a stream.

    `around` has what the stream was in, if it was in anything.
    """

    text: str
    fingerprint: Fingerprint
    saved: SavedState | None
    around: Saved | None = None

    @property
    def image(self) -> SaveImage | None:
        """The head of the libvirt save image that the stream was in, if it was in one."""
        return None if self.around is None else self.around.image

    @property
    def machine(self) -> str:
        """The machine type, empty when unknown."""
        return self.fingerprint.provenance.machine

    @property
    def accelerator(self) -> Accelerator:
        """Who made the lists."""
        return self.fingerprint.accelerator

    @property
    def lists(self) -> tuple[Mapping[int, int], ...]:
        """One register list for each vCPU."""
        return self.fingerprint.cpus

    @property
    def end(self) -> End:
        """It as one end of a move. Raises BadStream where a description does not fit its bytes."""
        saved = self.saved
        if saved is None:
            return end_of(self.fingerprint, self.text)
        with naming(self.text):
            return guest_end(
                self.text,
                saved.machine,
                saved.cpus,
                self.fingerprint.devices,
                fresh=saved.fresh,
                sections=saved.sections,
                memory=saved.blocks or UNKNOWN,
                configuration=saved.configuration or UNKNOWN,
            )


def open_subject(text: str) -> Subject:
    """What `text` names.

    Raises UnreadableFile, InterruptedRewrite, BadStream, CompressionFault, MissingProgram,
    FingerprintError, KvmFault, UnknownEntry or ImageInUse.
    """
    if text == STANDARD_INPUT:
        return _standard_input()
    if text in (OWN_KVM, OWN_NESTED_KVM):
        host = ask(nested=text == OWN_NESTED_KVM)
        return Subject(text, fingerprint_of_kvm(host), None)
    if text.startswith(ATLAS):
        return Subject(text, read_atlas().find(text.removeprefix(ATLAS)).fingerprint, None)
    path, snapshot = named_state(text)
    with FileWindow(path) as window:
        if not document_start(window.read(0, _START)):
            return stream_subject(text, state_in(window, snapshot))
        return _document(window.read(0, MAX_DOCUMENT + 1), text)


def stream_subject(text: str, saved: Saved) -> Subject:
    """A saved state as one end of a move. Raises BadStream."""
    with naming(text):
        return Subject(text, fingerprint_of_stream(saved.state), saved.state, saved)


def read_state(path: Path) -> SavedState:
    """The saved state in the file `path`. Raises as `open_subject`."""
    with FileWindow(path) as window:
        return state_in(window).state


def state_in(window: FileWindow, snapshot: str = "") -> Saved:
    """The saved state in an open file; of a qcow2 image that of `snapshot`, or the only one.

    Raises UnreadableFile, BadStream, CompressionFault, MissingProgram or ImageInUse.
    """
    with naming(str(window.path)):
        return saved_in(window, snapshot)


def standard_input() -> int:
    """The descriptor of standard input. Raises UnreadableFile when there is none."""
    if sys.stdin is None:
        raise UnreadableFile("standard input is closed; give the name of a file instead of -")
    return sys.stdin.fileno()


@contextlib.contextmanager
def naming(text: str) -> Iterator[None]:
    """Gives every fault of a stream that the block reads the name of its file."""
    try:
        yield
    except (StreamError, NoSuchSnapshot) as fault:
        raise BadStream(f"{text}: {fault}") from fault


def _standard_input() -> Subject:
    source = standard_input()
    data = _read(source)
    if document_start(data[:_START]):
        while len(data) <= MAX_DOCUMENT and (more := _read(source)):
            data += more
        return _document(data, STANDARD_INPUT)
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
