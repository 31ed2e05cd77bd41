"""Compiled Python for the lab hosts, made in a lab host.

Debian ships python3 without bytecode, and compiling under emulation costs seconds at every boot.
So a host of each userland is booted once to import what armferry uses; the bytecode it leaves is
kept as an archive of its own. An initramfs has no file times to check sources against: the
headers are rewritten to the unchecked kind (PEP 552: flags 1, then a hash nobody compares).
"""

import io
import tarfile
from collections.abc import Iterator

from armferry.lab import cpio

__all__ = ["COLLECT", "bytecode_entries", "unchecked"]

_MODULES = (
    *("argparse", "asyncio", "base64", "bisect", "collections", "contextlib", "copy", "ctypes"),
    *("dataclasses", "datetime", "enum", "fcntl", "functools", "gzip", "hashlib", "heapq"),
    *("importlib.resources", "inspect", "json", "logging", "lzma", "mmap", "pathlib", "platform"),
    *("random", "runpy", "selectors", "shlex", "shutil", "socket", "ssl", "stat", "string"),
    *("struct", "subprocess", "tarfile", "tempfile", "textwrap", "threading", "tomllib"),
    *("traceback", "typing", "urllib.parse", "uuid", "xml.etree.ElementTree", "zipfile", "zlib"),
)

COLLECT = (
    f"python3 -c 'import {', '.join(_MODULES)}' >&2"
    " && tar -c $(find /usr/lib/python3* -name __pycache__)"
)
"""Shell command for a host: writes a tar archive of the bytecode to its standard output."""

_HEADER = 16
_UNCHECKED = (1).to_bytes(4, "little") + bytes(8)


def unchecked(content: bytes) -> bytes:
    """A .pyc file that its Python takes without looking at the source."""
    return content[:4] + _UNCHECKED + content[_HEADER:]


def bytecode_entries(archive: bytes) -> Iterator[cpio.Entry]:
    """What COLLECT wrote, as initramfs entries."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        for member in members:
            name = member.name.strip("/")
            if member.isdir():
                yield cpio.directory(name)
            elif (content := members.extractfile(member)) is not None:
                yield cpio.file(name, unchecked(content.read()))
