"""A plan as a document: read again, gone half through, run by a person, drawn."""

import json
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from armferry.fleet.plan.checker import check_plan
from armferry.fleet.plan.document import (
    PlanDocumentError,
    fleet_of,
    limits_of,
    numbered,
    plan_document,
    replayed,
    ways_of,
)
from armferry.fleet.plan.drawing import waves_svg
from armferry.fleet.plan.model import NO_WAY, Limits, NoPlan, PlanFleet, PlanGuest, PlanHost, Way
from armferry.fleet.plan.named_guests import named_guests
from armferry.fleet.plan.runbook import Tool, plan_lines
from armferry.fleet.plan.solve import solve

from .fleets import Case, cases


def four_hosts(one_way: bool = False) -> Case:
    """Four hosts of 8, one of them empty, a guest of 4 on each of the others."""
    hosts = tuple(PlanHost(f"h{n}", "old", "new", 8, f"d{n}") for n in range(4))
    guests = tuple(PlanGuest(f"g{n}", f"h{n}", "old", 4) for n in range(3))
    pairs = [("old", "old"), ("old", "new"), ("new", "new"), *([] if one_way else [("new", "old")])]
    table = {("old", *pair): Way(True) for pair in pairs}
    table["new", "new", "new"] = Way(True)
    return Case(PlanFleet(hosts, guests), table, Limits())


def document_of(case: Case) -> dict[str, Any]:
    solution = solve(case.fleet, case.ways, case.limits)
    named = named_guests(case.fleet, case.ways, case.limits, solution)
    ways = {key: way for key, way in case.table.items() if way.allowed}
    made = plan_document(case.fleet, ways, case.limits, solution, {"kernel": "6.17"}, named)
    again: dict[str, Any] = json.loads(json.dumps(made))
    return again


@settings(max_examples=40, deadline=None)
@given(cases(hosts=3, guests=4), st.data())
def test_plan_goes_on_from_any_of_its_steps(case: Case, data: st.DataObject) -> None:
    try:
        document = document_of(case)
    except NoPlan:
        return
    assert fleet_of(document) == case.fleet
    assert limits_of(document) == case.limits
    steps = list(numbered(document))
    done = data.draw(st.integers(0, len(steps)))
    half = replayed(document, done)
    upgraded = [words[1] for number, _, words in steps if words[0] == "upgrade" and number <= done]
    left = {host.name for host in case.fleet.hosts if host.target is not None} - set(upgraded)
    assert {host.name for host in half.hosts if host.target is not None} == left
    if done < len(steps) and steps[done][2][0] == "upgrade":
        return  # a wave is cut in two, which may leave a guest without a place
    try:
        rest = solve(half, ways_of(document), case.limits)
    except NoPlan:
        return
    ways = {key: way for key, way in case.table.items() if way.allowed}
    assert check_plan(plan_document(half, ways, case.limits, rest, {})).holds


def test_half_of_a_plan_and_the_rest_cost_what_the_plan_costs() -> None:
    case = four_hosts()
    document = document_of(case)
    steps = list(numbered(document))
    for done in range(len(steps) + 1):
        rest = solve(replayed(document, done), case.ways, case.limits)
        moves = sum(words[0] == "move" for number, _, words in steps if number <= done)
        assert moves + rest.cost.moves == 3


def test_steps_that_do_not_fit_are_named() -> None:
    document = document_of(four_hosts())
    document["waves"] = [{"steps": [["move", "g9", "h0", "h1"]], "upgrades": []}]
    with pytest.raises(PlanDocumentError, match=r"^step 1 does not fit the fleet: 'g9'$"):
        replayed(document, 1)


def test_optimal_plan_of_four_hosts() -> None:
    document = document_of(four_hosts())
    assert document["optimal"]
    assert document["cost"] == {
        "restarts": 0,
        "visible": 0,
        "entries": 0,
        "moves": 3,
        "waves": 4,
        "early": 0,
    }


def test_guests_that_cannot_come_back_go_as_late_as_they_can_and_are_named() -> None:
    document = document_of(four_hosts(one_way=True))
    group, *others = document["guests_named"]
    assert others == []
    assert group["what"] == "one-way"
    assert sorted(group["names"]) == ["g0", "g1", "g2"]
    assert group["cures"][-1] == "a restart, should it have to come back"


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        (
            Tool.VIRSH,
            "virsh -c qemu+ssh://h0/system migrate --live --persistent --undefinesource",
        ),
        (Tool.ARMFERRY, "armferry migrate --source h0:g0 --destination h3:g0"),
        (Tool.KUBEVIRT, "addedNodeSelector: {kubernetes.io/hostname: h3}"),
        (Tool.NOVA, "openstack server migrate --live-migration --host h3 --wait g0"),
    ],
)
def test_steps_are_commands(tool: Tool, words: str) -> None:
    document = document_of(four_hosts())
    document["waves"] = [
        {"steps": [["move", "g0", "h0", "h3"], ["restart", "g1", "h1", "h1"]], "upgrades": ["h1"]}
    ]
    lines = list(plan_lines(document, tool))
    assert lines[0] == "Wave 1 of 1: 2 guests leave, 1 host is upgraded"
    assert lines[1].startswith("  1. ")
    assert words in lines[1]
    assert lines[2].startswith("  2. ")
    assert lines[2].endswith("# started again on h1 after its upgrade")
    assert lines[3].startswith("  3. ")
    assert "upgrade h1 to kernel 6.17" in lines[3]
    assert lines[4].startswith("  then: ")
    assert "start" in lines[4]


def test_what_a_step_takes_stands_beside_it() -> None:
    case = four_hosts()
    case.table["old", "old", "new"] = Way(
        True,
        visible=True,
        entries=frozenset({"PSCI_VERSION: cap at destination"}),
        armferry=True,
        first=frozenset({"TCR2_EL1 holds 0x0"}),
    )
    lines = "\n".join(plan_lines(document_of(case), Tool.VIRSH))
    assert "# only while TCR2_EL1 holds 0x0: armferry checks it" in lines
    assert "# the guest may notice" in lines
    assert "# needs policy entries: PSCI_VERSION: cap at destination" in lines
    assert "# stock QEMU alone refuses it" in lines


def test_waves_are_drawn() -> None:
    document = document_of(four_hosts())
    picture = ET.fromstring(waves_svg(document))
    texts = [one.text or "" for one in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert {"h0", "h1", "h2", "h3"} <= set(texts)
    squares = [
        one.get("fill") for one in picture.iter("{http://www.w3.org/2000/svg}rect") if len(one)
    ]
    assert len(squares) == 4 * len(document["waves"])
    assert squares.count("#1c5d99") == 4


def test_many_hosts_are_drawn_by_domain() -> None:
    hosts = tuple(PlanHost(f"h{n}", "old", "new", 8, f"rack-{n % 5}") for n in range(100))
    case = Case(PlanFleet(hosts, ()), {}, Limits(wave=10))
    picture = waves_svg(document_of(case))
    assert "rack-4" in picture
    assert ">h99<" not in picture


def test_restart_is_explained() -> None:
    case = four_hosts()
    for key in list(case.table):
        if key[2] == "new" and key[1] == "old":
            case.table[key] = NO_WAY
    document = document_of(case)
    named = {group["what"]: group for group in document["guests_named"]}
    assert named["restart"]["guests"] == 3
    assert named["restart"]["cures"][-1] == "the restart that is planned"
