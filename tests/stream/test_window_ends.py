"""What stands at the end of a window, and what is read when nothing of it can be believed."""

import json
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from armferry.stream import StreamError, TruncatedStream, Window, read_saved
from armferry.stream.events import DeviceSection
from armferry.stream.rewrite import rewrite_sections
from armferry.stream.saved_state import run_state_of

Named = Callable[[str], bytes]
WindowOn = Callable[[bytes], Window]
BARE = "suppress-vmdesc"
HEADER = b"QEVM\0\0\0\3"


@dataclass
class HoledWindow:
    """`begin`, zeros, and pieces of bytes at their offsets among them."""

    pieces: dict[int, bytes]
    size: int

    def read(self, offset: int, length: int) -> bytes:
        data = bytearray(max(0, min(length, self.size - offset)))
        for at, piece in self.pieces.items():
            begin, end = max(at, offset), min(at + len(piece), offset + len(data))
            if begin < end:
                data[begin - offset : end - offset] = piece[begin - at : end - at]
        return bytes(data)


def test_a_volume_with_an_older_state_behind_the_stream(
    slim_named: Named, window_on: WindowOn
) -> None:
    new = slim_named("tcg_11.1.3_virt-10.0_cortex-a57_1")
    old = slim_named("kvm_6.12_neoverse-n1_10.0.13")
    saved = read_saved(window_on(new + old), volume=True)
    alone = read_saved(window_on(new))
    assert (saved.size, saved.end_offset) == (len(new), alone.end_offset)
    assert saved.sections == alone.sections
    assert saved.description == alone.description


def test_a_large_device_state_without_a_description_is_read_to_its_end(
    slim_named: Named, window_on: WindowOn
) -> None:
    """It is held beyond the limit up to which nobody looks at how the window ends."""
    stream = slim_named(BARE)
    large = DeviceSection(0, 99, "large", 0, 1, 0, b"x" * (17 << 20), None)
    whole = stream[:-1] + rewrite_sections([large], {}) + b"\0"
    saved = read_saved(window_on(whole))
    assert saved.sections[-1].payload == large.payload
    assert len(saved.sections) == len(read_saved(window_on(stream)).sections) + 1
    with pytest.raises(TruncatedStream, match="neither an end mark nor a description stands"):
        read_saved(window_on(whole[:-1]))


def test_a_description_without_devices_describes_nothing(
    slim_named: Named, window_on: WindowOn
) -> None:
    text = b'{"page_size": 4096}'
    stream = slim_named(BARE) + b"\6" + len(text).to_bytes(4, "big") + text
    with pytest.raises(StreamError) as caught:
        read_saved(window_on(stream))
    assert str(caught.value) == (
        f"the stream ends inside the device state (at byte {len(stream)}); save the guest again"
    )


def test_a_device_state_too_large_in_all(slim_named: Named, window_on: WindowOn) -> None:
    """Two devices, neither of them too large by itself."""
    stream = slim_named(BARE)
    begin = read_saved(window_on(stream)).state_offset
    length = 200 << 20
    pieces = {0: stream[:begin]}
    for number, name in enumerate((b"one", b"two")):
        pieces[begin] = b"\4\0\0\0" + bytes([number, 3]) + name + b"\0\0\0\0\0\0\0\1"
        begin += len(pieces[begin]) + length
        pieces[begin] = b"\x7e\0\0\0" + bytes([number])
        begin += 5
    devices = [
        {
            "name": name,
            "instance_id": 0,
            "version": 1,
            "fields": [{"name": "data", "size": length}],
        }
        for name in ("one", "two")
    ]
    text = json.dumps({"page_size": 4096, "devices": devices}).encode()
    pieces[begin] = b"\0\6" + len(text).to_bytes(4, "big") + text
    window = HoledWindow(pieces, begin + len(pieces[begin]))
    with pytest.raises(StreamError) as caught:
        read_saved(window)
    total = 2 * (14 + 3 + length + 5)
    assert str(caught.value) == (f"the device state takes {total} bytes (at byte {len(pieces[0])})")


def test_a_stream_that_ends_before_any_device(window_on: WindowOn) -> None:
    with pytest.raises(TruncatedStream) as caught:
        read_saved(window_on(HEADER + b"\0"))
    assert str(caught.value) == "the stream holds no device state (at byte 9)"


def test_the_run_state_is_empty_without_its_section(slim_named: Named, window_on: WindowOn) -> None:
    sections = read_saved(window_on(slim_named(BARE))).sections
    assert run_state_of(sections) == "prelaunch"
    assert run_state_of([one for one in sections if one.name != "globalstate"]) == ""
