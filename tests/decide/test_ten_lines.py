"""Ten lines that a person meets, one of each sort; data/ten-lines.txt shows them for review."""

from dataclasses import replace
from pathlib import Path

from armferry.decide import Effect, judge, make_plan, plan_prose
from armferry.ends import Destination
from armferry.policy import from_options, problems
from armferry.registers import Accelerator, parse_register
from armferry.stream.description import DeviceLayout, FieldLayout, StructLayout

from .moves import move_of

GOLDEN = Path(__file__).parent / "data" / "ten-lines.txt"

TCR2, PIR, MIDR, DFR0, PSCI, TTBR = (
    parse_register(name)
    for name in ("TCR2_EL1", "PIR_EL1", "MIDR_EL1", "ID_AA64DFR0_EL1", "PSCI_VERSION", "TTBR0_EL1")
)
GUEST = {TCR2: 0, PIR: 0x1234, TTBR: 7, MIDR: 0x413FD0C1, DFR0: 0x10305506, PSCI: 0x10003}
HOST = {TTBR: 0, MIDR: 0x414FD0C1, DFR0: 0x10305408, PSCI: 0x10001}
POLICY = from_options(
    safe_missing=["PIR_EL1"],
    tolerate=[
        "identification: take destination's",
        "TCR2_EL1: only-source-if (value & 0xff) == 0x100",
        "PIR_EL1: only-source-if-reset",
    ],
)


def device(name: str, version: int, *subsections: str) -> DeviceLayout:
    parts = tuple(StructLayout(part, 1, (), ()) for part in subsections)
    fields = (FieldLayout("field", "uint64", 8, 1),)
    return DeviceLayout(name, 0, version, StructLayout(name, version, fields, parts))


MOVE = move_of(
    [GUEST],
    Destination(HOST, Accelerator.KVM),
    source=(device("cpu", 22, "cpu/fpmr"), device("pl031", 1), device("pl061", 3)),
    destination=(device("cpu", 22), device("pl061", 4)),
    contents=({"cpu/fpmr": b"\0\0\0\0\0\0\0\7"},),
    qemu="10.0.13",
)


def lines() -> list[str]:
    verdict = judge(MOVE, POLICY)
    refused = [f"{one.name}: {one.why}" for one in verdict.decisions[0].refused]
    lossy = [f"{o.name}: {o.why}" for o in verdict.decisions[0].anomalies if not o.refused]
    unsure = [str(one) for one in verdict.findings if one.effect is Effect.UNCERTAIN]
    warned = [*(str(problem) for problem in problems(POLICY)), *unsure]
    sent = replace(
        MOVE,
        source=replace(MOVE.source, devices=MOVE.source.devices[:1]),
        destination=replace(MOVE.destination, devices=(device("cpu", 22),)),
    )
    planned = plan_prose(make_plan(sent, POLICY), "GUEST", "HOST").splitlines()[1:]
    planned = [
        ": ".join(map(str.strip, pair)) for pair in zip(planned[::2], planned[1::2], strict=True)
    ]
    return [
        *(f"refused  {line}" for line in (*refused[1:3], *verdict.obstacles)),
        *(f"allowed  {line}" for line in lossy),
        *(f"warned   {line}" for line in warned),
        *(f"planned  {line}" for line in (planned[0], planned[-1])),
    ]


def test_ten_lines_for_review() -> None:
    assert len(lines()) == 10
    assert "\n".join(lines()) + "\n" == GOLDEN.read_text(encoding="utf-8")
