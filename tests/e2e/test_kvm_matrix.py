"""Real kernels against each other: what is predicted of a move is held against what happens.

A matrix of hosts, each with its kernel and QEMU: every host's fresh guest is loaded on every other
one, as it is and ferried. The big matrices write docs/kvm-matrix.md; results are kept in the cache.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, product
from pathlib import Path

import pytest

from armferry.cache import cache_folder
from armferry.cli.main import main
from armferry.decide import Answer, Risk, judge
from armferry.ends import Move
from armferry.facts import qemu_rules, release_key
from armferry.hosts.fingerprints.atlas import read_atlas
from armferry.lab.apt import AptState
from armferry.lab.gate import gate_lines, judge_update
from armferry.lab.heat_map import heat_map
from armferry.lab.host import HostSpec, LabHost
from armferry.lab.kernels import Kernel, KernelStore
from armferry.lab.matrix import Cell, record_all, run_matrix
from armferry.lab.matrix_document import matrix_document, rows_text
from armferry.lab.matrix_text import matrix_json, matrix_lines, matrix_rows, tally
from armferry.lab.nested import NestedQemu
from armferry.lab.qemu_package import QEMU_PACKAGE, qemu_package
from armferry.lab.recording import Recording
from armferry.lab.releases import release_named
from armferry.policy import OriginKind, aggregate, parse_document
from armferry.registers import Accelerator
from armferry.stream.description import DeviceLayout

pytestmark = [pytest.mark.qemu, pytest.mark.kernel]

KERNELS = (*("5.10", "6.1", "6.12", "6.16", "6.17", "6.18", "6.19", "7.0", "7.1", "7.2", "7.3"),)
SUITES = ("bookworm", "trixie", "trixie-backports")
NEWEST = {"trixie": "virt-10.0", "trixie-backports": "virt-11.1"}
"""The newest machine type that each QEMU has."""
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
        assert cell.predicted.verdict.risk <= Risk.LOSSLESS
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
    assert document.keys() == documented("lab matrix")
    assert [move["ferried"] for move in document["moves"]] == [True, True]
    assert [move["stock"]["loads"] for move in document["moves"]] == [False, False]
    rows = [line for line in matrix_lines(cells) if line.startswith(f"| {new.name}")]
    (row,) = rows
    assert row == (
        f"| {new.name} | {old.name} | refuses PSCI_VERSION | works-with-policy | loads | "
        "guest-visible | PSCI_VERSION: cap at destination |"
    )
    assert tally(cells) == (
        "Of 2 moves, stock QEMU loads 0; ferried by armferry, 2 load, 2 of them with the shipped "
        "levels alone. For a guest that runs, 1 need more to be named. What was predicted and what "
        "happened part in 0."
    )

    # what it prints is a level: for a site that has it, a guest that runs moves both ways
    site = parse_document(gate.level, "level.toml", OriginKind.SITE)
    assert site.level == "virt-10.0"
    for source, there in ((old, new), (new, old)):
        ran = replace(source.source().end, at_reset=False)
        move = Move.between(ran, there.destination().end)
        verdicts = [
            judge(move, aggregate(machine, Accelerator.KVM, builtin=False, site=[site]))
            for machine in ("virt-10.0", "virt-10.1")
        ]
        assert [one.answer for one in verdicts] == [Answer.WORKS_WITH_POLICY, Answer.FAILS]

    # the same by the command, from the cache
    twice = ["6.12", old.spec.kernel.release, "6.17"]
    words = ["--kernels", *twice, "--machine", "virt-10.0", "--json"]
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
    assert main(["lab", "gate", "--old", "6.12", "--new", debs[0]]) == 3
    assert capsys.readouterr().err.endswith(f"6.12 and {debs[0]} are one and the same host\n")
    assert main(["lab", "gate", *deb_words, "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert document.keys() == documented("lab gate")
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
        (
            ["qemu-5.2"],
            "QEMU 5.2.0 cannot be inside a lab host: the python3 of bullseye is too old",
        ),
    ],
)
def test_what_the_gate_cannot_compare(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lab", "gate", "--old", *words, "--new", "6.12"]) == 3
    assert capsys.readouterr().err.startswith(f"armferry: {said}")


@pytest.mark.full
def test_the_newest_cpu_on_the_steps_of_the_kernels() -> None:
    """`lab matrix --kernels 6.12 6.16 6.17 7.3 --cpus max neoverse-n1`.

    `max` has what KVM takes away with a field of an identification register.
    """
    store = KernelStore()
    found = [
        (HostSpec(store.get(kernel), release_named("trixie"), cpu=cpu), NestedQemu("virt-7.2"))
        for kernel, cpu in product(("6.12", "6.16", "6.17", "7.3"), ("max", "neoverse-n1"))
    ]
    cells = run_matrix(record_all(found, quiet), quiet)
    assert len(cells) == 56
    faults = {f"{c.source.name} to {c.destination.name}": c.faults for c in cells if c.faults}
    assert faults == {}


@pytest.mark.full
def test_the_gate_judges_an_update_of_qemu(capsys: pytest.CaptureFixture[str]) -> None:
    apt = AptState(cache_folder("apt"))
    packages = {package.suite: package for package in apt.packages(re.compile(QEMU_PACKAGE))}
    debs = [apt.download(packages[suite]) for suite in ("trixie", "trixie-backports")]
    words = ["--old", str(debs[0]), "--new", str(debs[1]), "--machine", "virt-10.0", "--json"]
    assert main(["lab", "gate", *words]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["verdict"], document["level"]) == ("works", "")
    assert (document["gone"], document["new_registers"], document["changed"]) == ([], [], [])
    for way in (document["old_to_new"], document["new_to_old"]):
        assert (way["stock"]["loads"], way["ferried"], way["faults"]) == (True, True, [])

    # the package's QEMU runs in place of its userland's
    newer = qemu_package(debs[1])
    spec = HostSpec(KernelStore().get("6.12"), release_named("trixie"), package=newer)
    with LabHost(spec) as host:
        said = host.run(["qemu-system-aarch64", "--version"]).stdout.decode()
    assert said.startswith(f"QEMU emulator version {newer.version} (Debian {newer.package})\n")


def documented(heading: str) -> set[str]:
    """The keys that docs/json.md has under a heading."""
    part = DOCUMENT.with_name("json.md").read_text().split(f"\n## {heading}\n")[1]
    return set(re.findall(r"^\| `(\w+)` \|", part.split("\n## ")[0], re.MULTILINE))


def downloaded(kernel: Kernel) -> Path:
    """The package file that an unpacked kernel came from."""
    (deb,) = (cache_folder("apt") / "packages" / kernel.origin.sha256).glob("*.deb")
    return deb


@pytest.mark.full
def test_every_pair_of_hosts() -> None:
    together = matrix(KERNELS, SUITES, "virt-7.2")
    newest = {suite: matrix(KERNELS, (suite,), machine) for suite, machine in NEWEST.items()}
    assert len(together) == 1056
    for cell in (*together, *chain(*newest.values())):
        assert as_the_atlas_says(cell.source), cell.source.name
    named = [cell for cell in (*together, *newest["trixie-backports"]) if names_registers(cell)]
    assert len(named) > 100
    for cell in named:
        assert put_by_qemu(cell) == refused_by_kernel(cell), (
            f"{cell.source.name} to {cell.destination.name}: {cell.message}"
        )
    write_documents(
        {
            "Eleven kernels with three QEMUs, virt-7.2": together,
            **{
                f"QEMU {release_named(suite).version} on both hosts, {NEWEST[suite]}": cells
                for suite, cells in newest.items()
            },
        }
    )


def write_documents(matrices: dict[str, list[Cell]]) -> None:
    """The data file, and of it the pictures and the document."""
    rows = {title: matrix_rows(cells) for title, cells in matrices.items()}
    DOCUMENT.with_suffix(".json").write_text(rows_text(rows))
    read = json.loads(DOCUMENT.with_suffix(".json").read_text())
    assert read == rows
    pictures = {title: f"kvm-matrix-{number}.svg" for number, title in enumerate(read, start=1)}
    for title, name in pictures.items():
        DOCUMENT.with_name(name).write_text(heat_map(read[title], title))
    DOCUMENT.write_text("\n".join(matrix_document(read, pictures)) + "\n")


def names_registers(cell: Cell) -> bool:
    """Whether the destination's QEMU refused the guest and is one that says why."""
    return cell.destination.spec.qemu_version == "11.1.3" and not cell.stock.completed


