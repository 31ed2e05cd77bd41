"""The main channel without I/O: what is passed on, held, changed and refused, however it is cut."""

import random
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from armferry.gateway import Judge, OversizedState, Refused, Session
from armferry.hosts.fingerprints.fingerprint import Fingerprint
from armferry.stream import StreamError, StreamParser, TruncatedStream
from armferry.stream.cpu import read_cpu
from armferry.stream.devices import cut_packaged
from armferry.stream.events import (
    CommandSeen,
    DeviceSection,
    DeviceStateBegins,
    Event,
    SectionBegins,
)
from armferry.stream.wire import Command, SectionType

Recorded = Callable[[str], bytes]
HostOf = Callable[[bytes], Fingerprint]
JudgeOf = Callable[..., Judge]

OLD = "tcg_10.0.2_virt-10.0_cortex-a57_1"
NEW = "tcg_11.1.3_virt-10.0_cortex-a57_1"
LISTED_ONLY_BY_OLD = 0x40200000200E0298


def through(session: Session, pieces: Iterable[bytes]) -> bytes:
    """Everything the session sends for `pieces` and the end."""
    out = b"".join(bytes(part) for piece in pieces for part in session.receive(piece))
    return out + b"".join(session.close())


def cut(stream: bytes, randomness: random.Random, mean: int) -> list[bytes]:
    pieces, at = [], 0
    while at < len(stream):
        step = max(1, int(randomness.expovariate(1 / mean)))
        pieces.append(stream[at : at + step])
        at += step
    return pieces


def events_of(stream: bytes | bytearray) -> list[Event]:
    parser = StreamParser()
    return [*parser.feed(stream), *parser.close()]


def begin_of_state(stream: bytes | bytearray) -> int:
    return next(e.offset for e in events_of(stream) if isinstance(e, DeviceStateBegins))


@pytest.mark.parametrize(
    "name", [OLD, NEW, "switchover-ack", "suppress-vmdesc", "xbzrle", "multifd", "virtio"]
)
def test_equal_hosts_get_every_byte_as_it_came(
    name: str, recorded: Recorded, host_of: HostOf, judge_of: JudgeOf
) -> None:
    stream = recorded(name)
    judge = judge_of(host_of(stream), builtin=False)
    for mean in (7, 333, 10_000, 1 << 20):
        session = Session(judge)
        assert through(session, cut(stream, random.Random(mean), mean)) == stream
        assert session.delivered


@pytest.mark.full
def test_ten_thousand_random_splits_change_nothing(
    recorded: Recorded, host_of: HostOf, judge_of: JudgeOf
) -> None:
    stream = recorded(OLD)
    judge = judge_of(host_of(stream), builtin=False)
    randomness = random.Random(5)
    for _ in range(10_000):
        mean = int(2 ** randomness.uniform(6, 19))
        assert through(Session(judge), cut(stream, randomness, mean)) == stream


def test_splits_never_change_what_is_rewritten(
    recorded: Recorded, host_of: HostOf, judge_of: JudgeOf
) -> None:
    stream = recorded(OLD)
    judge = judge_of(host_of(recorded("switchover-ack")))
    whole = through(Session(judge), [stream])
    assert whole != stream
    for mean in (11, 500, 30_000):
        assert through(Session(judge), cut(stream, random.Random(mean), mean)) == whole


def test_rewritten_state_is_a_stream_with_the_destinations_list(
    recorded: Recorded, host_of: HostOf, judge_of: JudgeOf
) -> None:
    host = host_of(recorded("switchover-ack"))
    sent = through(Session(judge_of(host)), [recorded(OLD)])
    cpus = [
        read_cpu(e) for e in events_of(sent) if isinstance(e, DeviceSection) and e.name == "cpu"
    ]
    assert LISTED_ONLY_BY_OLD not in cpus[0].registers
    assert list(cpus[0].registers) == list(host.cpus[0])


def test_everything_before_the_device_state_leaves_at_once(
    recorded: Recorded, host_of: HostOf, judge_of: JudgeOf
) -> None:
    stream = recorded(OLD)
    begin = begin_of_state(stream)
    session = Session(judge_of(host_of(stream)))
    sent = 0
    for at in range(0, begin, 100):
        sent += sum(map(len, session.receive(stream[at : min(begin, at + 100)])))
        # never more behind than one element that is not whole
        assert sent >= min(begin, at + 100) - 300
    # the first byte of the first device is what ends guest memory
    assert sent + sum(map(len, session.receive(stream[begin : begin + 1]))) == begin
    assert session.holding
    assert session.machine == "virt-10.0"


