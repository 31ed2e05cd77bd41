"""Newer kernels presenting older ones at the KVM boundary, with real kernels and QEMUs.

A guest is born on the newer kernel as on the older one, loaded by stock QEMU there, and brought
back. Some pairs in every run; all 55 of the 11 kernels with each QEMU in the full one, which is
what docs/born-as.md is written from (`births.json` beside this file holds the results).
"""

import signal
from pathlib import Path

import pytest

from armferry.boundary import Action, Table, birth, carry, hide
from armferry.facts import release_key
from armferry.hosts.fingerprints.atlas import read_atlas
from armferry.hosts.fingerprints.open_subject import open_subject
from armferry.lab.births import run_births
from armferry.lab.births_text import births_text, read_rows, rows_text
from armferry.lab.guest import GuestLog
from armferry.lab.host import HostSpec, LabHost
from armferry.lab.kernels import KernelStore
from armferry.lab.releases import release_named
from armferry.lab.stays import Stay, Stayed, stay
from armferry.stream import CpuEdit, StateEdit, rewrite_tail

pytestmark = [pytest.mark.qemu, pytest.mark.kernel]

KERNELS = ("5.10", "6.1", "6.12", "6.16", "6.17", "6.18", "6.19", "7.0", "7.1", "7.2", "7.3")
SAME_QEMU = {"bookworm": "virt-7.2", "trixie": "virt-10.0", "trixie-backports": "virt-10.1"}
DATA = Path(__file__).with_name("births.json")
DOCUMENT = Path(__file__).parents[2] / "docs" / "born-as.md"
ID_AA64PFR0, MPIDR = 0x603000000013C020, 0x603000000013C005
TCR2, BITMAP_2 = 0x603000000013C103, 0x6030000000160003
PIR, PIRE0 = 0x603000000013C513, 0x603000000013C512
PREVENTED = {("6.1.0-50", "5.10.0-32"): "ID_AA64DFR0_EL1"}
"""6.1 lets no field of it be written: the debug architecture stays another than 5.10's."""
UNKNOWN = 0x1DE7EC7EDBADC0DE
WRITTEN = 0x42


def spec(kernel: str, suite: str = "trixie") -> HostSpec:
    return HostSpec(KernelStore().get(kernel), release_named(suite))


def quiet(what: str, done: int, whole: int) -> None:
    assert what
    assert 0 < done <= whole


def test_newest_kernel_presents_the_oldest(guest_kernel: Path) -> None:
    (row,) = run_births([(spec("7.3"), spec("5.10"))], "virt-10.0", guest_kernel, quiet)
    assert (row.born, row.taken, row.back) == ("", "", "")
    assert {"PMMIR_EL1", "VENDOR_HYP_BMAP_2", "CNTP_CTL_EL0"} <= set(row.hidden)
    assert {"PSCI_VERSION", "CLIDR_EL1", "STD_BMAP"} <= set(row.pinned)


def test_registers_that_the_newer_kernel_lacks_are_carried(guest_kernel: Path) -> None:
    (row,) = run_births([(spec("6.17"), spec("6.12"))], "virt-10.0", guest_kernel, quiet)
    assert (row.born, row.taken, row.back) == ("", "", "")
    assert row.carried == ("TCR2_EL1", "PIRE0_EL1", "PIR_EL1")


@pytest.mark.full
@pytest.mark.parametrize("suite", SAME_QEMU)
def test_every_pair_goes_all_the_way(suite: str, guest_kernel: Path) -> None:
    specs = [spec(kernel, suite) for kernel in KERNELS]
    pairs = [(newer, older) for at, newer in enumerate(specs) for older in specs[:at]]
    rows = run_births(pairs, SAME_QEMU[suite], guest_kernel, quiet)
    others = [row for row in read_rows(DATA.read_text("utf-8")) if row.qemu != rows[0].qemu]
    whole = sorted([*others, *rows], key=lambda row: release_key(row.qemu))
    DATA.write_text(rows_text(whole), encoding="utf-8")
    DOCUMENT.write_text(births_text(whole), encoding="utf-8")
    prevented = {(row.newer, row.older): row.born for row in rows if not row.works}
    assert prevented.keys() == PREVENTED.keys()
    for pair, register in PREVENTED.items():
        assert prevented[pair].startswith(f"{register} cannot be ")


