"""Differences beyond the register lists: what is rewritten, what is refused, what is said."""

import pytest

from armferry.decide import Effect, Risk, SectionDifference, compare_sections
from armferry.ends import End, Move
from armferry.policy import NO_RISK, AcceptedRisk
from armferry.registers import Accelerator
from armferry.stream.description import DeviceLayout, FieldLayout, StructLayout

from .moves import NOWHERE, move_of

ARMED = b"\x00\x00\x00\x00\x12\x34\x56\x78"
IDLE = b"\xff" * 8


def part(name: str, *inner: StructLayout) -> StructLayout:
    return StructLayout(name, 1, (FieldLayout("content", "uint64", 8, 1),), inner)


def device(
    name: str, *parts: StructLayout, version: int = 1, field: str = "field", instance: int = 0
) -> DeviceLayout:
    fields = (FieldLayout(field, "uint64", 8, 1),)
    return DeviceLayout(name, instance, version, StructLayout(name, version, fields, parts))


def findings(
    source: DeviceLayout,
    *destination: DeviceLayout,
    content: dict[str, bytes] | None = None,
    accepted: AcceptedRisk = NO_RISK,
    fresh: bool = False,
    features: int | None = None,
    qemu: str = "10.0.13",
) -> tuple[SectionDifference, ...]:
    move = move_of(
        [{}],
        NOWHERE,
        source=(source,),
        destination=destination,
        contents=() if content is None else (content,),
        fresh=fresh,
        features=features,
        qemu=qemu,
    )
    return compare_sections(move, accepted)


def told(found: tuple[SectionDifference, ...]) -> list[tuple[Effect, Risk, str]]:
    return [(finding.effect, finding.risk, str(finding)) for finding in found]


TIMER = device("cpu", part("cpu/wfxt-timer"))
CPU = device("cpu")


def test_nothing_is_said_of_equal_sections() -> None:
    assert findings(TIMER, TIMER) == ()
    assert findings(CPU, TIMER) == ()


def test_nothing_is_said_without_layouts() -> None:
    assert compare_sections(move_of([{}], NOWHERE, source=(CPU,)), NO_RISK) == ()


def test_subsection_at_reset_is_left_out() -> None:
    assert told(findings(TIMER, CPU, content={"cpu/wfxt-timer": IDLE})) == [
        (
            Effect.REWRITTEN,
            Risk.LOSSLESS,
            (
                "section 'cpu' instance 0, cpu/wfxt-timer: the destination does not accept it; "
                "left out: it is as after reset, so nothing is lost"
            ),
        )
    ]
    zeros = findings(device("cpu", part("cpu/fpmr")), CPU, content={"cpu/fpmr": bytes(8)})
    assert [finding.risk for finding in zeros] == [Risk.LOSSLESS]


def test_subsection_of_a_fresh_guest_is_left_out() -> None:
    assert told(findings(TIMER, CPU, fresh=True)) == [
        (
            Effect.REWRITTEN,
            Risk.LOSSLESS,
            (
                "section 'cpu' instance 0, cpu/wfxt-timer: the destination does not accept it; "
                "left out: the guest never ran, so nothing is lost"
            ),
        )
    ]


def test_subsection_in_use_is_refused_until_it_is_named() -> None:
    content = {"cpu/wfxt-timer": ARMED}
    assert told(findings(TIMER, CPU, content=content)) == [
        (
            Effect.REFUSED,
            Risk.LOSSY,
            (
                "section 'cpu' instance 0, cpu/wfxt-timer: the destination does not accept it "
                "and it holds 0000000012345678; not left out unless you name it (--accept-risk "
                "cpu/wfxt-timer)"
            ),
        )
    ]
    named = AcceptedRisk(subsections=frozenset({"cpu/wfxt-timer"}))
    lost = "left out: it holds 0000000012345678, which is lost"
    for accepted in (named, AcceptedRisk(lossy=True)):
        assert told(findings(TIMER, CPU, content=content, accepted=accepted)) == [
            (
                Effect.REWRITTEN,
                Risk.LOSSY,
                (
                    "section 'cpu' instance 0, cpu/wfxt-timer: the destination does not accept it; "
                    f"{lost}"
                ),
            )
        ]


def test_subsection_that_the_release_knows_is_carried() -> None:
    guest = device("cpu", part("cpu/serror"), part("cpu/fpmr"))
    content = {"cpu/serror": ARMED, "cpu/fpmr": ARMED}
    assert findings(guest, CPU, content=content, qemu="11.1.3") == ()
    unknown = findings(guest, CPU, content=content, qemu="")
    assert [finding.subject for finding in unknown] == ["cpu/fpmr"]


