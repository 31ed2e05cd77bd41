"""The numbers of the wire format: magic, section types, commands, RAM flags, limits.

Knows constants and the one type of buffer only. Source: QEMU's docs/devel/migration/main.rst
and streams of QEMU 5.2 to 11.1. All integers on the wire are big endian.
"""

import enum
import struct

__all__ = [
    "BE16",
    "BE32",
    "BE64",
    "MAGIC",
    "MAX_DESCRIPTION",
    "MAX_DEVICE_STATE",
    "MAX_EARLY_SECTION",
    "MAX_MACHINE_NAME",
    "MAX_NESTING",
    "MAX_PAGE_BITS",
    "MAX_RAM_BLOCKS",
    "MAX_REGISTERS",
    "MAX_REGISTERS_IN_ALL",
    "MAX_SECTIONS",
    "MIN_PAGE_BITS",
    "STREAM_VERSION",
    "Buffer",
    "Command",
    "RamFlag",
    "SectionType",
]

Buffer = bytes | bytearray | memoryview
"""What the room reads from."""

BE16 = struct.Struct(">H")
BE32 = struct.Struct(">I")
BE64 = struct.Struct(">Q")

MAGIC = b"QEVM"
STREAM_VERSION = 3

MAX_MACHINE_NAME = 256
"""Bytes of a machine type name; the longest real one has 29."""
MAX_DEVICE_STATE = 256 << 20
"""Bytes of device state held at once; 28 KiB for a small guest, some MiB for 512 vCPUs."""
MAX_EARLY_SECTION = 1 << 20
"""Bytes of a device section that comes before guest memory; virtio-mem's has 122."""
MAX_DESCRIPTION = 4 << 20
"""Bytes of the JSON description; 12 KiB for a small guest, about 3 KiB more for each vCPU."""
MAX_NESTING = 64
"""Depth of the JSON description; real ones stay below 20."""
MAX_REGISTERS = 8_192
"""Entries of one register list; real ones have 230 to 700."""
MAX_REGISTERS_IN_ALL = 1 << 19
"""Of all vCPUs; the largest machine has 512 with up to 700 each."""
MAX_SECTIONS = 16_384
"""Sections of the device state; real machines have 15 to some hundreds, plus one for each vCPU."""
MAX_RAM_BLOCKS = 4_096
"""Blocks of guest memory; real machines have 6 to some hundreds (memory slots)."""
MIN_PAGE_BITS = 10
MAX_PAGE_BITS = 16


class SectionType(enum.IntEnum):
    """The byte that begins each element of a stream."""

    END = 0x00
    START = 0x01
    PART = 0x02
    LAST = 0x03
    FULL = 0x04
    SUBSECTION = 0x05
    DESCRIPTION = 0x06
    CONFIGURATION = 0x07
    COMMAND = 0x08
    FOOTER = 0x7E


class Command(enum.IntEnum):
    """What a command section asks of the destination (be16)."""

    OPEN_RETURN_PATH = 1
    PING = 2
    POSTCOPY_ADVISE = 3
    POSTCOPY_LISTEN = 4
    POSTCOPY_RUN = 5
    POSTCOPY_RAM_DISCARD = 6
    PACKAGED = 7
    ENABLE_COLO = 8
    POSTCOPY_RESUME = 9
    RECV_BITMAP = 10
    SWITCHOVER_START = 11


class RamFlag(enum.IntFlag):
    """Low bits of the be64 that begins each RAM record; the rest is the page's address."""

    FULL = 0x01
    """Obsolete since QEMU 2; never accepted."""
    ZERO = 0x02
    MEM_SIZE = 0x04
    PAGE = 0x08
    EOS = 0x10
    CONTINUE = 0x20
    XBZRLE = 0x40
    HOOK = 0x80
    """RDMA; never accepted."""
    COMPRESS_PAGE = 0x100
    """be32 length, then the compressed page; QEMU up to 8.2."""
    MULTIFD_FLUSH = 0x200
