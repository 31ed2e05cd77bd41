"""Saved states: the page walk, inspect and ferry of a state of 4 GiB, peak memory.

Each line is a median against a named peer, measured in turn in the same run, and the bound that
it is held to.
"""

import contextlib
import io
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from armferry.cache import cache_folder
from armferry.cli.main import main
from armferry.hosts.fingerprints.fingerprint import dump
from armferry.hosts.fingerprints.probe import fingerprint_of_qemu
from armferry.hosts.qmp.process import MachineSpec
from armferry.lab.qemu_install import install
from armferry.lab.releases import release_named
from armferry.stream.ram import RamWalker
from benchmarks.snapshot_image import write_image
from benchmarks.state import MACHINE, PAGE, page_records, write_full_state
from benchmarks.timing import Comparison, compare, peak_of, run

__all__ = ["Result", "measure"]

GIB = 1 << 30
MIB = 1 << 20
SIZE = 4 * GIB
_ROOM = 3 * SIZE
_PAGES = 60_000
HERE, THERE = "10.0.2", "10.0.13"


@dataclass(frozen=True, slots=True)
class Result:
    """One line: what was measured, the figures in words, whether the bound holds."""

    name: str
    figures: str
    bound: str
    holds: bool


def measure() -> Iterator[Result]:
    """Every measurement, one after the other; needs 12 GiB of disk in the cache for a while."""
    yield _page_walk()
    folder = cache_folder("benchmarks")
    if shutil.disk_usage(folder).free < _ROOM:
        yield Result("state of 4 GiB", f"no room: {folder} needs {_ROOM >> 30} GiB", "", False)
        return
    with tempfile.TemporaryDirectory(dir=folder) as name:
        yield from _large_state(Path(name))


def _page_walk() -> Result:
    """Page records, half of them zero pages, against copying the same bytes once."""
    records = page_records(range(_PAGES), "mach-virt.ram", zero_every=2)

    def walk() -> None:
        walker = RamWalker(PAGE)
        walker.walk(records, 0, 0, None)
        assert walker.pages + walker.zero_pages == _PAGES

    found = compare(walk, lambda: bytearray(records), 9, time.process_time)
    rate = _PAGES / found.ours
    return Result(
        "page walk",
        f"{rate / 1e6:.2f} M pages and {len(records) / found.ours / 1e9:.1f} GB "
        f"of stream per CPU-second; "
        f"one copy of the same bytes: {found.ratio:.1f} times as long",
        ">= 3 M pages/s",
        rate >= 3e6,
    )


def _large_state(folder: Path) -> Iterator[Result]:
    state, copy = folder / "state", folder / "copy"
    write_full_state(state, HERE, SIZE)
    to = {release: folder / f"{release}.json" for release in (HERE, THERE)}
    for release, path in to.items():
        qemu = install(release_named(release))
        path.write_text(dump(fingerprint_of_qemu(qemu.launcher, MachineSpec(machine=MACHINE))))

    def cat() -> None:
        subprocess.run(["cat", state], stdout=subprocess.DEVNULL, check=True)

    found = compare(lambda: run("inspect", state, "--json"), cat, 5)
    yield Result(
        f"inspect of a state of {state.stat().st_size / GIB:.1f} GiB",
        f"{found.ours:.2f} s; {_against('cat FILE > /dev/null', found)}",
        "< 1 s",
        found.ours < 1,
    )

    destinations = [to[THERE], to[HERE]]

    def in_place() -> None:
        destinations.reverse()
        with contextlib.redirect_stdout(io.StringIO()):
            code = main(["ferry", str(state), "--in-place", "--to", str(destinations[1])])
        assert code == 0

    def cp() -> None:
        copy.unlink(missing_ok=True)
        subprocess.run(["cp", state, copy], check=True)
        subprocess.run(["sync", copy], check=True)

    found = compare(in_place, cp, 3)
    copy.unlink()
    yield Result(
        "ferry --in-place of the same, on disk when it ends",
        f"{found.ours:.3f} s and the start of Python; {_against('cp and sync', found)}",
        "< 1/50 of cp",
        found.ratio > 50,
    )

    commands = {
        "inspect": ("inspect", state),
        "check": ("check", state, "--to", to[HERE]),
        "ferry --in-place": ("ferry", state, "--in-place", "--to", to[HERE]),
        "ferry IN OUT": ("ferry", state, copy, "--to", to[HERE]),
    }
    peaks = {name: peak_of(*words) for name, words in commands.items()}
    peaks["ferry - OUT"] = peak_of("ferry", "-", copy, "--to", to[HERE], stdin=state)
    yield Result(
        "peak memory on the same",
        ", ".join(f"{name} {peak / MIB:.0f} MiB" for name, peak in peaks.items()),
        "< 80 MiB",
        max(peaks.values()) < 80 * MIB,
    )
    copy.unlink()
    yield from _snapshot(folder, state, to)


def _snapshot(folder: Path, state: Path, to: dict[str, Path]) -> Iterator[Result]:
    """The same state inside a qcow2 image."""
    image, copy = folder / "disk.qcow2", folder / "copy"
    write_image(image, state, "full")
    source = f"{image}#full"
    destinations = [to[THERE], to[HERE]]

    def in_place() -> None:
        destinations.reverse()
        with contextlib.redirect_stdout(io.StringIO()):
            code = main(["ferry", source, "--in-place", "--to", str(destinations[1])])
        assert code == 0

    def cp() -> None:
        copy.unlink(missing_ok=True)
        subprocess.run(["cp", "--sparse=never", image, copy], check=True)
        subprocess.run(["sync", copy], check=True)

    found = compare(in_place, cp, 3)
    copy.unlink()
    peak = peak_of("ferry", source, "--in-place", "--to", to[HERE])
    yield Result(
        "ferry --in-place of the same as a snapshot of a qcow2 image, on disk when it ends",
        f"{found.ours:.3f} s and the start of Python, peak {peak / MIB:.0f} MiB; "
        f"{_against('cp and sync', found)}",
        "< 0.2 s, < 40 MiB, < 1/100 of cp",
        found.ours < 0.2 and peak < 40 * MIB and found.ratio > 100,
    )


def _against(peer: str, found: Comparison) -> str:
    return f"{peer}: {found.theirs:.2f} s, {found.ratio:.0f} times as long"
