"""The planner against a search through everything, and the checker on whatever comes out."""

import pytest
from hypothesis import HealthCheck, assume, given, settings

from armferry.fleet.plan.by_waves import plan_by_waves
from armferry.fleet.plan.checker import check_plan
from armferry.fleet.plan.document import plan_document
from armferry.fleet.plan.model import NoPlan, Solution
from armferry.fleet.plan.solve import solve

from .brute_force import Everything
from .fleets import Case, cases


def require_sound(case: Case, solution: Solution) -> None:
    ways = {key: way for key, way in case.table.items() if way.allowed}
    document = plan_document(case.fleet, ways, case.limits, solution, {})
    checked = check_plan(document)
    assert checked.faults == []
    assert solution.bound[:5] <= solution.cost[:5]


def require_least(case: Case, states: int) -> None:
    try:
        least = Everything(case.fleet, case.ways, case.limits).least(states)
    except MemoryError:
        assume(False)
    try:
        solution = solve(case.fleet, case.ways, case.limits)
    except NoPlan:
        assert least is None
        return
    require_sound(case, solution)
    assert solution.cost == least
    assert solution.optimal


@settings(max_examples=60, deadline=None)
@given(cases(hosts=3, guests=4))
def test_least_plan_of_a_few_hosts(case: Case) -> None:
    require_least(case, states=1_500)


@settings(max_examples=100, deadline=None)
@given(cases(hosts=6, guests=8))
def test_plan_by_waves_is_sound(case: Case) -> None:
    try:
        solution = plan_by_waves(case.fleet, case.ways, case.limits)
    except NoPlan:
        return
    require_sound(case, solution)


@pytest.mark.full
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases(hosts=6, guests=8))
def test_least_plan_of_up_to_six_hosts(case: Case) -> None:
    require_least(case, states=20_000)
