"""The parser: parse it, or raise StreamError, never anything else; however the bytes are cut."""

import tracemalloc
from collections.abc import Callable, Iterable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from armferry.stream import OversizedStream, StreamError, StreamParser
from armferry.stream.events import (
    CommandSeen,
    Configuration,
    Description,
    DeviceSection,
    DeviceStateBegins,
    EndOfStream,
    Event,
    RamBlocks,
    RamRecord,
    RamRecordKind,
)
from armferry.stream.wire import Command

Named = Callable[[str], bytes]

FUZZ = settings(
    max_examples=5 * settings().max_examples // 2,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
NAMES = (
    "tcg_5.2.0_virt-5.2_cortex-a57_2",
    "tcg_11.1.3_virt-10.0_cortex-a57_1",
    "kvm_6.12_neoverse-n1_10.0.13",
    "virtio-mem",
    "ignore-shared",
    "postcopy",
    "suppress-vmdesc",
    "xbzrle",
)


def parsed(chunks: Iterable[bytes], *, ram_records: bool = True) -> list[Event]:
    parser = StreamParser(ram_records=ram_records)
    events: list[Event] = []
    for chunk in chunks:
        events += parser.feed(chunk)
    return events + parser.close()


def outcome(data: bytes) -> str:
    try:
        parsed([data], ram_records=False)
    except StreamError as error:
        return type(error).__name__
    return "parsed"


def test_every_recorded_stream_parses_to_its_end(recorded: bytes) -> None:
    parser = StreamParser()
    events = [*parser.feed(recorded), *parser.close()]
    assert parser.done
    assert parser.offset == len(recorded)
    assert parser.held == 0
    assert any(isinstance(event, Configuration) for event in events)
    assert any(isinstance(event, RamBlocks) for event in events)


def test_byte_by_byte_gives_the_same_events(slim: bytes) -> None:
    whole = parsed([slim])
    assert parsed(slim[at : at + 1] for at in range(len(slim))) == whole


@given(name=st.sampled_from(NAMES), data=st.data())
@FUZZ
def test_any_split_gives_the_same_events(slim_named: Named, name: str, data: st.DataObject) -> None:
    stream = slim_named(name)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(stream) - 1), max_size=40)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert parsed(pieces) == parsed([stream])


def test_records_cover_guest_memory_without_a_gap(recorded: bytes) -> None:
    position = None
    for event in parsed([recorded]):
        if isinstance(event, RamRecord):
            if position is not None:
                assert event.offset == position
            position = event.offset + event.length
            if event.kind is RamRecordKind.END:
                position = None


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_cut_anywhere_is_named_truncated(slim_named: Named, name: str) -> None:
    """But right behind the end mark: a stream may have no description."""
    stream = slim_named(name)
    end = next(event.offset for event in parsed([stream]) if isinstance(event, EndOfStream))
    cuts = {*range(1, 600), *range(600, len(stream), 211), *range(end - 20, end + 40)} & {
        *range(len(stream))
    }
    whole = {cut for cut in cuts if outcome(stream[:cut]) == "parsed"}
    assert whole <= {end + 1}
    wrong = {outcome(stream[:cut]) for cut in cuts - whole}
    assert wrong == {"TruncatedStream"}


@given(name=st.sampled_from(NAMES), data=st.data())
@FUZZ
def test_flipped_bits_parse_or_raise_a_stream_error(
    slim_named: Named, name: str, data: st.DataObject
) -> None:
    stream = bytearray(slim_named(name))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(stream) - 1))
        stream[at] ^= 1 << data.draw(st.integers(0, 7))
    outcome(bytes(stream))


def test_each_bit_of_the_head_flipped(slim_named: Named) -> None:
    stream = slim_named("ignore-shared")
    for at in range(420):
        for bit in range(8):
            broken = bytearray(stream[:2000])
            broken[at] ^= 1 << bit
            outcome(bytes(broken))


@given(st.binary(max_size=400))
@FUZZ
def test_anything_behind_a_header_parses_or_raises(rest: bytes) -> None:
    outcome(b"QEVM\0\0\0\3" + rest)


