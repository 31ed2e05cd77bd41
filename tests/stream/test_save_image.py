"""The head of a libvirt save image, against one that libvirt 11.3 wrote and against damage."""

import struct
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armferry.stream import StreamError
from armferry.stream.save_image import (
    HEADER_BYTES,
    Compression,
    SaveImageHeader,
    is_save_image,
    read_header,
    read_image,
)

# As libvirt 11.3 wrote it: version 2, 66846 bytes, was running, zstd, cookie at 1167.
WRITTEN = b"LibvirtQemudSave" + struct.pack("<19I", 2, 66846, 1, 5, 1167, *[0] * 14)


def test_header_that_libvirt_wrote() -> None:
    header = read_header(WRITTEN)
    assert header == SaveImageHeader(True, 2, 66846, 1, Compression.ZSTD, 1167, (0,) * 14, "little")
    assert header.stream_offset == 66938
    assert header.encode(complete=True) == WRITTEN
    assert header.encode(complete=False) == WRITTEN.replace(b"QemudSave", b"QemudPart")


words = st.integers(0, 2**32 - 1)


@given(
    st.booleans(),
    st.integers(2, 64 << 20),
    words,
    st.sampled_from(Compression),
    st.lists(words, min_size=14, max_size=14),
    st.sampled_from(["little", "big"]),
    st.data(),
)
def test_every_header_comes_back(
    complete: bool,
    length: int,
    was_running: int,
    compression: Compression,
    unused: list[int],
    byte_order: Literal["little", "big"],
    data: st.DataObject,
) -> None:
    cookie = data.draw(st.integers(0, length - 1))
    header = SaveImageHeader(
        complete, 2, length, was_running, compression, cookie, tuple(unused), byte_order
    )
    assert read_header(header.encode(complete=complete)) == header


@given(st.binary(min_size=0, max_size=HEADER_BYTES + 10))
def test_any_bytes_are_a_header_or_a_stream_error(tail: bytes) -> None:
    for data in (tail, WRITTEN[:16] + tail):
        try:
            header = read_header(data)
        except StreamError:
            continue
        assert header.encode(complete=header.complete)[16:] == data[16:HEADER_BYTES]


def test_xml_and_cookie() -> None:
    body = b"<domain/>\0<cookie/>\0" + bytes(100)
    header = SaveImageHeader(True, 2, len(body), 0, Compression.RAW, 10, (0,) * 14, "little")
    image = read_image(header, body)
    assert (image.xml, image.cookie) == ("<domain/>", "<cookie/>")


def test_version_1_has_no_formats() -> None:
    old = bytearray(WRITTEN)
    old[16] = 1
    assert read_header(bytes(old)).compression is Compression.RAW


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {16: 9},
            (
                "the libvirt save image has header version 150994944 (at byte 16); armferry "
                "reads versions 1 and 2"
            ),
        ),
        (
            {28: 7},
            (
                "the libvirt save image has the unknown format 7 (at byte 28); save it with "
                "virsh save --image-format raw"
            ),
        ),
        ({23: 9}, "the libvirt save image announces 151061790 bytes of domain XML (at byte 20)"),
        (
            {34: 9},
            (
                "the libvirt save image has 66846 bytes of domain XML and its cookie at 590991 "
                "(at byte 20)"
            ),
        ),
    ],
)
def test_damage_is_named(change: dict[int, int], message: str) -> None:
    damaged = bytearray(WRITTEN)
    for at, value in change.items():
        damaged[at] = value
    with pytest.raises(StreamError) as fault:
        read_header(bytes(damaged))
    assert str(fault.value) == message


def test_cut_and_incomplete_images_are_named() -> None:
    with pytest.raises(StreamError) as fault:
        read_header(WRITTEN[:50])
    assert str(fault.value) == "the libvirt save image ends within its header (at byte 50)"
    with pytest.raises(StreamError) as fault:
        read_image(read_header(WRITTEN), b"<domain")
    assert str(fault.value) == "the libvirt save image ends within its domain XML (at byte 99)"
    partial = read_header(WRITTEN.replace(b"Save", b"Part"))
    assert is_save_image(partial.encode(complete=False))
    with pytest.raises(StreamError) as fault:
        read_image(partial, bytes(66846))
    assert str(fault.value) == (
        "the libvirt save image was never completed (its magic is LibvirtQemudPart) (at byte 0); "
        "save the guest again; what is in the file is not the whole guest"
    )