def test_document_is_written_from_the_results() -> None:
    rows = read_rows(DATA.read_text(encoding="utf-8"))
    assert DOCUMENT.read_text(encoding="utf-8") == births_text(rows)


def test_recorded_rules_are_those_of_today() -> None:
    """What was done at the boundary for each pair, decided once more from the atlas."""
    for row in read_rows(DATA.read_text(encoding="utf-8")):
        newer, older = (read_atlas().find(f"{one}/neoverse-n1") for one in (row.newer, row.older))
        found = birth(newer.fingerprint.cpus[0], older.fingerprint.cpus[0], older.release)
        for action, names in ((Action.HIDE, row.hidden), (Action.SET, row.pinned),
                              (Action.CARRY, row.carried)):  # fmt: skip
            assert tuple(one.name for one in found.rules if one.action is action) == names


@pytest.mark.full
@pytest.mark.parametrize("suite", SAME_QEMU)
def test_qemu_that_reads_a_hidden_register_is_stopped(suite: str, guest_kernel: Path) -> None:
    """What every QEMU reads by itself, whatever is in the list: ID_AA64PFR0_EL1 of the vCPU that it
    asks about the host, MPIDR_EL1 of each of the guest's."""
    hidden = {ID_AA64PFR0: "ID_AA64PFR0_EL1", MPIDR: "MPIDR_EL1"}
    stays = [Stay(SAME_QEMU[suite], Table([hide(index)]).packed()) for index in hidden]
    with LabHost(spec("6.17", suite)) as host:
        found = stay(host, guest_kernel.read_bytes(), stays)
    for one, (index, register) in zip(found, hidden.items(), strict=True):
        assert one.outcome.exit_code == -signal.SIGABRT, one
        words = f"kvm_get_one_reg reg {index:#x} is hidden and shall never been accessed"
        assert words in one.outcome.stderr.splitlines()
        wanted = f"QEMU wanted to read {register}, which is hidden from it, and was stopped"
        assert f"{wanted} (vCPU 0)" in one.trace


def _registers(stream: bytes, folder: Path) -> dict[int, int]:
    path = folder / "stream"
    path.write_bytes(stream)
    return dict(open_subject(str(path)).lists[0])


def _with(stream: bytes, folder: Path, index: int, value: int) -> bytes:
    """The stream of a guest that wrote `value` into the register."""
    path = folder / "stream"
    path.write_bytes(stream)
    saved = open_subject(str(path)).saved
    assert saved is not None
    tail = rewrite_tail(saved, StateEdit([CpuEdit({**saved.cpus[0].registers, index: value})]))
    assert tail is not None
    return stream[: tail.offset] + tail.data


def _held(kernel: str, guest: bytes, one: Stay) -> Stayed:
    with LabHost(spec(kernel)) as host:
        (found,) = stay(host, guest, [one])
    assert found.outcome.completed, found
    assert GuestLog.parse(found.log).faults() == ()
    return found


@pytest.mark.full
def test_value_of_a_register_comes_back_to_the_host_that_has_it(
    guest_kernel: Path, tmp_path: Path
) -> None:
    """6.12 to 6.17, which lacks TCR2_EL1, and back, with nothing but stock QEMU on 6.12.

    The CPU that is emulated has no TCR2_EL1 for a guest to write, though 6.12 lists it: the value
    is put into the stream, as of a guest that wrote it.
    """
    guest, machine = guest_kernel.read_bytes(), "virt-10.0"
    rules = [carry(TCR2, 0), carry(PIR, UNKNOWN), carry(PIRE0, UNKNOWN), hide(BITMAP_2)]
    carried = Table(rules).packed()
    home = _held("6.12", guest, Stay(machine))
    assert _registers(home.stream, tmp_path)[TCR2] == 0
    written = _with(home.stream, tmp_path, TCR2, WRITTEN)
    away = _held("6.17", guest, Stay(machine, carried, written, home.log))
    assert any(line.startswith("TCR2_EL1, which this host lacks, is kept") for line in away.trace)
    assert _registers(away.stream, tmp_path)[TCR2] == WRITTEN
    back = _held("6.12", guest, Stay(machine, b"", away.stream, away.log))
    assert _registers(back.stream, tmp_path)[TCR2] == WRITTEN
