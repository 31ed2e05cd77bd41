"""Real kernels against each other: what is foretold of a move is held against what happens.

A matrix of hosts, each with its kernel and QEMU: every host's fresh guest is loaded on every other
one, as it is and ferried. The big matrices write docs/kvm-matrix.md; results are kept in the cache.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from armferry.cli.main import main
from armferry.decide import Answer, Risk, SourceFacts, judge
from armferry.lab.apt import AptState
from armferry.lab.cache import cache_folder
from armferry.lab.gate import gate_lines, judge_update
from armferry.lab.host import HostSpec
from armferry.lab.kernels import Kernel, KernelStore
from armferry.lab.matrix import Cell, record_all, run_matrix
from armferry.lab.matrix_text import matrix_json, matrix_lines, tally
from armferry.lab.nested import NestedQemu
from armferry.lab.qemu_package import QEMU_PACKAGE
from armferry.lab.releases import release_named
from armferry.policy import Source, aggregate, parse_document
from armferry.registers import Accelerator

pytestmark = [pytest.mark.qemu, pytest.mark.kernel]

KERNELS = ("5.10", "6.1", "6.12", "6.16", "6.17", "6.18", "7.2", "7.3")
SAME_QEMU = {"bookworm": "virt-7.2", "trixie": "virt-10.0", "trixie-backports": "virt-10.1"}
TOGETHER = ("6.1", "6.12", "6.17", "7.3")
DOCUMENT = Path(__file__).parents[2] / "docs" / "kvm-matrix.md"

Hosts = list[tuple[HostSpec, NestedQemu]]


def hosts(kernels: Sequence[str], suites: Sequence[str], machine: str) -> Hosts:
    store = KernelStore()
    return [
        (HostSpec(store.get(kernel), release_named(suite)), NestedQemu(machine))
        for kernel, suite in product(kernels, suites)
    ]


def quiet(what: str, done: int, whole: int) -> None:
    assert what
    assert 0 < done <= whole


def matrix(kernels: Sequence[str], suites: Sequence[str], machine: str) -> list[Cell]:
    cells = run_matrix(record_all(hosts(kernels, suites, machine), quiet), quiet)
    assert len(cells) == len(kernels) * len(suites) * (len(kernels) * len(suites) - 1)
    for cell in cells:
        assert cell.faults == (), f"{cell.source.name} to {cell.destination.name}: {cell.message}"
        # a guest that never ran has nothing to lose
        assert cell.foretold.verdict.risk <= Risk.LOSSLESS
    return cells


def test_the_gate_judges_an_update_of_the_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    old, new = record_all(hosts(("6.12", "6.17"), ("trixie",), "virt-10.0"), quiet)
    gate = judge_update(old, new, quiet)
    assert gate.exit_code == 2
    assert (gate.there.cell.faults, gate.back.cell.faults) == ((), ())
    assert [f"{index:#x}"[-6:] for index in gate.gone] == ["13c103", "13c512", "13c513"]
    assert [f"{index:#x}"[-6:] for index in gate.new] == ["160003"]
    # what the shipped levels leave to the user, each way
    assert gate.there.shipped.entries == ()
    (entry,) = gate.back.shipped.entries
    assert (entry.name, entry.action, entry.risk) == (
        "PSCI_VERSION",
        "cap at destination",
        Risk.GUEST_VISIBLE,
    )
    lines = list(gate_lines(gate))
    assert "Old to new: stock QEMU refuses a guest:" in lines
    assert "New to old: stock QEMU refuses a guest:" in lines
    assert (
        "    PSCI_VERSION 0x6030000000140000 0x10003 (PSCI 1.3), its own is 0x10001 (PSCI 1.1)"
        in lines
    )

    cells = [gate.back.cell, gate.there.cell]
    document = matrix_json(cells)
    assert [move["ferried"] for move in document["moves"]] == [True, True]
    assert [move["stock"]["loads"] for move in document["moves"]] == [False, False]
    rows = [line for line in matrix_lines(cells) if line.startswith(f"| {new.name}")]
    (row,) = rows
    assert row == (
        f"| {new.name} | {old.name} | refuses PSCI_VERSION | works-with-policy | - | lossless | "
        "loads |"
    )
    assert tally(cells) == (
        "Of 2 moves, stock QEMU loads 0; ferried by armferry, 2 load, 2 of them with the shipped "
        "levels alone. What was foretold and what happened part in 0."
    )

    # what it prints is a level: for a site that has it, a guest that runs moves both ways
    site = parse_document(gate.level, "level.toml", Source.SITE)
    assert site.level == "virt-10.0"
    for source, there in ((old, new), (new, old)):
        move = replace(source.source().move_to(there.destination()), facts=(SourceFacts(),))
        verdicts = [
            judge(move, aggregate(machine, Accelerator.KVM, builtin=False, site=[site]))
            for machine in ("virt-10.0", "virt-10.1")
        ]
        assert [one.answer for one in verdicts] == [Answer.WORKS_WITH_POLICY, Answer.FAILS]

    # the same by the command, from the cache
    words = ["--kernels", "6.12", "6.17", "--machine", "virt-10.0", "--json"]
    assert main(["lab", "matrix", *words]) == 0
    assert json.loads(capsys.readouterr().out) == document
    gate_words = ["--old", "6.12", "--new", "6.17", "--machine", "virt-10.0"]
    assert main(["lab", "gate", *gate_words]) == 2
    printed = capsys.readouterr().out
    assert printed.splitlines() == "\n".join(lines).splitlines()

    # and by package files, as a distribution has them before any archive does
    debs = [str(downloaded(recording.spec.kernel)) for recording in (old, new)]
    deb_words = ["--old", debs[0], "--new", debs[1], "--machine", "virt-10.0"]
    assert main(["lab", "gate", *deb_words]) == 2
    assert capsys.readouterr().out == printed
    assert main(["lab", "gate", *deb_words, "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert (document["verdict"], document["level"]) == ("fails", gate.level)
    assert [row["name"] for row in document["new_registers"]] == ["VENDOR_HYP_BMAP_2"]
    assert document["old_to_new"]["verdict"] == "works-with-policy"
    (refused,) = [r for r in document["new_to_old"]["kernel_refuses"] if r["host"] is not None]
    assert (refused["name"], refused["incoming"], refused["host"]) == (
        *("PSCI_VERSION", "0x10003", "0x10001"),
    )
    (named,) = document["new_to_old"]["to_be_named"]
    assert (named["name"], named["risk"]) == ("PSCI_VERSION", "guest-visible")
    assert main(["lab", "gate", "--old", "6.12", "--new", "6.12"]) == 3
    assert capsys.readouterr().err.endswith("armferry: 6.12 and 6.12 are one and the same host\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["6.12", "6.17"], "6.12 6.17: names a kernel twice"),
        (["qemu-10.0", "6.12", "qemu-11.1"], "qemu-10.0 6.12 qemu-11.1: names a QEMU twice"),
        (["missing.deb"], "missing.deb: not a package that can be read: "),
        (["qemu-9.9"], "no QEMU release '9.9' in the rig; "),
    ],
)
def test_what_the_gate_cannot_compare(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lab", "gate", "--old", *words, "--new", "6.12"]) == 3
    assert capsys.readouterr().err.startswith(f"armferry: {said}")


@pytest.mark.full
def test_the_gate_judges_an_update_of_qemu(capsys: pytest.CaptureFixture[str]) -> None:
    """Two package files; that their QEMUs are what runs shows in what each of them prints."""
    apt = AptState(cache_folder("apt"))
    packages = {package.suite: package for package in apt.packages(re.compile(QEMU_PACKAGE))}
    debs = [str(apt.download(packages[suite])) for suite in ("trixie", "trixie-backports")]
    words = ["--old", debs[0], "--new", debs[1], "--machine", "virt-10.0", "--json"]
    code = main(["lab", "gate", *words])
    document = json.loads(capsys.readouterr().out)
    assert (code, document["verdict"]) == (1, "works-with-policy")
    assert (document["gone"], document["new_registers"], document["changed"]) == ([], [], [])
    ways = [document["old_to_new"], document["new_to_old"]]
    assert [way["faults"] for way in ways] == [[], []]
    assert [way["stock"]["loads"] for way in ways] == [True, False]
    assert [way["ferried"] for way in ways] == [True, True]
    assert "No such file or directory" in ways[1]["stock"]["message"]


def downloaded(kernel: Kernel) -> Path:
    """The package file that an unpacked kernel came from."""
    (deb,) = (cache_folder("apt") / "packages" / kernel.origin.sha256).glob("*.deb")
    return deb


@pytest.mark.full
def test_every_pair_of_kernels_and_of_kernels_with_qemus() -> None:
    same = {suite: matrix(KERNELS, (suite,), machine) for suite, machine in SAME_QEMU.items()}
    together = matrix(TOGETHER, tuple(SAME_QEMU), "virt-7.2")
    assert len(together) == 132
    DOCUMENT.write_text("\n".join(document(same, together)) + "\n")


def document(same: dict[str, list[Cell]], together: list[Cell]) -> Iterator[str]:
    yield "# Every pair of real kernels, under KVM"
    yield ""
    yield "Written by `tests/e2e/test_kvm_matrix.py` (`make test-full`), which boots the kernels."
    yield ""
    yield (
        "A guest that never ran, saved by one host and loaded on another, each a Debian kernel on "
        "an emulated Neoverse N1 with a QEMU under its KVM. *Shipped levels* is the verdict "
        "without any policy of the user; what had to be allowed beyond it is named."
    )
    for suite, cells in same.items():
        yield ""
        yield f"## QEMU {release_named(suite).version} on both hosts, {SAME_QEMU[suite]}"
        yield ""
        yield from matrix_lines(cells)
    yield ""
    yield "## Kernel and QEMU change together, virt-7.2"
    yield ""
    yield from matrix_lines(together)
