"""Cells of the fleet against `armferry check`, against real loads, and by place of birth."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from armferry.cli.main import main
from armferry.decide import Risk, judge
from armferry.decide.content import content_of
from armferry.ends import Move
from armferry.fleet.conditions import cell_of
from armferry.fleet.model import Answer, Cell, Condition
from armferry.fleet.relation import ClassRelation, policy_key
from armferry.hosts.fingerprints.as_end import end_of
from armferry.hosts.fingerprints.atlas import read_atlas
from armferry.policy import EMPTY, Policy, aggregate, from_options
from armferry.registers import Accelerator

from .hosts_of_atlas import atlas_relation, recorded

TCR2, PSCI = 0x603000000013C103, 0x6030000000140000
KERNELS = ("5.10", "6.1", "6.12", "6.17", "7.3")
DOCUMENT = Path(__file__).parents[2] / "docs" / "kvm-matrix.md"
FEW = [f"{kernel}/neoverse-n1/qemu-10.0.13" for kernel in KERNELS]
WHOLE_LAB = [
    f"{kernel.name}/qemu-{qemu}"
    for kernel in read_atlas().kernels
    if kernel.cpu == "neoverse-n1"
    for qemu in ("7.2.22", "10.0.2", "10.0.13", "11.1.3")
]


def check(source: str, destination: str, capsys: pytest.CaptureFixture[str]) -> tuple[str, ...]:
    """Verdict, stock's verdict and risk, as the command says them."""
    main(["check", "--json", f"atlas:{source}", "--to", f"atlas:{destination}"])
    found = json.loads(capsys.readouterr().out)
    return found["verdict"], found["stock"]["verdict"], found["risk"]


def told(cell: Cell) -> tuple[str, ...]:
    return cell.verdict, cell.stock, str(cell.risk)


def test_cells_equal_check(capsys: pytest.CaptureFixture[str]) -> None:
    relation = atlas_relation()
    for source, destination in product(FEW, FEW):
        cell = relation.cell(source, source, destination)
        assert told(cell) == check(source, destination, capsys), (source, destination)


