"""Plans written by hand, and what the checker says of them."""

import ast
import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from armferry.fleet.plan import checker
from armferry.fleet.plan.checker import check_plan
from armferry.fleet.plan.document import PlanDocumentError, limits_of, replayed, ways_of
from armferry.fleet.plan.model import NoPlan
from armferry.fleet.plan.solve import solve

NEITHER = "is neither move nor restart with guest, from, to"
COST = {"restarts": 0, "visible": 0, "entries": 0, "moves": 2, "waves": 2, "early": 0}
DOCUMENT = Path(__file__).parents[3] / "docs" / "fleet-plan.md"


def plan() -> dict[str, Any]:
    """The plan of docs/fleet-plan.md: two hosts, one guest."""
    text = DOCUMENT.read_text(encoding="utf-8")
    found = re.search(r"```json\n(.*?)```", text, re.DOTALL)
    assert found is not None
    document: dict[str, Any] = json.loads(found[1])
    return document


def test_plan_of_the_documentation_holds() -> None:
    checked = check_plan(plan())
    assert checked.faults == []
    assert checked.cost == COST


def faults(change: str, value: Any) -> list[str]:
    """What is wrong once one thing of the plan is another; `change` is a path of keys."""
    document = copy.deepcopy(plan())
    *path, last = [int(key) if key.isdigit() else key for key in change.split(".")]
    place: Any = document
    for key in path:
        place = place[key]
    place[last] = value
    return check_plan(document).faults


@pytest.mark.parametrize(
    ("change", "value", "fault"),
    [
        ("fleet.hosts.1.memory", 7, "step 1: b has 7 free, and web needs 8"),
        ("fleet.ways", [], "step 1: web cannot go from a to b as they are"),
        ("waves.0.steps", [], "wave 1: web still on a"),
        ("waves.0.steps.0.2", "b", "step 1: web is on a then, not on b"),
        ("waves.1.upgrades", [], "the plan ends with b not upgraded"),
        ("waves.0.upgrades", ["a", "b"], "wave 1: 2 hosts at once, 1 are allowed"),
        ("waves.0.upgrades", ["c"], "wave 1: c is not to be upgraded, or was"),
        (
            "limits.spare",
            1,
            "wave 1, while its hosts are down: 0 hosts are empty, 1 are to be spare",
        ),
        (
            "fleet.guests.0.pins",
            {"only": ["a"]},
            "step 1: web on b: it may run on a only",
        ),
        ("fleet.guests.0.pins", {"never": ["b"]}, "step 1: web on b: it may never run there"),
        (
            "fleet.ways",
            [{"birth": "old", "from": "old", "to": one} for one in ("old", "new")],
            "after wave 2, web on a has nowhere to go",
        ),
        (
            "fleet.ways.0.conditions",
            ["TCR2_EL1 holds 0x0"],
            "step 1: web cannot go from a to b as they are",
        ),
        (
            "waves.0.steps.0.0",
            "carry",
            "step 1: ['carry', 'web', 'a', 'b'] " + NEITHER,
        ),
        ("waves.0.steps.0", ["restart", "web", "a"], "step 1: ['restart', 'web', 'a'] " + NEITHER),
        ("fleet.guests.0.host", "z", "the document cannot be read: KeyError: 'z'"),
        ("cost", {"moves": 1}, f"it costs {COST}, not {{'moves': 1}} as it says"),
    ],
)
def test_a_fault_is_named(change: str, value: Any, fault: str) -> None:
    assert fault in faults(change, value)


def test_move_without_return_is_refused_where_it_is_to_be_kept() -> None:
    document = plan()
    document["limits"]["keep_way_back"] = True
    document["fleet"]["ways"] = [
        way for way in document["fleet"]["ways"] if (way["from"], way["to"]) != ("new", "old")
    ]
    assert "step 3: web could not come back from a" in check_plan(document).faults


def test_guest_is_restarted_around_the_upgrade_of_its_host() -> None:
    document = plan()
    document["waves"] = [
        {"steps": [["restart", "web", "a", "a"]], "upgrades": ["a"]},
        {"steps": [], "upgrades": ["b"]},
    ]
    document["fleet"]["ways"] += [
        {"birth": "new", "from": "new", "to": one} for one in ("old", "new")
    ]
    checked = check_plan(document)
    assert checked.faults == []
    assert checked.cost["restarts"] == 1
    document["waves"].reverse()
    assert check_plan(document).faults == []
    document["waves"][1]["steps"].append(["move", "web", "a", "b"])
    assert check_plan(document).faults == ["step 3: web is shut down then"]


def test_mates_are_kept_apart() -> None:
    document = plan()
    document["fleet"]["guests"] += [
        {"name": "web2", "host": "b", "birth": "old", "memory": 1, "pins": {"apart": "web"}}
    ]
    document["fleet"]["guests"][0]["pins"] = {"apart": "web"}
    assert "step 1: web on b: it is kept apart from web2" in check_plan(document).faults


def test_checker_shares_no_code_with_the_planner() -> None:
    tree = ast.parse(Path(checker.__file__).read_text(encoding="utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {one for one in imported if one and one.startswith("armferry")} == {
        "armferry.fleet.plan.checked"
    }


ANYTHING = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(["a", "web", "old"])
    ),
    lambda one: st.one_of(
        st.lists(one, max_size=4),
        st.dictionaries(st.sampled_from(["name", "host", "birth", "only", "steps"]), one),
    ),
    max_leaves=6,
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a document, with each of its keys."""
    keys = value if isinstance(value, dict) else range(len(value) if isinstance(value, list) else 0)
    for key in list(keys):
        yield value, key
        yield from places(value[key])


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_document_is_checked_or_refused_by_name(data: st.DataObject) -> None:
    document = plan()
    place, key = data.draw(st.sampled_from(list(places(document))))
    place[key] = data.draw(ANYTHING)
    check_plan(document)
    try:
        half = replayed(document, data.draw(st.integers(0, 4)))
        ways, limits = ways_of(document), limits_of(document)
    except PlanDocumentError:
        return
    try:
        solve(half, ways, limits, states=200)
    except NoPlan:
        return
