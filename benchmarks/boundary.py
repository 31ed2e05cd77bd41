"""What the library at the KVM boundary costs: each ioctl, a start and a load.

    python -m benchmarks.boundary [--runs N]

The library is compiled for this machine. An ioctl that it does not look at, as KVM_RUN is, is made
some millions of times with it and without it, in turn, on a device that refuses it at once: what
differs is the library. Requests that it looks at are made of a small kernel in the same process
(tests/boundary/driver.c) for 64 vCPUs with the rules of a guest born on 7.3 as on 5.10.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from armferry.boundary import Preload, Table, birth
from armferry.boundary.build import compile_library
from armferry.hosts.fingerprints.atlas import read_atlas

_ROUNDS = 5_000_000
_VCPUS = 64
_DRIVER = Path(__file__).parents[1] / "tests" / "boundary" / "driver.c"
_LOOP = """
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>
int main(int count, char **words)
{
    long rounds = atol(words[count - 1]);
    int fd = open("/dev/null", O_RDWR);
    struct timespec from, to;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
    for (long at = 0; at < rounds; at++)
        ioctl(fd, 0xae80, 0);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
    printf("%.3f\\n", ((to.tv_sec - from.tv_sec) * 1e9 + (to.tv_nsec - from.tv_nsec)) / rounds);
}
"""


def main() -> int:
    """Prints what each costs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory(prefix="armferry-bench-") as name:
        folder = Path(name)
        library = folder / "libarmferry-boundary.so"
        compile_library(library, aarch64=os.uname().machine == "aarch64")
        table = _table()
        _ioctl(folder, library, table, runs)
        _vcpus(folder, library, table, runs)
    return 0


def _table() -> Table:
    newer, older = (read_atlas().find(f"{kernel}/neoverse-n1") for kernel in ("7.3", "5.10"))
    found = birth(newer.fingerprint.cpus[0], older.fingerprint.cpus[0], older.release)
    return Table(found.rules)


def _ioctl(folder: Path, library: Path, table: Table, runs: int) -> None:
    loop = folder / "loop"
    command = ["cc", "-O2", "-x", "c", "-", "-o", str(loop)]
    subprocess.run(command, input=_LOOP, text=True, check=True)
    without: list[float] = []
    beside: list[float] = []
    for _ in range(runs):
        without.append(float(_said([str(loop), str(_ROUNDS)], None, "")))
        preload = Preload.of(table.packed(), library)
        with preload.reports:
            beside.append(float(_said([str(loop), str(_ROUNDS)], preload, "")))
            preload.close_for_qemu()
    print(
        f"one ioctl such as KVM_RUN: {statistics.median(without):.1f} ns, with the library "
        f"{statistics.median(beside):.1f} ns"
    )


def _vcpus(folder: Path, library: Path, table: Table, runs: int) -> None:
    driver = folder / "driver"
    command = ["cc", "-O2", "-rdynamic", "-pthread", str(_DRIVER), "-o", str(driver)]
    subprocess.run(command, check=True)
    own = read_atlas().find("7.3/neoverse-n1").fingerprint.cpus[0]
    registers = "".join(f"reg {index:x} {value:x} rw\n" for index, value in own.items())
    script = f"{registers}threads {_VCPUS} 1\n"
    without: list[float] = []
    beside: list[float] = []
    for _ in range(runs):
        began = time.perf_counter()
        _said([str(driver)], None, script.replace("threads", "#"))
        idle = time.perf_counter() - began
        preload = Preload.of(table.packed(), library)
        with preload.reports:
            began = time.perf_counter()
            _said([str(driver)], preload, script)
            beside.append(time.perf_counter() - began - idle)
            preload.close_for_qemu()
        preload = Preload.of(Table(()).packed(), library)
        with preload.reports:
            began = time.perf_counter()
            _said([str(driver)], preload, script)
            without.append(time.perf_counter() - began - idle)
            preload.close_for_qemu()
    plain, ruled = (1e3 * statistics.median(times) for times in (without, beside))
    print(
        f"{_VCPUS} vCPUs initialised, listed, read and written: {plain:.1f} ms without rules, "
        f"{ruled:.1f} ms with {len(table.rules)} rules"
    )


def _said(command: list[str], preload: Preload | None, script: str) -> str:
    done = subprocess.run(
        command,
        input=script,
        capture_output=True,
        text=True,
        check=True,
        env=None if preload is None else preload.environment(os.environ),
        pass_fds=() if preload is None else (preload.table, preload.writing),
    )
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
