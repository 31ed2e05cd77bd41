"""The head of a libvirt save image, sans-I/O: what stands before the QEMU stream.

Knows the fixed header, the domain XML and the cookie after it; refuses to know what compresses
the stream and where the bytes lie. The header has 92 bytes: 16 of magic, then 19 words of 32
bits in the byte order of the machine that wrote it. Source of the facts: images that libvirt
11.3 wrote with each of its formats, and its public definition of the header.

    magic            LibvirtQemudSave, or LibvirtQemudPart while the image is being written
    version          2
    length           bytes of XML, cookie and padding; the stream begins after them
    was running      1 when the guest runs on after the restore
    format           an entry of Compression
    cookie offset    from the end of the header, 0 without a cookie
    unused           14 words

XML and cookie end with a zero byte each; the rest of the length is padding that leaves room for
an edited XML.
"""

import enum
import struct
from dataclasses import dataclass
from typing import Literal

from armferry.stream.errors import (
    CorruptStream,
    OversizedStream,
    TruncatedStream,
    UnsupportedStream,
)

__all__ = [
    "HEADER_BYTES",
    "IMAGE_MAGIC_BYTES",
    "Compression",
    "SaveImage",
    "SaveImageHeader",
    "is_save_image",
    "read_header",
    "read_image",
]

_COMPLETE = b"LibvirtQemudSave"
_PARTIAL = b"LibvirtQemudPart"
IMAGE_MAGIC_BYTES = len(_COMPLETE)
HEADER_BYTES = 92
_VERSIONS = (1, 2)
_UNUSED_WORDS = 14
_MAX_LENGTH = 64 << 20  # the XML of the largest domains has some hundred kilobytes


class Compression(enum.IntEnum):
    """How the stream in an image is stored; the numbers are those of the header.

    SPARSE is no compression: guest memory lies at fixed offsets of the file (mapped-ram).
    """

    RAW = 0
    GZIP = 1
    BZIP2 = 2
    XZ = 3
    LZOP = 4
    ZSTD = 5
    SPARSE = 6

    @property
    def word(self) -> str:
        """libvirt's name for it, as `virsh save --image-format` takes it."""
        return self.name.lower()

    @property
    def seekable(self) -> bool:
        """Whether the stream lies in the file as QEMU wrote it."""
        return self in (Compression.RAW, Compression.SPARSE)


@dataclass(frozen=True, slots=True)
class SaveImageHeader:
    """The fixed header. `length` and `cookie_offset` are in bytes, from the header's end."""

    complete: bool
    version: int
    length: int
    was_running: int
    compression: Compression
    cookie_offset: int
    unused: tuple[int, ...]
    byte_order: Literal["little", "big"]

    @property
    def stream_offset(self) -> int:
        """Where the stream begins, in bytes from the start of the image."""
        return HEADER_BYTES + self.length

    def encode(self, *, complete: bool) -> bytes:
        """The header on disk, marked complete or not; otherwise as it was read."""
        words = (
            self.version,
            self.length,
            self.was_running,
            self.compression,
            self.cookie_offset,
            *self.unused,
        )
        magic = _COMPLETE if complete else _PARTIAL
        return magic + _words(self.byte_order).pack(*words)


@dataclass(frozen=True, slots=True)
class SaveImage:
    """All that stands before the stream. `body` is XML, cookie and padding as they came."""

    header: SaveImageHeader
    body: bytes

    @property
    def xml(self) -> str:
        """The domain XML."""
        return self._text(0)

    @property
    def cookie(self) -> str:
        """libvirt's cookie, an XML document; empty when there is none."""
        offset = self.header.cookie_offset
        return self._text(offset) if offset else ""

    def _text(self, offset: int) -> str:
        end = self.body.find(0, offset)
        return self.body[offset : end if end >= 0 else None].decode("utf-8", "backslashreplace")


def is_save_image(start: bytes) -> bool:
    """Whether a file that begins with `start` is a save image, complete or not."""
    return start[:IMAGE_MAGIC_BYTES] in (_COMPLETE, _PARTIAL)


def read_header(data: bytes) -> SaveImageHeader:
    """The header in the first HEADER_BYTES of an image. Raises StreamError."""
    if len(data) < HEADER_BYTES:
        raise TruncatedStream("the libvirt save image ends within its header", offset=len(data))
    byte_order: Literal["little", "big"] = "little"
    words = _words(byte_order).unpack_from(data, IMAGE_MAGIC_BYTES)
    if words[0] not in _VERSIONS:
        byte_order = "big"
        words = _words(byte_order).unpack_from(data, IMAGE_MAGIC_BYTES)
    version, length, was_running, compression, cookie_offset, *unused = words
    if version not in _VERSIONS:
        raise UnsupportedStream(
            f"the libvirt save image has header version {words[0]}",
            offset=IMAGE_MAGIC_BYTES,
            advice="armferry reads versions 1 and 2",
        )
    if compression not in Compression.__members__.values():
        raise UnsupportedStream(
            f"the libvirt save image has the unknown format {compression}",
            offset=IMAGE_MAGIC_BYTES + 12,
            advice="save it with virsh save --image-format raw",
        )
    if length > _MAX_LENGTH:
        raise OversizedStream(
            f"the libvirt save image announces {length} bytes of domain XML",
            offset=IMAGE_MAGIC_BYTES + 4,
        )
    if not length or cookie_offset >= length:
        raise CorruptStream(
            f"the libvirt save image has {length} bytes of domain XML and its cookie at "
            f"{cookie_offset}",
            offset=IMAGE_MAGIC_BYTES + 4,
        )
    return SaveImageHeader(
        data[:IMAGE_MAGIC_BYTES] == _COMPLETE,
        version,
        length,
        was_running,
        # version 1 had no formats: libvirt takes its stream as it is
        Compression(compression) if version > 1 else Compression.RAW,
        cookie_offset,
        tuple(unused),
        byte_order,
    )


def read_image(header: SaveImageHeader, body: bytes) -> SaveImage:
    """The head of an image; `body` is what stands between header and stream.

    Raises TruncatedStream when `body` is not whole and UnsupportedStream for an image that was
    never completed.
    """
    if len(body) < header.length:
        raise TruncatedStream(
            "the libvirt save image ends within its domain XML", offset=HEADER_BYTES + len(body)
        )
    if not header.complete:
        raise UnsupportedStream(
            "the libvirt save image was never completed (its magic is LibvirtQemudPart)",
            offset=0,
            advice="save the guest again; what is in the file is not the whole guest",
        )
    return SaveImage(header, body)


def _words(byte_order: Literal["little", "big"]) -> struct.Struct:
    return struct.Struct(f"{'<' if byte_order == 'little' else '>'}{5 + _UNUSED_WORDS}I")
