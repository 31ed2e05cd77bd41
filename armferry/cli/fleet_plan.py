"""`armferry fleet plan`: in which order a fleet is upgraded, and whether a plan holds."""

import argparse
import gc
import json
import re
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from armferry.cli import render
from armferry.cli.fleet_open import open_standing
from armferry.errors import ArmferryError
from armferry.fleet.plan.checker import Checked, check_plan
from armferry.fleet.plan.document import (
    RecordedWays,
    fleet_document,
    limits_of,
    plan_document,
    replayed,
    ways_of,
)
from armferry.fleet.plan.drawing import waves_svg
from armferry.fleet.plan.from_fleet import FleetWays, Goal, plan_fleet_of
from armferry.fleet.plan.model import Limits, PlanFleet, Ways
from armferry.fleet.plan.named_guests import named_guests
from armferry.fleet.plan.runbook import Tool, plan_lines
from armferry.fleet.plan.solve import solve
from armferry.hosts.files.atomic import write_whole

__all__ = ["run_plan"]

_PERCENT = re.compile(r"(\d{1,3}(?:\.\d+)?)%")
_FEW_BUILDS = 24
"""Builds up to which policy entries that would open a way are worked out."""
_SHOWN, _MANY = 60, 100_000


def run_plan(arguments: argparse.Namespace) -> int:
    """Plans, or checks a plan; 2 when there is none, or it does not hold."""
    if arguments.check is not None:
        return _check(arguments)
    if arguments.resume is not None:
        document = _read(arguments.resume)
        fleet, ways, goal = replayed(document, arguments.done), ways_of(document), document["goal"]
        limits = limits_of(document)
        extra: Ways | None = None
        notes: list[str] = []
    else:
        if arguments.to is None:
            arguments.usage_error("--to is missing: write --to kernel=6.17")
        fleet, ways, extra, goal, notes = _from_store(arguments)
        limits = _limits(arguments, fleet)
    if len(fleet.guests) > _MANY:
        gc.disable()  # for a million rows it takes a third of the time, and finds nothing
    recorded = RecordedWays(ways)
    solution = solve(fleet, recorded, limits, states=arguments.states)
    allowed = dict(recorded.allowed)
    document = plan_document(fleet, allowed, limits, solution, goal)
    checked = check_plan(document)
    if not checked.holds:
        raise RuntimeError(f"a plan that does not hold: {checked.faults[0]}")
    document["guests_named"] = named_guests(
        fleet, recorded, limits, solution, checked.exempt, extra
    )
    _write(arguments, document, fleet)
    if arguments.json:
        print(json.dumps(document))
    else:
        _show(arguments, document, fleet, notes)
    return 1 if solution.cost.entries or solution.cost.visible else 0


def _from_store(
    arguments: argparse.Namespace,
) -> tuple[PlanFleet, Ways, Ways | None, Mapping[str, str], list[str]]:
    standing = open_standing(arguments)
    goal = Goal.read(arguments.to)
    fleet, unknown = plan_fleet_of(standing, standing.store.fleet(), goal)
    few = len(fleet.classes) <= _FEW_BUILDS
    ways = FleetWays(standing, sure=arguments.only_sure, entries=few)
    notes = [f"{len(unknown)} hosts are left as they are; {unknown[0]}"] if unknown else []
    words = {name: value for name, value in (("kernel", goal.kernel), ("qemu", goal.qemu)) if value}
    return fleet, ways, ways if few else None, words, notes


def _limits(arguments: argparse.Namespace, fleet: PlanFleet) -> Limits:
    """Raises ArmferryError for a wave that is no number."""
    text = arguments.wave
    percent = _PERCENT.fullmatch(text)
    if percent is not None:
        wave = max(1, int(len(fleet.hosts) * float(percent[1]) / 100))
    elif re.fullmatch(r"[1-9]\d{0,8}", text):
        wave = int(text)
    else:
        raise ArmferryError(f"--wave {text}: write a number of hosts, or a share such as 2%")
    if arguments.spare < 0:
        raise ArmferryError("--spare is a number of hosts, 0 or more")
    return Limits(wave, arguments.spare, arguments.keep_way_back)


