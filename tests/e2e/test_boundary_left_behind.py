"""Hidden is not absent: a guest that writes the physical timer where older kernels do not list it.

The guest writes CNTP_CVAL_EL0 and tells ten times a second what it finds there. Linux 6.1 lists no
register of the physical timer, 6.12 does: presented as 6.1 it is hidden, carried over 6.1 it comes
home.
"""

from importlib.resources import as_file, files
from pathlib import Path

import pytest

from armferry.boundary import Table, birth, carry, take
from armferry.hosts.fingerprints.atlas import read_atlas
from armferry.hosts.fingerprints.open_subject import open_subject
from armferry.lab.cross import cross_tool
from armferry.lab.host import HostSpec, LabHost
from armferry.lab.kernels import KernelStore
from armferry.lab.releases import release_named
from armferry.lab.stays import Stay, Stayed, stay
from armferry.registers import is_constant

pytestmark = [pytest.mark.qemu, pytest.mark.kernel, pytest.mark.full]

SOURCE = Path(__file__).with_name("physical_timer.s")
MACHINE = "virt-10.0"
CVAL = 0x603000000013DF12
WRITTEN = 0x0123456789ABCDEF
LEFT = (
    f"CNTP_CVAL_EL0 now holds {WRITTEN:#x}: it is hidden, so a move leaves this behind; the guest "
    "finds the register as after reset there (vCPU 0)"
)


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("guest")
    made, linked = folder / "guest.o", folder / "guest.elf"
    cross_tool("the test guest", "as", "-o", str(made), str(SOURCE))
    with as_file(files("armferry.lab.guest") / "guest.ld") as script:
        cross_tool("the test guest", "ld", "-T", str(script), "-o", str(linked), str(made))
    return linked.read_bytes()


def table(host: str, presented: str) -> bytes:
    """What is done at the boundary of the kernel `host` that presents `presented`."""
    own, other = (read_atlas().find(f"{one}/neoverse-n1") for one in (host, presented))
    found = birth(own.fingerprint.cpus[0], other.fingerprint.cpus[0], other.release)
    return Table(found.rules).packed()


def held(kernel: str, guest: bytes, one: Stay) -> Stayed:
    with LabHost(HostSpec(KernelStore().get(kernel), release_named("trixie"))) as host:
        (found,) = stay(host, guest, [one])
    assert found.outcome.completed, found
    return found


def ticks(found: Stayed, before: Stayed | None = None) -> set[int]:
    """What the guest found in the register during this stay."""
    lines = found.log[len(before.log) if before else 0 :].splitlines()
    return {int(line.split()[1], 16) for line in lines if len(line) == len("tick ") + 16}


def listed(found: Stayed, folder: Path) -> dict[int, int]:
    path = folder / "stream"
    path.write_bytes(found.stream)
    return dict(open_subject(str(path)).lists[0])


def test_what_a_guest_leaves_in_a_hidden_register_is_reported(guest: bytes, tmp_path: Path) -> None:
    """Born on 6.12 as on 6.1; on 6.1, as reported, the register is as after reset."""
    born = held("6.12", guest, Stay(MACHINE, table("6.12", "6.1")))
    assert ticks(born) == {WRITTEN}, "the hardware lets it write"
    assert CVAL not in listed(born, tmp_path)
    assert LEFT in born.trace
    taken = held("6.1", guest, Stay(MACHINE, b"", born.stream, born.log))
    assert ticks(taken, born) == {0}


def test_what_a_guest_wrote_is_carried_over_a_host_without_the_register(
    guest: bytes, tmp_path: Path
) -> None:
    """6.12 to 6.1 and back, with nothing but stock QEMU on 6.12."""
    home = held("6.12", guest, Stay(MACHINE))
    assert listed(home, tmp_path)[CVAL] == WRITTEN
    away = held("6.1", guest, Stay(MACHINE, carrying(), home.stream, home.log))
    assert listed(away, tmp_path)[CVAL] == WRITTEN
    back = held("6.12", guest, Stay(MACHINE, b"", away.stream, away.log))
    assert ticks(back, away) == {WRITTEN}
    assert listed(back, tmp_path)[CVAL] == WRITTEN


def carrying() -> bytes:
    """Every register of 6.12 that 6.1 lacks, carried; what 6.1 does not take, left as it is."""
    own, other = (
        read_atlas().find(f"{one}/neoverse-n1").fingerprint.cpus[0] for one in ("6.1", "6.12")
    )
    rules = [carry(index, other[index]) for index in other.keys() - own.keys()]
    rules += [
        take(index)
        for index in own.keys() & other.keys()
        if own[index] != other[index] and is_constant(index)
    ]
    return Table(rules).packed()
