"""What stands around the register lists: each difference with what is said of it, to the letter."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from armferry.decide import Circumstance, Risk, Weight, compare_circumstances
from armferry.decide.circumstance import CircumstanceKind
from armferry.ends import UNKNOWN, End, HostFacts, Move
from armferry.policy import EMPTY, AcceptedRisk, from_options
from armferry.registers import Accelerator, parse_register
from armferry.stream.description import DeviceLayout, FieldLayout, StructLayout

KVM, TCG = Accelerator.KVM, Accelerator.TCG
MIDR, ZCR, VLS = (parse_register(name) for name in ("MIDR_EL1", "ZCR_EL1", "SVE_VLS"))
N1, N1_NEWER, A64FX = 0x413FD0C1, 0x414FD0C1, 0x461F0010
SVE = {MIDR: N1, ZCR: 0}
HIGH = HostFacts(counter_hz=62_500_000)
LOW = HostFacts(counter_hz=25_000_000)
LONG = HostFacts(sve_bits=frozenset({128, 256, 512}))
SHORT = HostFacts(sve_bits=frozenset({128, 256}))
NO_SVE = HostFacts(sve_bits=frozenset())


def device(name: str) -> DeviceLayout:
    fields = (FieldLayout("field", "uint64", 8, 1),)
    return DeviceLayout(name, 0, 1, StructLayout(name, 1, fields, ()))


def move(
    here: HostFacts | None = None,
    there: HostFacts | None = None,
    *,
    registers: Mapping[int, int] | None = None,
    host_registers: Mapping[int, int] | None = None,
    accelerator: Accelerator = KVM,
    fresh: bool = False,
    devices: tuple[str, ...] = ("pl011",),
    vectors: bytes = b"",
) -> Move:
    registers = registers or {MIDR: N1}
    guest = End(
        "GUEST",
        (registers,),
        accelerator,
        fresh,
        guest=True,
        machine="virt-10.0",
        devices=tuple(map(device, devices)),
        contents=({"cpu/sve": vectors},) if vectors else (),
        memory=(),
        host=here or HostFacts(),
    )
    host = End(
        "HOST",
        (host_registers or registers,),
        accelerator,
        True,
        whole=True,
        machine="virt-10.0",
        devices=tuple(map(device, devices)),
        memory=(),
        host=there or HostFacts(),
    )
    return Move.between(guest, host)


def found(
    of: Move, kind: CircumstanceKind, accepted: AcceptedRisk = EMPTY.accepted
) -> list[Circumstance]:
    return [one for one in compare_circumstances(of, accepted) if one.kind is kind]


def words(of: Move, kind: CircumstanceKind) -> list[tuple[str, Weight, str]]:
    return [(one.subject, one.weight, str(one)) for one in found(of, kind)]


# -- the accelerator and the machine type


@pytest.mark.parametrize("ends", [(Accelerator.WHPX, KVM), (KVM, Accelerator.WHPX)])
def test_a_guest_of_whpx_is_not_moved(ends: tuple[Accelerator, Accelerator]) -> None:
    one = move()
    source = replace(one.source, accelerator=ends[0])
    found = compare_circumstances(
        Move.between(source, replace(one.destination, accelerator=ends[1])), EMPTY.accepted
    )
    assert [(circumstance.subject, circumstance.weight) for circumstance in found] == [
        ("whpx", Weight.REFUSED)
    ]
    assert str(found[0]).startswith("a guest under WHPX cannot be moved at all")


def test_between_accelerators_that_alone_is_said() -> None:
    one = move(HIGH, LOW)
    (only,) = compare_circumstances(
        Move.between(replace(one.source, accelerator=TCG), one.destination), EMPTY.accepted
    )
    assert (only.kind, only.subject) == (CircumstanceKind.ACCELERATOR, "tcg to kvm")
    assert "start the destination with -accel tcg" in str(only)


def test_the_machine_type_is_compared_where_both_are_known() -> None:
    one = move()
    for here, there, count in (
        ("virt-9.2", "virt-10.0", 1),
        ("virt-9.2", "virt-9.2", 0),
        ("virt-9.2", UNKNOWN, 0),
        (UNKNOWN, "virt-9.2", 0),
    ):
        other = Move.between(
            replace(one.source, machine=here), replace(one.destination, machine=there)
        )
        said = words(other, CircumstanceKind.MACHINE)
        assert len(said) == count
    other = Move.between(
        replace(one.source, machine="virt-9.2"), replace(one.destination, machine="virt-10.0")
    )
    assert words(other, CircumstanceKind.MACHINE) == [
        (
            "virt-9.2",
            Weight.REFUSED,
            (
                "the guest's machine type is virt-9.2, the destination was asked about "
                "virt-10.0: QEMU loads a guest only into its own machine type; make the "
                "fingerprint of the destination with --machine virt-9.2"
            ),
        )
    ]


def test_vcpus_count_where_the_destination_is_the_guests_own() -> None:
    one = move()
    four = replace(one.source, cpus=one.source.cpus * 4)
    assert words(Move.between(four, one.destination), CircumstanceKind.VCPUS) == [
        ("4", Weight.REFUSED, "the guest has 4 vCPUs, the destination 1: start it with -smp 4")
    ]
    kind = replace(one.destination, whole=False)
    assert words(Move.between(four, kind), CircumstanceKind.VCPUS) == []
    assert words(one, CircumstanceKind.VCPUS) == []


# -- the host


def test_the_interrupt_controller_is_one_that_kvm_can_give() -> None:
    host = HostFacts(gic=frozenset({2}), its=False)
    one = move(there=host, devices=("arm_gicv3", "arm_gicv3_its"))
    assert [(s, w) for s, w, _ in words(one, CircumstanceKind.GIC)] == [
        ("GICv3", Weight.REFUSED),
        ("ITS", Weight.REFUSED),
    ]
    (gic, its) = (text for _, _, text in words(one, CircumstanceKind.GIC))
    assert gic.startswith("the guest has a GICv3 (-machine gic-version=3), the KVM of HOST cannot")
    assert "only GICv2: move the guest" in gic
    assert its == ("the guest has an ITS (-machine its=on), the KVM of HOST cannot give one")


@pytest.mark.parametrize(
    ("host", "devices", "given"),
    [
        (HostFacts(gic=frozenset()), ("arm_gic",), "only none"),
        (HostFacts(gic=frozenset({3, 4})), ("arm_gic",), "only GICv3 and GICv4"),
        (HostFacts(gic=frozenset({2, 3}), its=True), ("arm_gic", "arm_gicv3_its"), ""),
        (HostFacts(), ("arm_gic", "arm_gicv3_its"), ""),
        (HostFacts(gic=frozenset({3})), ("pl011",), ""),
    ],
)
def test_which_controllers_are_refused(
    host: HostFacts, devices: tuple[str, ...], given: str
) -> None:
    said = words(move(there=host, devices=devices), CircumstanceKind.GIC)
    assert len(said) == bool(given)
    assert all(given in text for _, _, text in said)
    # QEMU emulates any
    emulated = move(there=host, devices=devices, accelerator=TCG)
    assert words(emulated, CircumstanceKind.GIC) == []


def test_another_cpu_and_another_revision_are_noted() -> None:
    same = move(registers={MIDR: N1})
    assert words(same, CircumstanceKind.CPU) == []
    revision = move(registers={MIDR: N1}, host_registers={MIDR: N1_NEWER})
    assert words(revision, CircumstanceKind.CPU) == [
        (
            "Arm Neoverse N1 r4p1",
            Weight.NOTED,
            "another revision of the same CPU: Arm Neoverse N1 r3p1 -> Arm Neoverse N1 r4p1",
        )
    ]
    other = move(registers={MIDR: N1}, host_registers={MIDR: A64FX})
    ((subject, weight, text),) = words(other, CircumstanceKind.CPU)
    assert (subject, weight) == ("Fujitsu A64FX r1p0", Weight.NOTED)
    assert text.startswith("two different CPUs: Arm Neoverse N1 r3p1 -> Fujitsu A64FX r1p0. ")
    # the same part number of another maker is another CPU
    maker = move(registers={MIDR: N1}, host_registers={MIDR: N1 ^ 1 << 24})
    assert words(maker, CircumstanceKind.CPU)[0][2].startswith("two different CPUs")
    for one in (
        move(registers={ZCR: 0}, host_registers={MIDR: N1}),
        move(registers={MIDR: N1}, host_registers={ZCR: 0}),
    ):
        assert words(one, CircumstanceKind.CPU) == []


def test_a_counter_of_another_frequency() -> None:
    (seen,) = found(move(HIGH, LOW), CircumstanceKind.COUNTER)
    assert (seen.subject, seen.weight, seen.risk) == ("25 MHz", Weight.REFUSED, Risk.GUEST_VISIBLE)
    assert str(seen) == (
        "the counter runs at 62.5 MHz here and at 25 MHz on the destination (CNTFRQ_EL0): the "
        "guest read it at boot, so its clocks will run 0.4 times as fast; nothing can be sent "
        "that changes this; not done unless you name it (--accept-risk CNTFRQ_EL0 or "
        "guest-visible)"
    )
    odd = move(HIGH, HostFacts(counter_hz=24_000_001))
    assert found(odd, CircumstanceKind.COUNTER)[0].subject == "24000001 Hz"
    fresh = move(HIGH, LOW, fresh=True)
    assert words(fresh, CircumstanceKind.COUNTER) == [
        (
            "25 MHz",
            Weight.NOTED,
            (
                "the counter runs at 62.5 MHz here and at 25 MHz on the destination; the guest "
                "never ran, so it reads the destination's"
            ),
        )
    ]
    for here, there in ((HIGH, HIGH), (HIGH, HostFacts()), (HostFacts(), LOW)):
        assert found(move(here, there), CircumstanceKind.COUNTER) == []


@pytest.mark.parametrize(
    ("risks", "weight"),
    [
        ([], Weight.REFUSED),
        (["CNTFRQ_EL0"], Weight.ACCEPTED),
        (["guest-visible"], Weight.ACCEPTED),
        (["lossy"], Weight.ACCEPTED),
        (["MIDR_EL1"], Weight.REFUSED),
        (["breaks"], Weight.REFUSED),
    ],
)
def test_who_may_accept_another_frequency(risks: list[str], weight: Weight) -> None:
    accepted = from_options(accept_risk=risks).accepted
    (seen,) = found(move(HIGH, LOW), CircumstanceKind.COUNTER, accepted)
    assert (seen.weight, seen.risk) == (weight, Risk.GUEST_VISIBLE)
    assert ("not done unless" in str(seen)) is (weight is Weight.REFUSED)


# -- vectors: 32 of 112 bytes beyond the first 128 bits, then 16 predicates and FFR of 32 bytes

Z, P = 112, 32
EMPTY_VECTORS = bytes(32 * Z + 17 * P)


def vectors(*places: int) -> bytes:
    content = bytearray(EMPTY_VECTORS)
    for place in places:
        content[place] = 1
    return bytes(content)


def test_shorter_vectors_that_hold_nothing_beyond() -> None:
    one = move(LONG, SHORT, registers=SVE, vectors=EMPTY_VECTORS)
    (seen,) = found(one, CircumstanceKind.VECTORS)
    assert (seen.subject, seen.weight, seen.risk) == ("SVE", Weight.REFUSED, Risk.GUEST_VISIBLE)
    assert str(seen) == (
        "the destination's SVE vectors have 128 or 256 bits, the source's 512 too: nothing is in "
        "the vectors beyond, but the guest chose its length at boot; not done unless you name it "
        "(--accept-risk SVE_VLS or guest-visible)"
    )
    for text, weight in (("SVE_VLS", Weight.ACCEPTED), ("guest-visible", Weight.ACCEPTED)):
        accepted = from_options(accept_risk=[text]).accepted
        assert found(one, CircumstanceKind.VECTORS, accepted)[0].weight is weight
    fresh = move(LONG, SHORT, registers=SVE, vectors=EMPTY_VECTORS, fresh=True)
    assert words(fresh, CircumstanceKind.VECTORS) == [
        (
            "SVE",
            Weight.NOTED,
            (
                "the destination's SVE vectors have 128 or 256 bits, the source's 512 too; the "
                "guest never ran, so it finds the destination's"
            ),
        )
    ]


@pytest.mark.parametrize(
    ("there", "places", "names"),
    [
        (SHORT, (16,), "Z0"),
        (SHORT, (Z - 1, 31 * Z + 16), "Z0, Z31"),
        (SHORT, (32 * Z + 4,), "P0"),
        (SHORT, (32 * Z + 15 * P + 4, 32 * Z + 16 * P + 31), "P15, FFR"),
        (NO_SVE, (0, 32 * Z), "Z0, P0"),
    ],
)
def test_what_vectors_hold_beyond_is_lost(
    there: HostFacts, places: tuple[int, ...], names: str
) -> None:
    one = move(LONG, there, registers=SVE, vectors=vectors(*places))
    (seen,) = found(one, CircumstanceKind.VECTORS)
    assert (seen.weight, seen.risk) == (Weight.REFUSED, Risk.LOSSY)
    holds = "hold" if ", " in names else "holds"
    lost = f": {names} of vCPU 0 {holds} something beyond, which is lost; not done unless"
    assert lost in str(seen)
    visible = from_options(accept_risk=["guest-visible"]).accepted
    assert found(one, CircumstanceKind.VECTORS, visible)[0].weight is Weight.REFUSED
    lossy = from_options(accept_risk=["lossy"]).accepted
    assert found(one, CircumstanceKind.VECTORS, lossy)[0].weight is Weight.ACCEPTED


@pytest.mark.parametrize("place", [0, 15, Z, 32 * Z + 3, 32 * Z + 16 * P])
def test_what_fits_into_256_bits_is_not_beyond(place: int) -> None:
    one = move(LONG, SHORT, registers=SVE, vectors=vectors(place))
    assert found(one, CircumstanceKind.VECTORS)[0].risk is Risk.GUEST_VISIBLE


def test_vectors_are_lost_though_the_sources_lengths_are_not_known() -> None:
    one = move(None, SHORT, registers=SVE, vectors=vectors(16))
    assert str(found(one, CircumstanceKind.VECTORS)[0]).startswith(
        "the destination's SVE vectors have 128 or 256 bits: Z0 of vCPU 0"
    )
    assert found(move(None, NO_SVE, registers=SVE), CircumstanceKind.VECTORS) == []
    none = move(LONG, NO_SVE, registers=SVE)
    assert "the destination's SVE vectors have no bits" in str(
        found(none, CircumstanceKind.VECTORS)[0]
    )


def test_vectors_do_not_matter_without_sve_or_where_they_are_as_long() -> None:
    for one in (
        move(LONG, SHORT, vectors=vectors(16)),
        move(LONG, LONG, registers=SVE, vectors=vectors(16)),
        move(SHORT, LONG, registers=SVE),
        move(LONG, None, registers=SVE),
        move(None, SHORT, registers=SVE, vectors=b"\1" * 7),  # in a form that is not known
    ):
        assert found(one, CircumstanceKind.VECTORS) == []


def test_a_host_with_two_kinds_of_cores() -> None:
    cores = {N1: (0, 1, 2, 3), A64FX: (4, 6)}
    ((subject, weight, text),) = words(move(there=HostFacts(cores=cores)), CircumstanceKind.CORES)
    assert (subject, weight) == ("2", Weight.NOTED)
    assert text.startswith(
        "HOST has 2 kinds of cores (Arm Neoverse N1 r3p1: processors 0-3; Fujitsu A64FX r1p0: "
        "processors 4,6): KVM runs a guest on one kind only"
    )
    for one in (
        move(there=HostFacts(cores={N1: (0, 1)})),
        move(there=HostFacts()),
        move(there=HostFacts(cores=cores), accelerator=TCG),
    ):
        assert found(one, CircumstanceKind.CORES) == []


# -- what is not known


@pytest.mark.parametrize(
    ("here", "there", "registers", "said"),
    [
        (HIGH, HIGH, None, ""),
        (HIGH, None, None, "the counter's frequency (HOST)"),
        (None, HIGH, None, "the counter's frequency (GUEST)"),
        (None, None, None, "the counter's frequency (GUEST and HOST)"),
        (HIGH, HIGH, SVE, "the vector lengths of SVE (GUEST and HOST)"),
        (
            replace(HIGH, sve_bits=frozenset({128})),
            HIGH,
            SVE,
            "the vector lengths of SVE (HOST)",
        ),
        (
            replace(HIGH, sve_bits=frozenset({128})),
            replace(LOW, sve_bits=frozenset({128})),
            SVE,
            "",
        ),
    ],
)
def test_what_was_not_recorded_is_said(
    here: HostFacts | None,
    there: HostFacts | None,
    registers: Mapping[int, int] | None,
    said: str,
) -> None:
    texts = words(move(here, there, registers=registers), CircumstanceKind.UNRECORDED)
    expected = [("", Weight.UNKNOWN, f"not compared, for it was not recorded: {said}")]
    assert texts == (expected if said else [])


def test_memory_that_was_not_recorded_and_lists_of_others_are_said() -> None:
    one = move(HIGH, HIGH)
    other = Move.between(
        replace(one.source, memory=UNKNOWN), replace(one.destination, partial=True)
    )
    assert words(other, CircumstanceKind.UNRECORDED) == [
        (
            "",
            Weight.UNKNOWN,
            (
                "not compared, for it was not recorded: the memory blocks (GUEST), registers "
                "that HOST leaves out, if any"
            ),
        )
    ]


def test_machine_and_devices_that_were_not_recorded_are_said() -> None:
    one = move(HIGH, HIGH)
    other = Move.between(replace(one.source, devices=()), replace(one.destination, machine=UNKNOWN))
    assert words(other, CircumstanceKind.UNRECORDED)[0][2] == (
        "not compared, for it was not recorded: the machine type (HOST), the devices and the "
        "parts of a vCPU's state (GUEST)"
    )


def test_devices_that_the_record_lacks_are_not_compared() -> None:
    one = move(HIGH, HIGH, devices=("cpu", "pl011", "0000:00:01.0/virtio-net"))
    kind = replace(one.destination, whole=False, devices=(device("cpu"), device("pl011")))
    said = words(Move.between(one.source, kind), CircumstanceKind.DEVICES)
    assert [(subject, weight) for subject, weight, _ in said] == [
        ("0000:00:01.0/virtio-net", Weight.NOTED)
    ]
    assert said[0][2].startswith("HOST was made without the guest's devices, so these are not")
    assert words(one, CircumstanceKind.DEVICES) == []
    assert words(Move.between(one.source, one.destination), CircumstanceKind.DEVICES) == []