def test_zeros_are_no_proof_where_a_fresh_guest_sends_nothing() -> None:
    event = device("cpu", part("cpu/event"))
    (found,) = findings(event, CPU, content={"cpu/event": bytes(1)})
    assert (found.effect, found.risk) == (Effect.REFUSED, Risk.LOSSY)


def test_part_of_a_subsection_cannot_be_left_out() -> None:
    guest = device("cpu", part("cpu/vfp", part("cpu/vfp/fpcr_fpsr")))
    assert told(findings(guest, CPU, qemu="7.2.22")) == [
        (
            Effect.REFUSED,
            Risk.NONE,
            (
                "section 'cpu' instance 0, cpu/vfp/fpcr_fpsr: the destination does not know it, "
                "and it is a part of cpu/vfp"
            ),
        )
    ]
    assert findings(guest, CPU, qemu="10.0.13") == ()


def test_features_word() -> None:
    believing = device("cpu", field="env.features")
    assert told(findings(CPU, believing, features=0x73F0EF179)) == [
        (
            Effect.REWRITTEN,
            Risk.LOSSLESS,
            (
                "section 'cpu' instance 0, env.features: this QEMU takes env.features from the "
                "stream; the destination's value 0x73f0ef179 is sent"
            ),
        )
    ]
    assert told(findings(CPU, believing)) == [
        (
            Effect.REFUSED,
            Risk.NONE,
            (
                "section 'cpu' instance 0, env.features: this QEMU takes env.features from the "
                "stream, and its own is not known; make its fingerprint again"
            ),
        )
    ]
    assert findings(believing, believing, features=1) == ()
    assert findings(believing, CPU) == ()
    ferried = move_of(
        [{}],
        NOWHERE,
        source=(CPU,),
        destination=(believing,),
        words=(0x73F0EF179,),
        features=0x73F0EF179,
    )
    assert compare_sections(ferried, NO_RISK) == ()


def test_vcpu_without_a_record_is_like_the_first() -> None:
    third = device("cpu", part("cpu/wfxt-timer"), instance=2)
    assert [finding.instance for finding in findings(third, CPU, fresh=True)] == [2]


def test_second_half_of_a_vcpu_is_like_the_first_too() -> None:
    assert findings(device("cpu_common", instance=2), device("cpu_common")) == ()


def test_record_of_vcpus_says_nothing_of_devices() -> None:
    assert findings(device("pl031"), CPU) == ()


def with_fields(name: str, **lengths: int) -> DeviceLayout:
    fields = tuple(FieldLayout(field, "buffer", length, 1) for field, length in lengths.items())
    return DeviceLayout(name, 0, 1, StructLayout(name, 1, fields, ()))


def test_fields_of_another_length_are_named() -> None:
    guest, host = with_fields("pl061", data=4, clock=8), with_fields("pl061", data=4, level=2)
    words = (
        "section 'pl061' instance 0: its fields take 12 bytes, those of the destination 6 "
        "(clock, level) in the same version; only its QEMU knows whether it reads them"
    )
    for fresh in (True, False):
        assert told(findings(guest, host, fresh=fresh)) == [(Effect.UNCERTAIN, Risk.NONE, words)]


def test_fields_that_were_only_renamed_are_none() -> None:
    assert findings(with_fields("pl011", buff=4), with_fields("pl011", unused=4), fresh=True) == ()


def test_as_many_elements_as_the_guest_made_are_none() -> None:
    guest, host = with_fields("fifo", data=9), with_fields("fifo", data=3)
    assert findings(guest, host) == ()
    words = (
        "section 'fifo' instance 0: its fields take 9 bytes, those of the destination 3 (data) "
        "in the same version; only its QEMU knows whether it reads them"
    )
    assert told(findings(guest, host, fresh=True)) == [(Effect.UNCERTAIN, Risk.NONE, words)]


def test_registers_do_not_count_as_fields_of_the_cpu() -> None:
    guest = with_fields("cpu", cpreg_vmstate_indexes=80, cpreg_vmstate_values=80, power_state=1)
    host = with_fields("cpu", cpreg_vmstate_indexes=16, cpreg_vmstate_values=16, power_state=1)
    assert findings(guest, host, fresh=True) == ()
    odd = with_fields("cpu", cpreg_vmstate_indexes=16, cpreg_vmstate_values=16, power_state=4)
    assert [finding.effect for finding in findings(odd, host, fresh=True)] == [Effect.UNCERTAIN]
    assert findings(with_fields("cpu"), host, fresh=True) == ()  # nobody described it