@pytest.mark.full
@pytest.mark.parametrize("source", WHOLE_LAB)
def test_every_cell_of_the_lab_equals_check(
    source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    relation = atlas_relation()
    for destination in WHOLE_LAB:
        cell = relation.cell(source, source, destination)
        assert told(cell) == check(source, destination, capsys), destination


def real_moves() -> Iterator[tuple[str, str, str, bool]]:
    """Machine type, source, destination, whether stock QEMU loaded: what real kernels did."""
    machine = ""
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            machine = line.rpartition(", ")[2]
        row = re.match(r"\| ([0-9]\S+ \S+ \S+) \| (\S+ \S+ \S+) \| (loads|refuses)", line)
        if row:
            kernel, cpu, qemu = row[1].split()
            there, there_cpu, there_qemu = row[2].split()
            yield (
                machine,
                f"{kernel}/{cpu}/qemu-{qemu}",
                f"{there}/{there_cpu}/qemu-{there_qemu}",
                row[3] == "loads",
            )


def test_cells_equal_real_loads() -> None:
    """Every tenth move that the lab made for real."""
    moves = [*real_moves()]
    assert len(moves) > 250
    assert wrong_of(moves[::10]) == []


@pytest.mark.full
def test_all_cells_equal_real_loads() -> None:
    assert wrong_of([*real_moves()]) == []


def wrong_of(moves: list[tuple[str, str, str, bool]]) -> list[tuple[str, str, str, str]]:
    relations = {machine: atlas_relation(machine) for machine, *_ in moves}
    wrong = []
    for machine, source, destination, loaded in moves:
        cell = relations[machine].cell(source, source, destination)
        if cell.stock != ("works" if loaded else "fails"):
            wrong.append((machine, source, destination, cell.stock))
    return wrong


def test_whether_it_can_come_back_depends_on_where_it_was_born() -> None:
    relation = atlas_relation()
    old, new = FEW[2], FEW[3]
    assert relation.cell(old, old, new).possible
    assert relation.cell(old, new, old).answer is Answer.STOCK
    back = relation.cell(new, new, old)
    assert back.answer is Answer.NEVER
    assert back.why == "no rule of the policy allows PSCI_VERSION"


def test_a_move_that_depends_on_the_guest_says_on_what() -> None:
    cell = atlas_relation().cell(FEW[2], FEW[2], FEW[3])
    assert cell.answer is Answer.GUEST
    assert [str(one) for one in cell.conditions] == [
        "TCR2_EL1 holds 0x0",
        "PIRE0_EL1 holds 0x1de7ec7edbadc0de",
        "PIR_EL1 holds 0x1de7ec7edbadc0de",
    ]


@pytest.mark.parametrize(("value", "works"), [(0, True), (1, False), (1 << 63, False)])
def test_conditions_are_those_of_the_decision(value: int, works: bool) -> None:
    """A guest with that value is judged as its conditions say."""
    source, destination = end_of(recorded(FEW[2])), end_of(recorded(FEW[3]))
    policy = aggregate("virt", Accelerator.KVM)
    cell = cell_of(source, destination, policy)
    registers = {**source.cpus[0], TCR2: value}
    guest = replace(source, guest=True, at_reset=False, cpus=(registers,))
    verdict = judge(Move.between(guest, destination, host=source), policy)
    assert (verdict.answer != "fails") is works
    assert all(one.holds(registers) for one in cell.conditions) is works


def test_a_guest_that_counts_may_lose_it_though_the_move_works() -> None:
    cell = atlas_relation().cell(FEW[2], FEW[3], FEW[2])
    assert cell.risk is Risk.LOSSLESS
    assert "PMINTENSET_EL1" in {one.name for one in cell.lossless_if}


def test_a_condition_in_words_and_on_registers() -> None:
    condition = Condition(TCR2, "TCR2_EL1", 0xF, 2)
    assert str(condition) == "TCR2_EL1 & 0xf holds 0x2"
    assert condition.holds({TCR2: 0x12}) is True
    assert condition.holds({TCR2: 0x13}) is False
    assert condition.holds({}) is None


def test_a_policy_changes_the_cell_and_the_key() -> None:
    source, destination = end_of(recorded(FEW[3])), end_of(recorded(FEW[2]))
    builtin = aggregate("virt", Accelerator.KVM)
    capped = builtin.union(from_options(tolerate=["PSCI_VERSION: cap at destination"]))
    assert cell_of(source, destination, builtin).answer is Answer.NEVER
    assert cell_of(source, destination, capped).possible
    assert policy_key([builtin]) != policy_key([capped])
    assert policy_key([builtin]) == policy_key([aggregate("virt", Accelerator.KVM)])
    assert policy_key([EMPTY]) != policy_key([Policy(hidden={TCR2: ()})])


def test_a_kept_cell_is_not_worked_out_again() -> None:
    class Kept:
        def read_cells(self, key: str) -> dict[tuple[str, str, str], Cell]:
            assert key == "k"
            return {("a", "a", "b"): Cell(Answer.STOCK)}

        def write_cells(self, key: str, cells: object) -> None:
            raise AssertionError("nothing is new")

    def nothing(_: object) -> Policy:
        raise AssertionError("not asked")

    relation = ClassRelation(lambda _: (), nothing, Kept(), "k")
    assert relation.cell("a", "a", "b").answer is Answer.STOCK
    assert relation.keep() == 0


def test_one_qemu_of_the_destination_is_enough_and_any_of_the_source_may_run_it() -> None:
    ends = {
        "old": (end_of(recorded(FEW[2])),),
        "new": (end_of(recorded(FEW[3])),),
        "both": (end_of(recorded(FEW[2])), end_of(recorded(FEW[3]))),
    }
    policy = aggregate("virt", Accelerator.KVM)
    relation = ClassRelation(ends.__getitem__, lambda _: policy)
    assert relation.cell("new", "new", "both").answer is Answer.STOCK
    assert relation.cell("both", "both", "old").answer is Answer.NEVER


def test_same_content_same_cells() -> None:
    """Two releases of QEMU that follow the same rules are one class, and decide alike."""
    one, other = (
        end_of(recorded(f"6.12/neoverse-n1/qemu-{qemu}")) for qemu in ("10.0.2", "10.0.13")
    )
    assert content_of(one).signature == content_of(other).signature
    policy = aggregate("virt", Accelerator.KVM)
    for name in FEW:
        end = end_of(recorded(name))
        assert cell_of(one, end, policy) == cell_of(other, end, policy)
        assert cell_of(end, one, policy) == cell_of(end, other, policy)
