"""A fleet of 100,000 hosts and 1,000,000 guests: how long it takes to take in, and to ask of.

Hosts have what the atlas recorded of real kernels, CPUs and QEMUs. Prints what `make bench` is read
for: `python -m benchmarks.fleet [HOSTS] [GUESTS-PER-HOST]`.
"""

import os
import random
import resource
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from armferry.fleet.overview import overview
from armferry.fleet.questions import By, matrix, stranded, stranded_guests
from armferry.fleet.standing import Standing
from armferry.fleet.store.database import open_database
from armferry.fleet.store.reading import Store
from armferry.fleet.store.writing import write_reports
from armferry.hosts.fingerprints.atlas import read_atlas
from armferry.hosts.fingerprints.fingerprint import Fingerprint
from armferry.hosts.report import HostReport, ReportedGuest, ReportedKind, ReportHead
from armferry.web.page import fleet_page

HOSTS, GUESTS = 100_000, 10
NOW = 1_790_000_000.0
CPUS = ("neoverse-n1", "neoverse-n2", "neoverse-v1")
ODD_CPUS, ODD_HOSTS = ("cortex-a72",), 3
QEMUS = ("10.0.2", "10.0.13", "11.1.3")
MACHINE = "virt-10.0"
T = TypeVar("T")


def prints(cpus: Sequence[str]) -> list[Fingerprint]:
    """Every kernel of the atlas on these CPUs, with three QEMUs each."""
    atlas = read_atlas()
    names = [f"{e.name}/qemu-{qemu}" for e in atlas.kernels if e.cpu in cpus for qemu in QEMUS]
    found = [atlas.find(name).fingerprint for name in names]
    return [replace(one, provenance=replace(one.provenance, machine=MACHINE)) for one in found]


def reports(hosts: int, guests: int) -> Iterator[HostReport]:
    """Hosts in racks and sites; a tenth of the guests came from elsewhere.

    The first hosts are of CPUs that no other has: their guests have nowhere to go.
    """
    chance = random.Random(1)
    known, odd = prints(CPUS), prints(ODD_CPUS)
    kind = f"{MACHINE} host kvm"
    for number in range(hosts):
        found = odd[-1 - number] if number < ODD_HOSTS else chance.choice(known)
        about = found.provenance
        yield HostReport(
            ReportHead(
                f"host-{number:06}.example",
                NOW - chance.random() * 90_000,
                str(uuid.UUID(int=number)),
            ),
            about.kernel,
            "0.1.0",
            (about.qemu,),
            about.hardware,
            512 << 30,
            f"site {number % 5}",
            f"rack {number % 2000}",
            (ReportedKind(MACHINE, "host", "kvm", "/usr/bin/qemu-system-aarch64", found),),
            tuple(
                ReportedGuest(
                    str(uuid.UUID(int=chance.getrandbits(128))),
                    f"vm-{number}-{one}",
                    kind,
                    4 << 30,
                    "came" if chance.random() < 0.1 else "here",
                )
                for one in range(guests)
            ),
        )


def timed(what: str, run: Callable[[], T], unit: str = "s") -> T:
    """Runs and says how long it took, by the clock and of the processor."""
    begin, worked = time.perf_counter(), time.process_time()
    found = run()
    took, work = time.perf_counter() - begin, time.process_time() - worked
    scale = 1000 if unit == "ms" else 1
    print(
        f"{what:<46} {took * scale:>10.1f} {unit:<3} {work * scale:>10.1f} {unit} CPU", flush=True
    )
    return found


def main(hosts: int = HOSTS, guests: int = GUESTS) -> None:
    """Takes the fleet in, and asks."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "fleet.sqlite"
        database = open_database(str(place))
        timed(
            f"{hosts:,} hosts, {hosts * guests:,} guests taken in",
            lambda: write_reports(database, reports(hosts, guests)),
        )

        def fresh() -> Standing:
            return Standing(Store(database))  # remembers nothing

        timed("every cell between kernels, the first time", lambda: matrix(fresh(), By.KERNEL))
        timed("matrix by kernel", lambda: matrix(fresh(), By.KERNEL), "ms")
        timed("stranded, the first time", lambda: stranded(fresh()))

        def listed() -> int:
            standing = fresh()
            return len(stranded_guests(standing, stranded(standing), 500))

        timed("stranded, with 500 guests by name", listed, "ms")
        page = timed("the page", lambda: fleet_page(overview(fresh(), NOW)))
        print(f"{'the page':<46} {len(page.encode()) / 1e6:>10.2f} MB")
        database.close()
        print(f"{'SQLite':<46} {os.path.getsize(place) / 1e6:>10.1f} MB")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{'memory, at most':<46} {peak / 1024:>10.0f} MiB")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