def test_no_byte_of_the_device_state_leaves_before_all_of_it_has_come(
    recorded: Recorded, host_of: HostOf, judge_of: JudgeOf
) -> None:
    stream = recorded(OLD)
    begin = begin_of_state(stream)
    session = Session(judge_of(host_of(stream)))
    session.receive(stream[: begin + 1])
    for at in range(begin + 1, len(stream) - 1, 97):
        assert session.receive(stream[at : min(at + 97, len(stream) - 1)]) == ()
    assert session.judgement is None
    assert b"".join(session.receive(stream[-1:])) == stream[begin:]
    assert session.delivered
    assert session.passing


def test_refusal_names_the_register_and_sends_nothing_of_the_state(
    recorded: Recorded, host_of: HostOf, judge_of: JudgeOf
) -> None:
    stream = recorded(OLD)
    session = Session(judge_of(host_of(recorded(NEW))))
    sent = b"".join(session.receive(stream[:-1]))
    with pytest.raises(Refused) as refusal:
        session.receive(stream[-1:])
    assert str(refusal.value) == (
        "the move is refused: ID_AA64ISAR0_EL1: the destination does not know it and no rule "
        "allows dropping it; the guest never ran (vCPU 0)"
    )
    assert sent == stream[: begin_of_state(stream)]
    assert not session.delivered
    with pytest.raises(ValueError, match="nothing more may be sent"):
        session.receive(b"x")


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.full), 61])
def test_truncation_anywhere_in_the_device_state_sends_nothing_of_it(
    step: int, recorded: Recorded, host_of: HostOf, judge_of: JudgeOf
) -> None:
    stream = recorded(OLD)
    begin = begin_of_state(stream)
    judge = judge_of(host_of(stream))
    end = next(e.offset for e in events_of(stream) if type(e).__name__ == "EndOfStream")
    for at in range(begin, len(stream), step):
        if at == end + 1:
            continue  # whole: a stream may end here, without its description
        session = Session(judge)
        sent = sum(map(len, session.receive(stream[:at])))
        with pytest.raises(StreamError):
            session.close()
        assert sent == begin, at
        assert not session.delivered


def test_state_without_a_description_is_sent_when_the_source_falls_silent(
    recorded: Recorded, host_of: HostOf, judge_of: JudgeOf
) -> None:
    stream = recorded("suppress-vmdesc")
    session = Session(judge_of(host_of(stream), builtin=False))
    half = begin_of_state(stream) + 5_000
    sent = b"".join(session.receive(stream[:half]))
    assert session.settle() == ()
    sent += b"".join(session.receive(stream[half:]))
    assert session.holding
    sent += b"".join(session.settle())
    assert sent == stream
    assert session.delivered
    assert session.close() == ()


def test_description_that_comes_late_is_rewritten_too(
    recorded: Recorded, host_of: HostOf, judge_of: JudgeOf
) -> None:
    stream = recorded(OLD)
    judge = judge_of(host_of(recorded("switchover-ack")))
    end = next(e.offset for e in events_of(stream) if type(e).__name__ == "EndOfStream")
    session = Session(judge)
    sent = b"".join(session.receive(stream[: end + 1]))
    sent += b"".join(session.settle())
    sent += b"".join(session.receive(stream[end + 1 :]))
    assert sent == through(Session(judge), [stream])
    assert session.passing


def test_settle_outside_the_device_state_does_nothing(
    recorded: Recorded, host_of: HostOf, judge_of: JudgeOf
) -> None:
    session = Session(judge_of(host_of(recorded(OLD))))
    assert session.settle() == ()
    session.receive(recorded(OLD)[:1_000])
    assert session.settle() == ()


def test_package_is_rewritten_and_its_length_with_it(
    recorded: Recorded, host_of: HostOf, judge_of: JudgeOf
) -> None:
    stream = recorded("postcopy")
    package = packages(stream)[0]
    section = next(s for s in cut_packaged(package.payload, 0)[0] if s.name == "cpu")
    own = read_cpu(section).registers
    added = {**own, LISTED_ONLY_BY_OLD: 0x5}
    host = host_of(recorded("switchover-ack"))
    judge = judge_of(
        Fingerprint(host.provenance, (dict(sorted(added.items())),), at_reset=True), builtin=False
    )
    session = Session(judge)
    sent = through(session, cut(stream, random.Random(3), 3_000))
    assert session.packaged
    assert session.postcopy
    assert session.return_path
    rewritten = packages(sent)[0]
    assert len(rewritten.payload) == len(package.payload) + 16
    new = next(s for s in cut_packaged(rewritten.payload, 0)[0] if s.name == "cpu")
    assert read_cpu(new).registers == added
    end = package.offset + 9 + len(package.payload)
    assert sent[: package.offset] == stream[: package.offset]
    assert sent[end + 16 :] == stream[end:]


