"""Pieces of the wire format by themselves, at their limits."""

import struct

import pytest

import armferry.stream
from armferry.stream import CorruptStream, OversizedStream, StreamParser
from armferry.stream.command import begins_package, read_command
from armferry.stream.description import layouts_of, parse_description
from armferry.stream.events import CommandSeen, RamRecord, RamRecordKind
from armferry.stream.ram import RamWalker
from armferry.stream.save_image import Compression
from armferry.stream.wire import MAX_DESCRIPTION, Command

PAGE = 4096
RAM = bytes([8]) + b"mach-ram"


def flags(number: int) -> bytes:
    return struct.pack(">Q", number)


def test_a_name_that_the_room_has_not() -> None:
    with pytest.raises(AttributeError, match=r"module 'armferry\.stream' has no attribute 'Strem'"):
        _ = armferry.stream.Strem  # type: ignore[attr-defined]


def test_a_command_is_whole_or_not_there() -> None:
    ping = b"\x08" + struct.pack(">HH", Command.PING, 4) + b"\0\0\0\1"
    for length in range(len(ping)):
        assert read_command(ping[:length], 0, 100) is None
    assert read_command(ping, 0, 100) == (9, CommandSeen(100, Command.PING, b"\0\0\0\1"))
    assert read_command(b"xx" + ping, 2, 100) == (9, CommandSeen(100, Command.PING, b"\0\0\0\1"))
    for length in (0, 3, 5):
        with pytest.raises(CorruptStream, match="a PACKAGED command has no length"):
            read_command(b"\x08\0\x07" + struct.pack(">H", length) + bytes(8), 0, 0)


def test_where_a_package_begins() -> None:
    assert begins_package(bytearray(b"\x08\0\x07\0\4"))
    assert not begins_package(bytearray(b"\x08\0\2\0\4"))
    parser = StreamParser()
    parser.feed(b"QEVM\0\0\0\3")
    assert not parser.collecting
    parser.feed(b"\x08\0\7\0\4\0\0\0\x20")
    assert parser.collecting


@pytest.mark.parametrize("length", [-1, 1])
def test_no_more_is_passed_over_than_is_ahead(length: int) -> None:
    parser = StreamParser()
    with pytest.raises(ValueError, match=f"{length} bytes cannot be passed over, only 0"):
        parser.pass_over(length)
    parser.pass_over(0)


def test_a_description_too_long() -> None:
    longest = b'{"a":"' + b"x" * (MAX_DESCRIPTION - 8) + b'"}'
    assert list(parse_description(longest, 0)) == ["a"]
    with pytest.raises(OversizedStream, match="4194305 bytes long, more than 4194304"):
        parse_description(b" " + longest, 0)


@pytest.mark.parametrize(
    ("size", "count", "fault"),
    [((256 << 20) - 1, 1, ""), (1 << 27, 3, "the description gives 'big' 402653184 bytes, more")],
)
def test_a_device_too_long(size: int, count: int, fault: str) -> None:
    field = {"name": "data", "type": "buffer", "size": size, "array_len": count}
    device = {
        "name": "big",
        "instance_id": 0,
        "vmsd_name": "big",
        "version": 1,
        "fields": [field],
    }
    if not fault:
        assert layouts_of({"devices": [device]}, 0)[0].state.length == size
        return
    with pytest.raises(OversizedStream, match=fault):
        layouts_of({"devices": [device]}, 0)


def walked(data: bytes, size: int) -> tuple[list[RamRecord], int, bool]:
    walker = RamWalker(PAGE)
    records: list[RamRecord] = []
    position, ended = walker.walk(data[:size], 0, 0, records)
    return records, position, ended


@pytest.mark.parametrize(
    ("kind", "flag", "body"),
    [
        (RamRecordKind.XBZRLE, 0x40, b"\1" + struct.pack(">H", PAGE) + bytes(PAGE)),
        (RamRecordKind.COMPRESSED, 0x100, struct.pack(">I", 2 * PAGE) + bytes(2 * PAGE)),
        (RamRecordKind.ZERO, 0x02, b"\0"),
    ],
)
def test_records_of_every_kind_up_to_their_limit(
    kind: RamRecordKind, flag: int, body: bytes
) -> None:
    record = flags(0x5000 | flag) + RAM + body
    records, position, ended = walked(record + flags(0x10), len(record) + 8)
    assert [(one.kind, one.address, one.block, one.length) for one in records[:1]] == [
        (kind, 0x5000, "mach-ram", len(record))
    ]
    assert (position, ended) == (len(record) + 8, True)
    # a head that is not whole waits for more
    for size in range(8, 8 + len(RAM) + (0 if kind is RamRecordKind.ZERO else 3)):
        assert walked(record, size) == ([], 0, False)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (
            flags(0x40) + RAM + b"\1" + struct.pack(">H", PAGE + 1),
            "an xbzrle page takes 4097 bytes, more than a page",
        ),
        (flags(0x100) + RAM + struct.pack(">I", 2 * PAGE + 1), "a compressed page takes 8193"),
        (flags(0x80), "guest memory is sent by RDMA"),
        (flags(0x01), "a record of guest memory has the flags 0x1"),
    ],
)
def test_records_beyond_their_limit(data: bytes, fault: str) -> None:
    with pytest.raises(armferry.stream.StreamError, match=fault):
        walked(data, len(data))


def test_what_libvirt_calls_its_formats() -> None:
    assert [one.word for one in Compression] == [
        *("raw", "gzip", "bzip2", "xz", "lzop", "zstd", "sparse")
    ]
    assert [one for one in Compression if one.seekable] == [Compression.RAW, Compression.SPARSE]
