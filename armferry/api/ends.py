"""What names an end of a move: a file, a fingerprint at hand, or `atlas:...`."""

import os

from armferry.hosts.fingerprints.fingerprint import Fingerprint
from armferry.hosts.fingerprints.open_subject import open_subject
from armferry.hosts.fingerprints.subject import Subject

__all__ = ["EndLike", "opened"]

EndLike = str | os.PathLike[str] | Fingerprint
"""A file's name, `atlas:KERNEL/CPU`, `kvm:`, or a fingerprint that was made or parsed before."""


def opened(end: EndLike) -> Subject:
    """The end that is meant. Raises ArmferryError."""
    if isinstance(end, Fingerprint):
        return Subject(end.provenance.how or "fingerprint", end, None)
    return open_subject(os.fspath(end))
