"""How long the upgrade of a fleet takes to plan and to check: `python -m benchmarks.fleet_plan`.

A made-up fleet, as large as is asked for (100,000 hosts and 1,000,000 guests unless it is said):
builds drawn from some hundreds, half of the guests born elsewhere than they are, one in ten pinned
to a few failure domains, one in twenty kept apart from another. No cell is worked out here: what a
cell costs is measured by `benchmarks.decision`.
"""

import argparse
import gc
import json
import random
import resource
import sys
import time

from armferry.fleet.plan.checker import check_plan
from armferry.fleet.plan.document import RecordedWays, plan_document
from armferry.fleet.plan.model import NO_WAY, Limits, PlanFleet, PlanGuest, PlanHost, Scope, Way
from armferry.fleet.plan.solve import solve

__all__ = ["made_fleet", "main", "ways"]

_GIB = 1 << 30
_SERIES = 12
"""Kernels of the made-up fleet, oldest first; what was born on a newer one may not go far back."""
_FLAVOURS = 25
"""CPUs and QEMUs, none of which goes to another."""
_DOMAIN = 40
"""Hosts in one failure domain."""


def made_fleet(hosts: int, guests: int, seed: int = 0) -> PlanFleet:
    """A fleet of which nine hosts in ten are to be upgraded to the newest kernel."""
    chance = random.Random(seed)
    made = []
    for n in range(hosts):
        kernel = chance.choices(range(_SERIES), weights=range(1, _SERIES + 1))[0]
        flavour = n // _DOMAIN % _FLAVOURS
        target = f"{_SERIES}.{flavour}" if chance.random() < 0.9 else None
        made.append(
            PlanHost(f"host-{n}", f"{kernel}.{flavour}", target, 256 * _GIB, f"rack-{n // _DOMAIN}")
        )
    used = [0] * hosts
    placed = []
    for n in range(guests):
        size = chance.choice((4, 8, 8, 16, 32)) * _GIB
        at = chance.randrange(hosts)
        while used[at] + size > 224 * _GIB or at % 200 == 0:
            at = (at + 1) % hosts
        used[at] += size
        text, _, hardware = made[at].build.partition(".")
        series = int(text)
        birth = chance.randrange(series + 1) if chance.random() < 0.5 else series
        rack = at // _DOMAIN
        racks = (hosts + _DOMAIN - 1) // _DOMAIN
        pinned = chance.random() < 0.1
        only = {f"rack-{(rack + step * _FLAVOURS) % racks}" for step in range(4)} if pinned else ()
        apart = f"pair-{n // 40}" if n % 20 == 0 else ""
        placed.append(
            PlanGuest(
                f"guest-{n}",
                made[at].name,
                f"{birth}.{hardware}",
                size,
                only=frozenset(only),
                apart=apart,
                scope=Scope.HOST,
            )
        )
    return PlanFleet(tuple(made), tuple(placed))


def ways(birth: str, present: str, destination: str) -> Way:
    """A guest goes up, and down to where it was born and not below; two steps want a policy."""
    born, _, _ = birth.partition(".")
    here, _, flavour = present.partition(".")
    there, _, other = destination.partition(".")
    if flavour != other or int(there) < int(born):
        return NO_WAY
    far = int(there) - int(here)
    return Way(
        True,
        visible=far == _SERIES,
        entries=frozenset({f"entry-{here}"} if far > 8 else ()),
        armferry=far != 0,
    )


def main() -> None:
    """Plans, checks, and prints both times and the most memory that was used."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hosts", type=int, default=100_000)
    parser.add_argument("--guests", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    gc.disable()  # as the command does: nothing here is a circle
    fleet = made_fleet(given.hosts, given.guests)
    recorded = RecordedWays(ways)
    limits = Limits(wave=given.hosts // 50, spare=given.hosts // 1000)
    start = time.process_time()
    solution = solve(fleet, recorded, limits)
    planned = time.process_time()
    document = plan_document(fleet, recorded.allowed, limits, solution, {})
    checked = check_plan(document)
    done = time.process_time()
    if not checked.holds:
        sys.exit("\n".join(checked.faults))
    figures = {
        "hosts": given.hosts,
        "guests": given.guests,
        "builds": len({host.build for host in fleet.hosts}),
        "plan_cpu_seconds": round(planned - start, 1),
        "check_cpu_seconds": round(done - planned, 1),
        "most_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "cost": solution.cost._asdict(),
        "bound": solution.bound._asdict(),
        "proved": solution.proved,
    }
    if given.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name}: {value}")


if __name__ == "__main__":
    main()
