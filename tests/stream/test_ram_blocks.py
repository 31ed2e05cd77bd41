"""The block list: words that are there only under some capabilities, in every combination."""

import struct
from itertools import product

import pytest

from armferry.stream import StreamError
from armferry.stream.events import RamBlock, RamBlocks
from armferry.stream.ram import BlockListReader

HUGE = 2 << 20
END = struct.pack(">Q", 0x10) + b"\x7e\0\0\0\1\2\0\0\0\1"


def block_list(sizes: list[int | None], addresses: list[int | None]) -> tuple[bytes, RamBlocks]:
    length = 64 << 20
    data = struct.pack(">Q", len(sizes) * length | 4)
    blocks = []
    for number, (size, address) in enumerate(zip(sizes, addresses, strict=True)):
        name = f"mem{number}"
        data += bytes([len(name)]) + name.encode() + struct.pack(">Q", length)
        data += b"".join(struct.pack(">Q", word) for word in (size, address) if word is not None)
        blocks.append(RamBlock(name, length, size, address))
    return data, RamBlocks(0, len(sizes) * length, tuple(blocks))


def read_to_the_end(reader: BlockListReader, data: bytes) -> None:
    position: int | None = 0
    while position is not None and reader.whole is None:
        position = reader.read(data, position, 0)


@pytest.mark.parametrize("sizes", list(product([None, HUGE, 1 << 30], repeat=2)))
@pytest.mark.parametrize("addresses", [(None, None), *product([0, 1 << 30, 0x4000], repeat=2)])
def test_page_sizes_and_addresses_are_told_apart(
    sizes: tuple[int | None, ...], addresses: tuple[int | None, ...]
) -> None:
    data, expected = block_list(list(sizes), list(addresses))
    capabilities = ("x-ignore-shared",) if addresses[0] is not None else ()
    for size in (1, 5, 10_000):
        reader = BlockListReader(capabilities, postcopy=True)
        view, position, limit = data + END, 0, 0
        while reader.whole is None:
            after = reader.read(view[:limit], position, 0)
            if after is None:
                limit += size
                assert limit < len(view) + size
            else:
                position = after
        assert reader.whole == expected
        assert position == len(data)


def test_without_postcopy_a_word_behind_a_block_is_no_page_size() -> None:
    data, expected = block_list([None, None], [1 << 30, 0])
    reader = BlockListReader(("x-ignore-shared",), postcopy=False)
    read_to_the_end(reader, data)
    assert reader.whole == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (struct.pack(">Q", 8), "the list of memory blocks begins with 0x8"),
        (
            struct.pack(">Q", 4096 | 4) + b"\1m" + struct.pack(">Q", 8192),
            "memory block 'm' of 8192 bytes does not fit into the 4096 bytes announced",
        ),
        (
            struct.pack(">Q", 4096 | 4) + b"\1m" + bytes(8),
            "memory block 'm' of 0 bytes does not fit into the 4096 bytes announced",
        ),
    ],
)
def test_a_list_that_contradicts_itself(data: bytes, message: str) -> None:
    reader = BlockListReader((), postcopy=False)
    with pytest.raises(StreamError) as caught:
        read_to_the_end(reader, data)
    assert str(caught.value) == f"{message} (at byte 0, section 'ram')"


def test_no_more_than_four_thousand_blocks() -> None:
    data = struct.pack(">Q", 1 << 40 | 4) + (b"\1m" + struct.pack(">Q", 4096)) * 4097
    reader = BlockListReader((), postcopy=False)
    with pytest.raises(StreamError, match="more than 4096 memory blocks"):
        read_to_the_end(reader, data)
