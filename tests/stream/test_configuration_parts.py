"""What stands in the configuration section, part by part, and what is no part of one."""

import struct

import pytest

from armferry.stream import StreamError, StreamParser
from armferry.stream.events import Configuration, Subsection

HEAD = b"QEVM\0\0\0\3\7" + struct.pack(">I", 9) + b"virt-10.0"
PAGE_BITS = b"configuration/target-page-bits"
UUID = b"configuration/uuid"


def part(name: bytes, version: int, payload: bytes) -> bytes:
    return b"\5" + bytes([len(name)]) + name + struct.pack(">I", version) + payload


def read(data: bytes) -> Configuration:
    found = [one for one in StreamParser().feed(data) if isinstance(one, Configuration)]
    return found[0]


@pytest.mark.parametrize("version", [1, 7, 1 << 24])
def test_a_part_is_kept_as_it_came(version: int) -> None:
    seen = read(HEAD + part(PAGE_BITS, version, struct.pack(">I", 14)) + b"\0")
    assert (seen.offset, seen.machine, seen.page_size) == (8, "virt-10.0", 1 << 14)
    assert seen.subsections == (
        Subsection(len(HEAD), PAGE_BITS.decode(), version, struct.pack(">I", 14)),
    )


def test_an_identity_is_kept_and_what_follows_it_is_read() -> None:
    identity = bytes(range(16))
    pages = part(PAGE_BITS, 1, struct.pack(">I", 14))
    seen = read(HEAD + part(UUID, 1, identity) + pages + b"\0")
    assert [(one.name, one.payload) for one in seen.subsections] == [
        (UUID.decode(), identity),
        (PAGE_BITS.decode(), struct.pack(">I", 14)),
    ]
    assert seen.page_size == 1 << 14


def test_parts_that_come_in_pieces() -> None:
    data = HEAD + part(PAGE_BITS, 1, struct.pack(">I", 16)) + b"\0"
    parser = StreamParser()
    seen = [event for byte in data for event in parser.feed(bytes([byte]))]
    assert [one.page_size for one in seen if isinstance(one, Configuration)] == [1 << 16]


@pytest.mark.parametrize("bits", [0, 9, 31, 64])
def test_pages_that_no_machine_has(bits: int) -> None:
    with pytest.raises(StreamError, match=rf"pages of 2\^{bits} bytes"):
        read(HEAD + part(PAGE_BITS, 1, struct.pack(">I", bits)) + b"\0")


def test_a_part_that_is_not_known() -> None:
    with pytest.raises(StreamError):
        read(HEAD + part(b"configuration/other", 1, b"") + b"\0")