def as_the_atlas_says(recording: Recording) -> bool:
    """Whether the atlas puts the host's list and its QEMU's sections together as they really are.

    Its entry of a QEMU was recorded on one kernel for one machine type.
    """
    series = ".".join(map(str, release_key(recording.spec.kernel.release)[:2]))
    entry = f"{series}/{recording.spec.cpu}/qemu-{recording.spec.qemu_version}"
    told, real = read_atlas().find(entry).fingerprint, recording.destination().fingerprint
    return told.cpus[0].keys() == real.cpus[0].keys() and list(map(without_list, told.devices)) == (
        list(map(without_list, real.devices))
    )


def without_list(device: DeviceLayout) -> DeviceLayout:
    """A section without the length of the register list, which is the kernel's."""
    fields = tuple(one for one in device.state.fields if not one.name.startswith("cpreg_"))
    return replace(device, state=replace(device.state, fields=fields))


def called(index: int) -> str:
    """QEMU's word for a register under KVM."""
    number = index & 0xFFFF
    match index >> 16 & 0xFFF:
        case 0x11:
            return f"demuxed reg {index:x}"
        case 0x14:
            return f"fw reg {number}"
        case 0x16:
            return f"fw feat reg {number}"
    op0, op1 = number >> 14, number >> 11 & 7
    crn, crm, op2 = number >> 7 & 0xF, number >> 3 & 0xF, number & 7
    return f"system register op0:{op0} op1:{op1} crn:{crn} crm:{crm} op2:{op2}"


def put_by_qemu(cell: Cell) -> tuple[set[str], set[tuple[str, str, str]]]:
    """What QEMU 11.1 named: registers that it does not know, and values that were not taken."""
    unknown = re.findall(r"only_in_incoming_stream: (.*) in the incoming stream", cell.message)
    values = re.findall(r"Could not set register (.*) to (\w+) \(is (\w+)\)", cell.message)
    return set(unknown), set(values)


def refused_by_kernel(cell: Cell) -> tuple[set[str], set[tuple[str, str, str]]]:
    """The same of preflight's refusals, in QEMU's words, without what 11.1 leaves out itself."""
    rules = qemu_rules("11.1.3")
    refused = [
        one
        for one in cell.refused
        if one.host is not None
        or not rules.tolerates_missing(one.index, one.incoming, Accelerator.KVM)
    ]
    return (
        {called(one.index) for one in refused if one.host is None},
        {
            (called(one.index), f"{one.incoming:x}", f"{one.host:x}")
            for one in refused
            if one.host is not None
        },
    )
