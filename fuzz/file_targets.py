"""Targets that read files: disk images, save images, compressed streams, journals."""

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path

from armferry.errors import ArmferryError
from armferry.hosts.files.journal import journal_path, read_journal
from armferry.hosts.files.qcow2.format import Snapshot
from armferry.hosts.files.qcow2.image import Image
from armferry.hosts.files.qcow2.new_end import new_end
from armferry.hosts.files.qcow2.refcounts import Refcounts
from armferry.hosts.files.saved_file import machine_of, saved_from, saved_of_snapshot
from armferry.stream import CpuEdit, StateEdit, StreamError, rewrite_tail
from armferry.stream.mapped import plain_stream
from armferry.stream.save_image import HEADER_BYTES, is_save_image, read_header, read_image
from fuzz.pieces import Content

__all__ = ["disk_image", "journal", "mapped", "packed", "save_image"]


def save_image(data: bytes) -> None:
    """The head of an image comes out as it came in."""
    if not is_save_image(data):
        return
    with contextlib.suppress(StreamError):
        header = read_header(data[:HEADER_BYTES])
        if header.version > 1:  # the first one had no formats, whatever stands in their place
            assert header.encode(complete=header.complete) == data[:HEADER_BYTES]
        image = read_image(header, data[HEADER_BYTES : HEADER_BYTES + header.length])
        assert "\0" not in image.xml + image.cookie


def packed(data: bytes) -> None:
    """A stream, compressed or not, in a save image or not, read from a pipe."""
    with tempfile.TemporaryFile() as file, contextlib.suppress(ArmferryError):
        file.write(data)
        file.seek(0)
        saved_from(file.fileno())


_LARGEST_DEVICE = 4 << 20
"""Bytes of a device that is made in memory; clusters can be counted as used far past the data."""


def disk_image(data: bytes) -> None:
    """Any image is listed, its states read, and each given a new end that can be undone."""
    with contextlib.suppress(ArmferryError):
        image = Image(Content(data))
        for snapshot in image.states:
            machine_of(image, snapshot)
        for snapshot in image.states[:4]:
            with contextlib.suppress(ArmferryError):
                _give_new_end(data, image, snapshot)


def _give_new_end(data: bytes, image: Image, snapshot: Snapshot) -> None:
    """The snapshot's state without the first register of each vCPU, written and undone."""
    saved = saved_of_snapshot(image, snapshot.id).state
    if saved.postcopy:
        return
    lists = [dict(list(cpu.registers.items())[1:]) for cpu in saved.cpus]
    tail = rewrite_tail(saved, StateEdit([CpuEdit(one) for one in lists]))
    if tail is None:
        return
    for first in (-(-len(data) // image.header.cluster_bytes), Refcounts(image, 0).last_used() + 1):
        content, before = bytearray(data), data
        patches = [p for step in new_end(image, snapshot, tail, first=first) for p in step]
        if max(patch.offset for patch in patches) > _LARGEST_DEVICE:
            continue
        for patch in patches:
            content += bytes(max(patch.offset + len(patch.new) - len(content), 0))
            here = slice(patch.offset, patch.offset + len(patch.new))
            assert content[here].startswith(patch.old)
            content[here] = patch.new
        before = before.ljust(len(content), b"\0")
        for patch in reversed(patches):
            content[patch.offset : patch.offset + len(patch.old)] = patch.old
        for patch in patches:
            here = slice(patch.offset, patch.offset + len(patch.old))
            assert content[here] == before[here]


def journal(data: bytes) -> None:
    """A whole journal by the file's owner, its checksum right: refused, or held against it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state"
        path.write_bytes(data)
        head = {
            "version": 3,
            "inode": path.stat().st_ino,
            "length": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        descriptor = os.open(journal_path(path), os.O_WRONLY | os.O_CREAT, 0o600)
        with open(descriptor, "wb") as file:
            file.write(json.dumps(head).encode() + b"\n" + data)
        with contextlib.suppress(ArmferryError):
            found = read_journal(path)
            if found is not None:
                found.fits(Content(data))


def mapped(data: bytes) -> None:
    """A mapped-ram file becomes a stream that parses, or a fault."""
    made = 0
    with contextlib.suppress(StreamError):
        for piece in plain_stream(Content(data)):
            made += len(piece)
            if made > 1 << 24:  # a bitmap of memory that is not there: pages of zeros without end
                break
