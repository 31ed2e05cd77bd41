"""The law: what a risk promises is what a running Linux guest meets.

None and lossless: it goes on, notices nothing, and starts again. Guest-visible: it goes on. Breaks:
it was said before. Stock QEMU loads or refuses the guest as predicted. docs/linux-moves.md is
written of every pair (`make test-full`); `make test` tries those that differ in kind.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from armferry.decide import Risk
from armferry.lab.qemu_install import InstalledQemu

from .linux_rig import KERNEL, MACHINE, LinuxRig, Pair, Told

pytestmark = [pytest.mark.qemu, pytest.mark.kernel]

RELEASES = ("7.2.22", "10.0.2", "10.0.13", "11.1.3")
MODELS = {
    "cortex-a57": RELEASES,
    "neoverse-n1": RELEASES,
    "neoverse-n2": RELEASES[1:],
    "max": RELEASES,
}
EVERY = tuple(
    Pair(cpu, source, destination)
    for cpu, releases in MODELS.items()
    for source in releases
    for destination in releases
)
THAT_MATTER = (
    Pair("cortex-a57", "10.0.2", "10.0.13"),  # lossless
    Pair("cortex-a57", "10.0.2", "10.0.2"),  # the same release: perf's counters alone
    Pair("max", "7.2.22", "10.0.13"),  # another algorithm of pointer authentication
)
DOCUMENT = Path(__file__).parents[2] / "docs" / "linux-moves.md"


@pytest.fixture(scope="session")
def linux_rig(
    qemu_release: Callable[[str], InstalledQemu], tmp_path_factory: pytest.TempPathFactory
) -> LinuxRig:
    return LinuxRig(qemu_release, tmp_path_factory.mktemp("linux"))


@pytest.mark.parametrize("pair", THAT_MATTER, ids=str)
def test_what_was_said_is_what_linux_meets(linux_rig: LinuxRig, pair: Pair) -> None:
    told = linux_rig.carry(pair, reboot=pair.cpu != "max")
    assert told.law_holds, told
    if pair.cpu != "max":
        same = pair.source == pair.destination
        # none where no counter of perf had passed its 32 bits yet
        assert (Risk.NONE if same else Risk.LOSSLESS) <= told.risk <= Risk.LOSSLESS, told
    else:
        assert told.risk is Risk.BREAKS, told
        assert not told.alive
        assert any("Kernel panic" in line or "Oops" in line for line in told.noticed)


@pytest.mark.full
def test_every_pair_meets_what_was_said(linux_rig: LinuxRig) -> None:
    for pair in EVERY:
        linux_rig.host(pair.source, pair.cpu)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda one: linux_rig.saved(*one), {(p.source, p.cpu) for p in EVERY}))
        rows = tuple(pool.map(lambda pair: linux_rig.carry(pair, reboot=True), EVERY))
    DOCUMENT.write_text("\n".join(written(rows)) + "\n")
    assert [row for row in rows if not row.law_holds] == []


def written(rows: tuple[Told, ...]) -> Iterator[str]:
    """The table, as a document."""
    moves = [row for row in rows if row.pair.source != row.pair.destination]
    yield "# What a running Linux guest meets, pair by pair, under TCG"
    yield ""
    yield "Written by `tests/e2e/test_linux_moves.py` (`make test-full`): real QEMUs, real Linux."
    yield ""
    yield (
        f"Debian's Linux {KERNEL} with the lab's workload (`armferry lab guest`), two vCPUs, "
        f"machine {MACHINE}: saved by one release while it runs, judged, ferried under the plan, "
        f"loaded by the other and watched. Of {len(moves)} moves between releases, stock QEMU "
        f"loads {sum(row.stock_loads for row in moves)}. "
        f"{sum(row.law_holds for row in rows)} of {len(rows)} guests met what was said. *Said* is "
        "the risk; *noticed* is what the workload and the kernel's log showed afterwards; "
        "*starts again* is a warm reboot there."
    )
    for cpu in MODELS:
        yield ""
        yield f"## {cpu}"
        yield ""
        yield "| from | to | stock QEMU | said | noticed | starts again |"
        yield "|---|---|---|---|---|---|"
        for row in rows:
            if row.pair.cpu == cpu:
                yield f"| {' | '.join(cells(row))} |"


def cells(row: Told) -> Iterator[str]:
    yield row.pair.source
    yield row.pair.destination
    yield "loads" if row.stock_loads else "refuses"
    yield str(row.risk)
    if row.alive:
        yield "; ".join(row.noticed[:2]) or "nothing"
    else:
        yield f"dies: {row.noticed[0]}"
    yield {None: "-", True: "yes", False: "no"}[row.rebooted]
