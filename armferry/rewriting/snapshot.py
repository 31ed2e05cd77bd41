"""A snapshot's saved state rewritten inside its qcow2 image.

Decides where in the file the new clusters go: past its end, or on a device, which cannot grow,
past the last cluster in use.
"""

from armferry.hosts.files.in_place import FileInPlace
from armferry.hosts.files.qcow2.format import Snapshot
from armferry.hosts.files.qcow2.image import Image
from armferry.hosts.files.qcow2.new_end import new_end
from armferry.hosts.files.qcow2.refcounts import Refcounts
from armferry.stream import NewTail

__all__ = ["rewrite_snapshot"]


def rewrite_snapshot(file: FileInPlace, image: Image, snapshot: Snapshot, tail: NewTail) -> None:
    """Gives the state of `snapshot` the new end `tail`; `image` is the one in `file`.

    Raises StreamError and what `FileInPlace.change` raises.
    """
    if file.is_device:
        first = Refcounts(image, 0).last_used() + 1
    else:
        first = -(-file.size // image.header.cluster_bytes)
    file.change(new_end(image, snapshot, tail, first=first))