@pytest.mark.parametrize(
    ("guest", "host", "fresh", "effect", "text"),
    [
        (
            device("pl031"),
            device("pl011"),
            False,
            Effect.REFUSED,
            (
                "section 'pl031' instance 0: the guest has this device, the destination has not; "
                "start the destination with the same devices"
            ),
        ),
        (
            device("pl061", version=5),
            device("pl061", version=4),
            False,
            Effect.REFUSED,
            "section 'pl061' instance 0: it comes in version 5, the destination reads 4 at most",
        ),
        (
            device("pl061", version=3),
            device("pl061", version=4),
            False,
            Effect.UNCERTAIN,
            (
                "section 'pl061' instance 0: it comes in version 3, the destination writes 4; "
                "only its QEMU knows whether it still reads the older one"
            ),
        ),
        (
            device("pl011", part("pl011/other")),
            device("pl011"),
            True,
            Effect.REFUSED,
            (
                "section 'pl011' instance 0, pl011/other: the destination, in the same state, "
                "does not write this subsection, so it does not know it; only the CPU's own "
                "subsections can be left out"
            ),
        ),
        (
            device("pl011", part("pl011/other")),
            device("pl011"),
            False,
            Effect.UNCERTAIN,
            (
                "section 'pl011' instance 0, pl011/other: the destination's record lacks this "
                "subsection; QEMU writes some only while a device needs them, so it may know it "
                "all the same"
            ),
        ),
    ],
)
def test_other_devices(
    guest: DeviceLayout, host: DeviceLayout, fresh: bool, effect: Effect, text: str
) -> None:
    assert told(findings(guest, host, fresh=fresh)) == [(effect, Risk.NONE, text)]


NMI = "arm_gicv3/gicd_nmi"


@pytest.mark.parametrize(
    ("qemu", "content", "accepted", "told_"),
    [
        ("10.0.13", b"\1", False, None),
        ("7.2.22", bytes(4), False, (Effect.REWRITTEN, Risk.LOSSLESS)),
        ("7.2.22", b"\0\1", False, (Effect.REFUSED, Risk.LOSSY)),
        ("7.2.22", b"\0\1", True, (Effect.REWRITTEN, Risk.LOSSY)),
        ("7.2.22", None, False, (Effect.REFUSED, Risk.NONE)),
    ],
)
def test_a_subsection_of_a_device_that_a_release_was_measured_not_to_know(
    qemu: str, content: bytes | None, accepted: bool, told_: tuple[Effect, Risk] | None
) -> None:
    gic = device("arm_gicv3", part(NMI))
    parts = {} if content is None else {("arm_gicv3", 0, NMI): content}
    guest = End("G", ({},), Accelerator.TCG, False, guest=True, devices=(gic,), parts=parts)
    host = End("H", ({},), Accelerator.TCG, True, devices=(device("arm_gicv3"),))
    names = frozenset({NMI} if accepted else ())
    found = compare_sections(Move.between(guest, host, qemu=qemu), AcceptedRisk(subsections=names))
    assert [(one.effect, one.risk) for one in found] == ([] if told_ is None else [told_])
    assert all(one.subject == NMI for one in found)


@pytest.mark.parametrize(
    ("name", "instance", "added"),
    [
        ("0000:00:01.0/virtio-blk", 0, True),
        ("slirp", 0, True),
        ("ramfb-dev", 0, True),
        ("PCIBUS", 1, True),
        ("PCIBUS", 0, False),
        ("pl011", 0, False),
    ],
)
def test_a_record_of_the_bare_board_says_nothing_of_what_is_added(
    name: str, instance: int, added: bool
) -> None:
    """A user network (Multipass, UTM, Lima) and the bus behind a PCI bridge have no place."""
    found = findings(device(name, instance=instance), CPU, device("timer"))
    assert [one.effect for one in found] == ([] if added else [Effect.REFUSED])


def test_a_subsection_that_both_ends_write_is_no_difference() -> None:
    assert findings(*[device("pl011", part("pl011/other"))] * 2, fresh=True) == ()


def banked(*inside: StructLayout) -> DeviceLayout:
    """A device of two banks, each with a line that holds subsections."""
    line = StructLayout("line", 1, (FieldLayout("level", "uint64", 8, 1),), inside)
    bank = StructLayout("bank", 1, (FieldLayout("line", "struct", line.length, 1, line),), ())
    fields = (FieldLayout("bank", "struct", bank.length, 2, bank),)
    return DeviceLayout("pl011", 0, 1, StructLayout("pl011", 1, fields, ()))


def test_a_subsection_inside_structures_is_named_and_is_no_longer_field() -> None:
    (found,) = findings(banked(part("line/edge")), banked(), fresh=True)
    assert (found.effect, found.subject) == (Effect.REFUSED, "line/edge")
    assert findings(*[banked(part("line/edge"))] * 2, fresh=True) == ()
