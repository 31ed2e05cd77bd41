"""`python -m fuzz [TARGET ...] [--seconds S] [--seed N]`: a plain mutator at work.

Prints for each target how many inputs ran, the greatest processor time for a byte and the greatest
memory for a byte that were seen. Ends with 1 when something was found; each finding is a file below
`fuzz/findings`, to be run again with `--replay FILE`.
"""

import argparse
import random
import sys
import time
import traceback
import tracemalloc
import zlib
from dataclasses import dataclass
from pathlib import Path

from fuzz.mutator import mutated
from fuzz.targets import TARGETS, Target

FINDINGS = Path("fuzz/findings")
MAX_SECONDS = 0.25
"""Processor time that any input may take, however small it is."""
MAX_SECONDS_FOR_BYTE = 100e-6
MAX_MEMORY_FOR_BYTE = 64
_POOL = 4000
_ENOUGH = 20  # findings of one target: they are of one kind
_MEASURED = 50  # of so many inputs one is run with its memory traced, which is slow


@dataclass
class Tally:
    """What was seen of one target."""

    runs: int = 0
    findings: int = 0
    seconds: float = 0.0
    for_byte: float = 0.0
    memory_for_byte: float = 0.0


def main() -> int:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}; default: all")
    parser.add_argument("--seconds", type=float, default=60.0, help="of processor time, for each")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--replay", type=Path, help="run this file alone")
    arguments = parser.parse_args()
    names = arguments.targets or list(TARGETS)
    unknown = set(names) - set(TARGETS)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    if arguments.replay:
        for name in names:
            TARGETS[name].run(arguments.replay.read_bytes())
        return 0
    seed = random.SystemRandom().randrange(1 << 32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}, {arguments.seconds:g} s of processor time for each target", flush=True)
    total = found = 0
    for name in names:
        tally = attack(name, TARGETS[name], arguments.seconds, random.Random(seed))
        total += tally.runs
        found += tally.findings
        print(
            f"{name:<14} {tally.runs:>8} inputs  {tally.findings} findings  "
            f"{tally.for_byte * 1e6:6.1f} us a byte  {tally.memory_for_byte:5.1f} bytes a byte",
            flush=True,
        )
    print(f"{total} inputs, {found} findings")
    return 1 if found else 0


def attack(name: str, target: Target, seconds: float, rng: random.Random) -> Tally:
    """Runs `target` for `seconds` on its seeds and on what becomes of them."""
    tally = Tally()
    seeds = target.seeds()
    pool = list(seeds)
    end = time.process_time() + seconds
    while time.process_time() < end or tally.runs < len(seeds):
        first = tally.runs < len(seeds)
        # most of what was changed twice is refused at its head: half of them are changed once
        base = seeds if rng.random() < 0.5 else pool
        data = seeds[tally.runs] if first else mutated(rng.choice(base), pool, rng)
        fault = run(target, data, tally, traced=tally.runs % _MEASURED == _MEASURED - 1)
        if fault:
            tally.findings += 1
            keep(name, data, fault)
            if tally.findings == _ENOUGH:
                break
        elif rng.random() < 0.02:
            # what has been changed once is changed again; the first ones stay
            pool[len(seeds) :] = [*pool[len(seeds) :], data][-_POOL:]
    return tally


def run(target: Target, data: bytes, tally: Tally, *, traced: bool) -> str:
    """What is wrong with one input, empty when nothing is."""
    size = max(len(data), 1)
    if traced:
        tracemalloc.start()
    begin = time.process_time()
    try:
        target.run(data)
    except Exception:
        return traceback.format_exc()
    finally:
        seconds = time.process_time() - begin
        peak = 0
        if traced:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        tally.runs += 1
    if traced:
        tally.memory_for_byte = max(tally.memory_for_byte, (peak - target.memory) / size)
        if peak > target.memory + MAX_MEMORY_FOR_BYTE * size:
            return f"{peak} bytes of memory for {size} bytes"
        return ""
    tally.seconds += seconds
    if size >= 1024:
        tally.for_byte = max(tally.for_byte, seconds / size)
    if seconds > MAX_SECONDS + MAX_SECONDS_FOR_BYTE * size:
        # another program may have taken the caches: once more, and only then is it true
        begin = time.process_time()
        target.run(data)
        again = time.process_time() - begin
        if again > MAX_SECONDS + MAX_SECONDS_FOR_BYTE * size:
            return f"{again:.3f} s of processor time for {size} bytes"
    return ""


def keep(name: str, data: bytes, fault: str) -> None:
    """Writes a finding down."""
    FINDINGS.mkdir(parents=True, exist_ok=True)
    path = FINDINGS / f"{name}-{zlib.crc32(data):08x}"
    path.write_bytes(data)
    print(f"FOUND {path} ({len(data)} bytes)\n{fault}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