def _read(path: Path) -> dict[str, Any]:
    """Raises ArmferryError."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ArmferryError(f"{path}: no JSON: {error}") from None
    if not isinstance(document, dict) or not isinstance(document.get("waves"), list):
        raise ArmferryError(f"{path}: no plan: it has no list of waves (docs/fleet-plan.md)")
    document.setdefault("goal", {})
    return document


def _check(arguments: argparse.Namespace) -> int:
    document = _read(arguments.check)
    if "fleet" not in document:
        words = ",".join(f"{name}={value}" for name, value in document["goal"].items() if value)
        arguments.to = arguments.to or words
        if not arguments.to:
            raise ArmferryError(
                f"{arguments.check}: it names no fleet; to check it against the store, "
                "say what it upgrades to: --to kernel=6.17"
            )
        fleet, ways, _, _, _ = _from_store(arguments)
        document["fleet"] = fleet_document(fleet, _every_way(fleet, ways))
    checked = check_plan(document)
    if arguments.json:
        print(json.dumps(_checked_document(checked), indent=1))
        return 0 if checked.holds else 2
    for fault in checked.faults:
        render.line(fault, "bad")
    if checked.exempt:
        render.line(f"note: nowhere to go before the plan: {_few(checked.exempt)}", "warn")
    cost = ", ".join(f"{name} {value:,}" for name, value in checked.cost.items())
    if checked.holds:
        render.line(f"the plan holds: {checked.steps:,} steps; {cost}", "good")
        return 0
    render.line(f"the plan does not hold: {len(checked.faults)} faults", "bad")
    return 2


def _every_way(fleet: PlanFleet, ways: Ways) -> dict[tuple[str, str, str], Any]:
    """All ways that a guest of the fleet could need, for a plan that somebody else made."""
    recorded = RecordedWays(ways)
    builds = list(dict.fromkeys(b for host in fleet.hosts for b in (host.build, host.target) if b))
    for kind in {guest.kind for guest in fleet.guests}:
        classes = {one for build in builds if (one := fleet.class_of(build, kind)) is not None}
        births = {guest.birth for guest in fleet.guests if guest.kind == kind} | classes
        for birth in births:
            for present in classes:
                for destination in classes:
                    recorded(birth, present, destination)
    return dict(recorded.allowed)


def _checked_document(checked: Checked) -> dict[str, Any]:
    return {
        "schema": 1,
        "holds": checked.holds,
        "faults": checked.faults,
        "cost": checked.cost,
        "steps": checked.steps,
        "waves": checked.waves,
        "one_way": checked.one_way,
        "exempt": checked.exempt,
    }


def _write(arguments: argparse.Namespace, document: Mapping[str, Any], fleet: PlanFleet) -> None:
    if arguments.output is not None:
        write_whole(arguments.output, json.dumps(document, separators=(",", ":")) + "\n")
    if arguments.svg is not None:
        write_whole(arguments.svg, waves_svg(document))
    if arguments.runbook is not None:
        lines = plan_lines(document, Tool(arguments.tool), fleet)
        write_whole(arguments.runbook, "\n".join(lines) + "\n")


def _show(
    arguments: argparse.Namespace,
    document: Mapping[str, Any],
    fleet: PlanFleet,
    notes: list[str],
) -> None:
    for note in notes:
        render.line(f"note: {note}", "warn")
    evidence = dict.fromkeys(host.evidence for host in fleet.hosts if host.evidence)
    for text in list(evidence)[:8]:
        render.line(f"taken to become {text}")
    lines = list(islice(plan_lines(document, Tool(arguments.tool), fleet), _SHOWN + 1))
    for line in lines[:_SHOWN]:
        if line.startswith(" "):
            render.line(line)
        else:
            render.heading(line)
    if len(lines) > _SHOWN:
        render.line("... and more; --runbook FILE writes all steps")
    words = {
        "one-way": "cannot come back",
        "restart": "are restarted",
        "nowhere": "have nowhere to go even now",
    }
    for group in document["guests_named"][:10]:
        render.line(
            f"{group['guests']:,} guests {words[group['what']]}: {_few(group['names'])}; "
            f"cheapest: {group['cures'][0]}",
            "warn",
        )
    cost, bound = document["cost"], document["bound"]
    render.heading("Plan")
    render.line(", ".join(f"{name} {cost[name]:,}" for name in cost if name != "early"))
    if document["optimal"]:
        render.line("optimal: no plan costs less, in this order of preference", "good")
    else:
        proved = ", ".join(document["proved"]) or "nothing"
        limits = ", ".join(f"{name} {bound[name]:,}" for name in bound if name != "early")
        render.line(f"proved to be the least: {proved}; no plan is below: {limits}", "warn")
    for path in (arguments.output, arguments.svg, arguments.runbook):
        if path is not None:
            render.line(f"wrote {path}")
    if arguments.output is None:
        render.next_step(f"armferry fleet plan --to {arguments.to} -o plan.json")
    else:
        render.next_step(f"armferry fleet plan --check {arguments.output}")


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