@given(st.binary(max_size=400))
@FUZZ
def test_anything_as_guest_memory_parses_or_raises(slim_named: Named, rest: bytes) -> None:
    stream = slim_named("suppress-vmdesc")
    first = next(event.offset for event in parsed([stream]) if isinstance(event, RamRecord))
    outcome(stream[:first] + rest)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the input is empty (at byte 0)"),
        (
            b"Dear reader,",
            "this is no QEMU migration stream: it begins with b'Dear', not b'QEVM' (at byte 0)",
        ),
        (
            bytes(4096),
            (
                r"this is no QEMU migration stream: it begins with b'\x00\x00\x00\x00', "
                r"not b'QEVM' (at byte 0)"
            ),
        ),
        (b"QE", "the stream ends inside its header (at byte 2); save the guest again"),
        (
            b"QEVM\0\0\0\2",
            "the stream has version 2; QEMU has written 3 since 0.12 (at byte 4)",
        ),
        (
            b"QEVM\0\0\0\3\7\xff\xff\xff\xff",
            "the machine type's name is 4294967295 bytes long (at byte 9)",
        ),
        (b"QEVM\0\0\0\3\x55", "0x55 begins no section (at byte 8)"),
        (b"QEVM\0\0\0\3\x08\0\x63\0\0", "99 is no known command (at byte 8)"),
        (b"QEVM\0\0\0\3\x08\0\x08\0\0", "the stream uses COLO (at byte 8); turn x-colo off"),
        (
            b"QEVM\0\0\0\3\x08\0\7\0\4\xff\xff\xff\xff",
            "a packaged stream takes 4294967295 bytes, more than 268435456 (at byte 8)",
        ),
        (b"QEVM\0\0\0\3\2\0\0\0\7", "section 7 was never started (at byte 8)"),
        (
            b"QEVM\0\0\0\3\x7e\0\0\0\7",
            "a footer names section 7, which is not open (at byte 8)",
        ),
        (
            b"QEVM\0\0\0\3\1\0\0\0\1\x0cdirty-bitmap\0\0\0\0\0\0\0\1",
            (
                "the iterable section 'dirty-bitmap' version 1 cannot be delimited (at byte 8, "
                "section 'dirty-bitmap' instance 0); armferry carries guest memory and device "
                "state only"
            ),
        ),
        (b"QEVM\0\0\0\3\0\7", "bytes follow the end of the stream (at byte 9)"),
        (
            b"QEVM\0\0\0\3\0\6\x7f\xff\xff\xff",
            "the description is 2147483647 bytes long, more than 4194304 (at byte 9)",
        ),
    ],
)
def test_what_is_wrong_is_said_whole(data: bytes, message: str) -> None:
    with pytest.raises(StreamError) as caught:
        parsed([data])
    assert str(caught.value) == message
    assert caught.value.exit_code == 3


def test_a_broken_parser_refuses_to_go_on() -> None:
    parser = StreamParser()
    with pytest.raises(StreamError):
        parser.feed(b"nothing")
    message = "this stream is broken; make a new parser"
    with pytest.raises(ValueError, match=message):
        parser.feed(b"QEVM")
    with pytest.raises(ValueError, match=message):
        parser.close()
    with pytest.raises(ValueError, match=message):
        parser.settle()


def test_bytes_after_the_description_are_refused(stream_named: Named) -> None:
    stream = stream_named("kvm_6.17_neoverse-n1_10.0.13")
    expected = f"bytes follow the end of the stream (at byte {len(stream)})"
    for chunks in ([stream + b"x"], [stream, b"x"], [stream[:-1], stream[-1:] + b"x"]):
        with pytest.raises(StreamError) as caught:
            parsed(chunks)
        assert str(caught.value) == expected


def test_bytes_after_the_description_are_passed_over_where_they_may_stand(
    stream_named: Named,
) -> None:
    stream = stream_named("kvm_6.17_neoverse-n1_10.0.13")
    parser = StreamParser(more_behind=True)
    assert isinstance(parser.feed(stream)[-1], Description)
    assert parser.feed(b"an older state") == []
    assert (parser.done, parser.offset, parser.close()) == (True, len(stream), [])


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_a_description_behind_an_end_without_devices(size: int) -> None:
    data = b'QEVM\0\0\0\3\0\6\0\0\0\x0f{"devices": []}'
    events = parsed(data[at : at + size] for at in range(0, len(data), size))
    assert events[1:] == [EndOfStream(8), Description(9, data[14:], {"devices": []})]


def early(payload: bytes, number: int = 1) -> bytes:
    name = b"\4disk"
    return (
        b"\4"
        + bytes([0, 0, 0, number])
        + name
        + bytes(8)
        + payload
        + b"\x7e\0\0\0"
        + bytes([number])
    )


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_early_devices_end_where_something_can_follow(size: int) -> None:
    """A footer in a payload, nothing of a stream behind it, is none."""
    payloads = [b"one", b"two \x7e\0\0\0\2 and on", b"three"]
    ping = b"\x08\0\2\0\4\0\0\0\1"
    data = b"QEVM\0\0\0\3" + b"".join(early(one, n) for n, one in enumerate(payloads, 1)) + ping
    parser = StreamParser()
    events = [e for at in range(0, len(data), size) for e in parser.feed(data[at : at + size])]
    assert [e.payload for e in events if isinstance(e, DeviceSection)] == payloads
    assert [e.command for e in events if isinstance(e, CommandSeen)] == [Command.PING]
    assert parser.offset == len(data)


