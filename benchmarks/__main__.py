"""`python -m benchmarks`: prints every measurement; exit code 1 when a bound does not hold."""

import sys

from benchmarks.saved import measure

failed = False
for result in measure():
    failed |= not result.holds
    print(f"{'ok  ' if result.holds else 'SLOW'} {result.name}: {result.figures} [{result.bound}]")
    sys.stdout.flush()
sys.exit(failed)
