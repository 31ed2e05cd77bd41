"""A saved state in a file as one end of a move."""

from pathlib import Path

from armferry.hosts.files.locked import FileWindow
from armferry.hosts.files.saved_file import Saved, saved_in
from armferry.hosts.fingerprints.from_stream import fingerprint_of_stream
from armferry.hosts.fingerprints.naming import naming
from armferry.hosts.fingerprints.subject import Subject
from armferry.stream import SavedState

__all__ = ["read_state", "state_in", "stream_subject"]


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
