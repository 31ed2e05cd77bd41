"""What two hosts give beside the register list: counter, vectors, pages, kinds of cores."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from armferry.decide import Answer, Risk, Verdict, judge, make_plan
from armferry.ends import UNKNOWN, End, HostFacts, Move
from armferry.policy import EMPTY, Policy, parse_accepted
from armferry.registers import Accelerator
from armferry.stream.events import RamBlock

MIDR, ZCR, SMCR, SVCR, FREQUENCY = (
    0x6030_0000_0013_0000 + low for low in (0xC000, 0xC090, 0xC096, 0xDA12, 0xDF00)
)
PSCI = 0x6030_0000_0014_0000
KVM = {MIDR: 0x413FD0C1, PSCI: 0x10001}
SVE = {**KVM, ZCR: 1}  # the guest runs with 256 bits
SME = {**KVM, SMCR: 3, SVCR: 0}  # with 512
Z_BYTES, PARTS = 112, 32 * 112 + 17 * 32
ZA = 256 * 256


def guest(
    registers: Mapping[int, int] = KVM,
    *,
    parts: Mapping[str, bytes] | None = None,
    fresh: bool = False,
    memory: Sequence[RamBlock] | None = None,
) -> End:
    return End(
        "GUEST",
        (registers,),
        Accelerator.KVM,
        at_reset=fresh,
        guest=True,
        whole=True,
        contents=({} if parts is None else parts,),
        memory=UNKNOWN if memory is None else tuple(memory),
    )


def host(text: str, registers: Mapping[int, int] = KVM, **facts: Any) -> End:
    return End(text, (registers,), Accelerator.KVM, True, host=HostFacts(**facts))


def verdict(source: End, here: End, there: End, policy: Policy = EMPTY) -> Verdict:
    return judge(Move.between(source, there, host=here), policy)


def accepting(*words: str) -> Policy:
    return Policy(accepted=parse_accepted(words))


def filled(at: int, length: int = PARTS) -> bytes:
    return bytes(at) + b"\1" + bytes(length - at - 1)


def test_clock_of_another_counter_runs_wrong() -> None:
    here, there = (host(one, counter_hz=hz) for one, hz in (("A", 25_000_000), ("B", 10**9)))
    said = verdict(guest(), here, there)
    assert said.answer is Answer.FAILS
    assert said.obstacles == (
        (
            "the counter runs at 25 MHz here and at 1000 MHz on the destination (CNTFRQ_EL0): the "
            "guest read it at boot, so its clocks will run 40 times as fast; nothing can be sent "
            "that changes this; not done unless you name it (--accept-risk CNTFRQ_EL0 or "
            "guest-visible)"
        ),
    )
    for policy in (accepting("CNTFRQ_EL0"), accepting("guest-visible")):
        allowed = verdict(guest(), here, there, policy)
        assert (allowed.obstacles, allowed.risk) == ((), Risk.GUEST_VISIBLE)
    fresh = verdict(guest(fresh=True), here, there)
    assert (fresh.answer, fresh.risk) == (Answer.WORKS, Risk.NONE)
    assert "the guest never ran, so it reads the destination's" in "".join(fresh.notes)


def test_counter_that_only_one_side_recorded_is_unknown() -> None:
    said = verdict(guest(), host("A"), host("B", counter_hz=10**9))
    assert "the counter's frequency (GUEST)" in said.notes[-1]


def test_plan_accepts_what_can_be_accepted_around_the_registers() -> None:
    here, there = (host(one, counter_hz=hz) for one, hz in (("A", 25_000_000), ("B", 10**9)))
    move = Move.between(guest(), there, host=here)
    plan = make_plan(move, EMPTY)
    assert plan.works
    ((entry),) = plan.entries
    assert (entry.index, entry.action, entry.risk) == (FREQUENCY, "accept-risk", Risk.GUEST_VISIBLE)
    assert judge(move, plan.policy).answer is Answer.WORKS_WITH_POLICY


@pytest.mark.parametrize(
    ("at", "names"),
    [
        (31 * Z_BYTES + 16, "Z31 of vCPU 0 holds"),
        (32 * Z_BYTES + 4, "P0 of vCPU 0 holds"),
        (32 * Z_BYTES + 16 * 32 + 31, "FFR of vCPU 0 holds"),
    ],
)
def test_vector_that_the_destination_cuts_off_is_lost(at: int, names: str) -> None:
    here = host("A", SVE, sve_bits=frozenset({128, 256, 512}))
    there = host("B", SVE, sve_bits=frozenset({128, 256}))
    source = guest(SVE, parts={"cpu/sve": filled(at)})
    said = verdict(source, here, there)
    assert said.obstacles == (
        (
            f"the destination's SVE vectors have 128 or 256 bits, the source's 512 too: {names} "
            "something beyond, which is lost; not done unless you name it (--accept-risk SVE_VLS "
            "or lossy)"
        ),
    )
    assert verdict(source, here, there, accepting("guest-visible")).answer is Answer.FAILS
    allowed = verdict(source, here, there, accepting("SVE_VLS"))
    assert (allowed.answer, allowed.risk) == (Answer.WORKS_WITH_POLICY, Risk.LOSSY)
    # of a source that nobody recorded the content tells all the same
    assert verdict(source, host("A", SVE), there).answer is Answer.FAILS


@pytest.mark.parametrize("at", [0, 31 * Z_BYTES + 15, 32 * Z_BYTES + 3])
def test_vectors_within_the_shorter_length_are_kept(at: int) -> None:
    here = host("A", SVE, sve_bits=frozenset({128, 256, 512}))
    there = host("B", SVE, sve_bits=frozenset({128, 256}))
    said = verdict(guest(SVE, parts={"cpu/sve": filled(at)}), here, there)
    assert (said.answer, said.risk) == (Answer.FAILS, Risk.GUEST_VISIBLE)
    assert "nothing is in the vectors beyond" in said.obstacles[0]


def test_length_that_the_guest_chose_is_another_one_there() -> None:
    every = {**SVE, ZCR: 0xF}  # as long as there are
    here, there = (host(one, every, sve_bits=frozenset(bits)) for one, bits in LONGER)
    said = verdict(guest(every), here, there)
    assert (said.answer, said.risk) == (Answer.FAILS, Risk.GUEST_VISIBLE)
    assert (
        "the guest's vectors have 256 bits (ZCR_EL1) and will have 512; not done"
    ) in said.obstacles[0]
    # one that chose 256 itself keeps them
    assert verdict(guest(SVE), here, there).answer is Answer.WORKS


LONGER = (("A", (128, 256)), ("B", (128, 256, 512)))


@pytest.mark.parametrize(
    ("parts", "svcr", "risk", "words"),
    [
        ({}, 0, Risk.GUEST_VISIBLE, "nothing is in the vectors beyond"),
        ({"cpu/sme": filled(32 * 256, ZA)}, 2, Risk.LOSSY, "ZA of vCPU 0 holds"),
        ({"cpu/sme": filled(31 * 256 + 32, ZA)}, 2, Risk.LOSSY, "ZA of vCPU 0 holds"),
        ({"cpu/sme": filled(31 * 256 + 31, ZA)}, 2, Risk.GUEST_VISIBLE, "nothing is in"),
        ({"cpu/sve": filled(16)}, 0, Risk.GUEST_VISIBLE, "nothing is in the vectors beyond"),
        ({"cpu/sve": filled(16)}, 1, Risk.LOSSY, "Z0 of vCPU 0 holds"),  # streaming
    ],
)
def test_shorter_vectors_of_sme(
    parts: Mapping[str, bytes], svcr: int, risk: Risk, words: str
) -> None:
    registers = {**SME, SMCR: 1, SVCR: svcr}
    here = host("A", registers, sme_bits=frozenset({128, 256, 512}))
    there = host("B", registers, sme_bits=frozenset({128, 256}))
    if svcr & 1:
        there = replace(there, host=HostFacts(sme_bits=frozenset({128})))
    said = verdict(guest(registers, parts=parts), here, there)
    assert (said.answer, said.risk) == (Answer.FAILS, risk)
    assert words in said.obstacles[0]
    assert "SME vectors" in said.obstacles[0]


PVTIME = RamBlock("pvtime", 4096)
BOARD = RamBlock("mach-virt.ram", 64 << 20)


@pytest.mark.parametrize(
    ("memory", "here", "answer"),
    [
        (None, {"page_bytes": 4096}, Answer.FAILS),  # two kernels, whatever the guest
        ((BOARD, PVTIME), {}, Answer.FAILS),  # the block tells the source's page
        ((BOARD,), {"page_bytes": 4096}, Answer.WORKS),  # no stolen time: QEMU does not mind
    ],
)
def test_kernels_with_pages_of_another_size(
    memory: Sequence[RamBlock] | None, here: dict[str, Any], answer: Answer
) -> None:
    said = verdict(guest(memory=memory), host("A", **here), host("B", page_bytes=65_536))
    assert said.answer is answer
    words = "the hosts' kernels have pages of 4 KiB here, of 64 KiB on the destination"
    assert words in "".join((*said.obstacles, *said.notes))


def test_kinds_of_cores_of_the_destination_are_named() -> None:
    there = host("B", cores={0x411FD410: (0, 1, 2, 3), 0x412FD050: (4, 5)})
    (words,) = [one for one in verdict(guest(), host("A"), there).notes if "kinds of cores" in one]
    assert words == (
        "B has 2 kinds of cores (Arm Cortex-A78 r1p0: processors 0-3; Arm Cortex-A55 r2p0: "
        "processors 4-5): KVM runs a guest on one kind only; start QEMU there on the processors of "
        "that kind (taskset --cpu-list), and see that the fingerprint was made on the same"
    )


def test_what_nobody_recorded_is_said_to_be_unknown() -> None:
    bare = verdict(guest(), host("A"), host("B")).notes[-1]
    for what in ("machine type", "memory blocks", "devices and the parts of a vCPU's state"):
        assert f"the {what} (GUEST)" in bare
        assert f"the {what} (B)" in bare


def test_nothing_is_said_of_a_load_under_whpx() -> None:
    ends = (replace(one, accelerator=Accelerator.WHPX) for one in (guest(), host("B")))
    said = judge(Move.between(*ends, qemu="11.1.3"), EMPTY)
    assert (said.answer, said.stock) == (Answer.FAILS, None)
    assert said.obstacles == (
        (
            "a guest under WHPX cannot be moved at all: QEMU blocks its migration (the state of "
            "the virtual processor cannot be read whole)"
        ),
    )
