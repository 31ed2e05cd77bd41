"""The device state under way: found whole, in linear time, whatever its payloads hold."""

import tracemalloc

import pytest

from armferry.stream import StreamError
from armferry.stream.device_state import DeviceStateBuffer
from armferry.stream.errors import OversizedStream, TruncatedStream


def section(payload: bytes, number: int = 1) -> bytes:
    name = b"\4disk"
    return (
        b"\4"
        + number.to_bytes(4, "big")
        + name
        + bytes(8)
        + payload
        + b"\x7e"
        + number.to_bytes(4, "big")
    )


def described(payload: bytes) -> bytes:
    text = (
        b'{"devices": [{"name": "disk", "instance_id": 0, "fields": '
        b'[{"name": "buffer", "type": "buffer", "size": %d}]}]}' % len(payload)
    )
    return section(payload) + b"\0\6" + len(text).to_bytes(4, "big") + text


@pytest.mark.parametrize("size", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("length", [0, 9, 200, 4_000_000, 5_000_000])
def test_an_end_planted_in_a_payload_is_not_the_end(size: int, length: int) -> None:
    fake = b"\x7e\0\0\0\1\0\6" + length.to_bytes(4, "big") + b'{"devices": []}'
    data = described(fake * 20)
    buffer = DeviceStateBuffer(0)
    results = [buffer.add(data[at : at + size]) for at in range(0, len(data), size)]
    assert results[:-1] == [None] * (len(results) - 1)
    whole = results[-1]
    assert whole is not None
    assert [s.payload for s in whole.sections] == [fake * 20]
    assert whole.end_offset == len(section(fake * 20))


@pytest.mark.parametrize("size", [1000, 1 << 20])
def test_planted_ends_without_number_change_nothing(size: int) -> None:
    fake = b"\x7e\0\0\0\1\0\6\0\x3f\xff\xff" + b'{"devices": []}'
    data = described(fake * 5000)
    buffer = DeviceStateBuffer(100)
    whole = [buffer.add(data[at : at + size]) for at in range(0, len(data), size)][-1]
    assert whole is not None
    assert whole.end_offset == 100 + len(section(fake * 5000))


def test_bytes_behind_the_description() -> None:
    data = described(b"payload")
    with pytest.raises(StreamError) as caught:
        DeviceStateBuffer(0).add(data + b"!")
    assert str(caught.value) == f"bytes follow the end of the stream (at byte {len(data)})"


@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 20])
@pytest.mark.parametrize("described_too", [True, False])
def test_zeros_in_a_payload_and_at_its_end_are_kept(size: int, described_too: bool) -> None:
    payload = bytes(5000) + b"a" + bytes(9000) + b"b" + bytes(20_000)
    data = described(payload) if described_too else section(payload, number=0) + b"\0"
    buffer = DeviceStateBuffer(0)
    found = [buffer.add(data[at : at + size]) for at in range(0, len(data), size)][-1]
    whole = found if described_too else buffer.close()
    assert whole is not None
    assert [one.payload for one in whole.sections] == [payload]


@pytest.mark.parametrize("cut", [1, 3, 25, 500])
def test_a_hole_behind_a_cut_is_counted_and_not_held(cut: int) -> None:
    start = section(b"payload" * 100)[:cut]
    hole = bytes(1 << 20)
    buffer = DeviceStateBuffer(0)
    assert buffer.add(start) is None
    tracemalloc.start()
    try:
        for _ in range(200):
            assert buffer.add(hole) is None
        assert len(buffer) == len(start) + (200 << 20)
        assert buffer.settle() is None
        with pytest.raises(TruncatedStream) as caught:
            buffer.close()
        for _ in range(59):
            assert buffer.add(hole) is None
        with pytest.raises(OversizedStream):
            buffer.add(hole)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert str(caught.value) == (
        f"the stream ends inside the device state (at byte {cut + (200 << 20)}); "
        "save the guest again"
    )
    assert peak < 4 << 20


@pytest.mark.parametrize("size", [1, 5, 6, 7, 100])
def test_what_is_said_of_a_cut_does_not_depend_on_the_pieces(size: int) -> None:
    data = section(b"payload")[:-3] + bytes(8)
    buffer = DeviceStateBuffer(0)
    for at in range(0, len(data), size):
        assert buffer.add(data[at : at + size]) is None
    with pytest.raises(TruncatedStream) as caught:
        buffer.close()
    assert str(caught.value).startswith("the stream ends inside the device state (at byte ")