def test_an_early_device_without_an_end_is_not_held_for_ever() -> None:
    data = b"QEVM\0\0\0\3" + early(bytes(1 << 20))
    assert len(StreamParser().feed(data[: 8 + (1 << 20)])) == 1  # the header
    with pytest.raises(OversizedStream) as caught:
        StreamParser().feed(data)
    assert str(caught.value) == (
        "a device section before guest memory is longer than 1048576 bytes (at byte 8)"
    )


def test_settle_gives_a_state_without_a_description_and_nothing_sooner(
    slim_named: Named,
) -> None:
    stream = slim_named("suppress-vmdesc")
    parser = StreamParser()
    parser.feed(stream[:-1])
    assert parser.held > 10_000
    assert parser.settle() == []
    assert parser.feed(stream[-1:]) == []
    events = parser.settle()
    assert sum(isinstance(event, DeviceSection) for event in events) == 16
    assert isinstance(events[-1], EndOfStream)
    assert parser.held == 0
    assert parser.close() == []
    assert parser.done


def test_lengths_are_capped_before_anything_is_allocated(slim_named: Named) -> None:
    greedy = (
        b"QEVM\0\0\0\3\7\x7f\xff\xff\xff",
        b"QEVM\0\0\0\3\x08\0\7\0\4\x7f\xff\xff\xff",
        b"QEVM\0\0\0\3\0\6\x7f\xff\xff\xff",
    )
    tracemalloc.start()
    try:
        for data in greedy:
            assert outcome(data) == "OversizedStream"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_pages_are_counted_when_no_record_is_asked_for(slim_named: Named) -> None:
    stream = slim_named("xbzrle")
    kinds = [event.kind for event in parsed([stream]) if isinstance(event, RamRecord)]
    parser = StreamParser()
    parser.feed(stream)
    zero = kinds.count(RamRecordKind.ZERO)
    assert parser.zero_pages == zero > 0
    assert parser.pages == kinds.count(RamRecordKind.PAGE) > 0


def test_guest_memory_is_not_kept(slim_named: Named) -> None:
    """Sixteen thousand pages go through in buffers of 256 KiB: no page is held."""
    stream = slim_named("suppress-vmdesc")
    first = next(event.offset for event in parsed([stream]) if isinstance(event, RamRecord))
    parser = StreamParser()
    parser.feed(stream[:first])
    parser.feed(b"\0\0\0\0\0\0\0\x08\x0dmach-virt.ram" + bytes(4096))
    buffer = (b"\0\0\0\0\0\0\0\x28" + bytes(4096)) * 64
    tracemalloc.start()
    try:
        for _ in range(256):
            parser.feed(buffer)
            assert parser.held == 0
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert parser.pages == 1 + 64 * 256
    assert peak < 64 << 10


def test_commands_of_a_real_postcopy(stream_named: Named) -> None:
    events = parsed([stream_named("postcopy")], ram_records=False)
    commands = [event.command for event in events if isinstance(event, CommandSeen)]
    assert commands == [
        Command.OPEN_RETURN_PATH,
        Command.PING,
        Command.POSTCOPY_ADVISE,
        Command.SWITCHOVER_START,
        *[Command.POSTCOPY_RAM_DISCARD] * 6,
        Command.PING,
        Command.PACKAGED,
        Command.PING,
    ]
    assert not any(isinstance(event, DeviceStateBegins) for event in events)


def test_a_device_set_up_early_comes_before_guest_memory(stream_named: Named) -> None:
    events = parsed([stream_named("virtio-mem")], ram_records=False)
    early = next(event for event in events if isinstance(event, DeviceSection))
    begins = next(event for event in events if isinstance(event, DeviceStateBegins))
    assert early.name == "0000:00:01.0/virtio-mem-device-early"
    assert early.offset < begins.offset
    assert early.layout is None
    assert [event for event in events if isinstance(event, Description)]


def test_xbzrle_pages_are_seen(stream_named: Named) -> None:
    kinds = [
        event.kind for event in parsed([stream_named("xbzrle")]) if isinstance(event, RamRecord)
    ]
    assert kinds.count(RamRecordKind.XBZRLE) == 16