def test_package_between_equal_hosts_is_passed_on_as_it_came(
    recorded: Recorded, host_of: HostOf, judge_of: JudgeOf
) -> None:
    stream = recorded("postcopy")
    section = next(s for s in cut_packaged(packages(stream)[0].payload, 0)[0] if s.name == "cpu")
    host = host_of(recorded("switchover-ack"))
    equal = Fingerprint(host.provenance, (read_cpu(section).registers,), at_reset=True)
    for mean in (50, 5_000):
        session = Session(judge_of(equal, builtin=False))
        assert through(session, cut(stream, random.Random(mean), mean)) == stream


def packages(stream: bytes) -> list[CommandSeen]:
    return [
        e for e in events_of(stream) if isinstance(e, CommandSeen) and e.command == Command.PACKAGED
    ]


def test_more_device_state_than_the_limit_is_an_error(
    recorded: Recorded, host_of: HostOf, judge_of: JudgeOf
) -> None:
    stream = recorded(OLD)
    session = Session(judge_of(host_of(stream)), state_limit=4_096)
    with pytest.raises(OversizedState) as error:
        through(session, cut(stream, random.Random(1), 1_000))
    assert str(error.value) == (
        "more than 4096 bytes of device state have come; if this guest is that large, raise "
        "--state-limit"
    )
    assert not session.delivered


def test_guest_memory_alone_is_no_migration(
    recorded: Recorded, host_of: HostOf, judge_of: JudgeOf
) -> None:
    stream = recorded(OLD)
    session = Session(judge_of(host_of(stream)))
    session.receive(stream[: begin_of_state(stream)])
    with pytest.raises(TruncatedStream):
        session.close()
    session = Session(judge_of(host_of(stream)))
    with pytest.raises(StreamError) as error:
        session.receive(stream[: begin_of_state(stream)] + b"\0")
    assert str(error.value) == (
        f"the stream ends without device state (at byte {begin_of_state(stream)})"
    )


def test_flipped_bytes_never_give_anything_but_a_stream_error(
    recorded: Recorded, host_of: HostOf, judge_of: JudgeOf
) -> None:
    stream = recorded(OLD)
    judge = judge_of(host_of(stream))
    begin = begin_of_state(stream)
    randomness = random.Random(9)
    for _ in range(60):
        broken = bytearray(stream)
        for _ in range(randomness.randint(1, 4)):
            broken[randomness.randrange(begin, len(broken))] ^= 1 << randomness.randrange(8)
        session = Session(judge)
        try:
            through(session, [bytes(broken)])
        except (StreamError, Refused):
            assert not session.delivered


def test_state_behind_memory_that_has_no_last_section_is_held_too(
    recorded: Recorded, host_of: HostOf, judge_of: JudgeOf
) -> None:
    """As in a background snapshot."""
    stream = bytearray(recorded(OLD))
    begin = begin_of_state(stream)
    last = max(e.offset for e in events_of(stream) if isinstance(e, SectionBegins))
    assert stream[last] == SectionType.LAST
    stream[last] = SectionType.PART
    session = Session(judge_of(host_of(recorded(NEW))))
    sent = b"".join(session.receive(stream[:-1]))
    assert sent == stream[:begin]
    with pytest.raises(Refused):
        session.receive(stream[-1:])


def test_cpu_section_before_guest_memory_goes_nowhere(
    recorded: Recorded, host_of: HostOf, judge_of: JudgeOf
) -> None:
    stream = recorded(OLD)
    memory = next(e.offset for e in events_of(stream) if isinstance(e, SectionBegins))
    cpu = next(e for e in events_of(stream) if isinstance(e, DeviceSection) and e.name == "cpu")
    early = stream[:memory] + stream[cpu.offset : cpu.end + 5] + stream[memory:]
    session = Session(judge_of(host_of(stream)))
    with pytest.raises(StreamError) as error:
        session.receive(early)
    assert str(error.value) == f"a cpu section comes too early (at byte {memory})"


def test_guest_with_other_memory_is_refused_before_a_byte_is_passed_on(
    recorded: Recorded, host_of: HostOf, judge_of: JudgeOf
) -> None:
    stream = recorded(NEW)
    host = host_of(stream)
    assert host.memory is not None
    ram, *others = host.memory
    larger = replace(host, memory=(replace(ram, length=2 * ram.length), *others))
    passed: list[bytes] = []
    session = Session(judge_of(larger))
    with pytest.raises(Refused) as told:
        passed += [bytes(part) for part in session.receive(stream[: 64 << 10])]
    assert str(told.value) == (
        "the move is refused: memory block mach-virt.ram (the board's memory) has 64 MiB here, 128 "
        "MiB on the destination: start the destination with -m 64M; nothing was sent to the "
        "destination"
    )
    assert passed == []
    other = replace(host, provenance=replace(host.provenance, machine="virt-9.2"))
    with pytest.raises(Refused, match=r"machine type is virt-10\.0, the destination was asked"):
        Session(judge_of(other)).receive(stream[: 64 << 10])
