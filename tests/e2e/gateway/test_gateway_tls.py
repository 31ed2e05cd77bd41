"""TLS on both sides of the gateway, with QEMU's own tls-creds-x509."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from armferry.gateway import Ending, connecting_context, listening_context

pytestmark = pytest.mark.qemu

OLD, POINT = "10.0.2", "10.0.13"
Credentials = Callable[[str], Path]


WAYS: dict[str, dict[str, Any]] = {
    "return path": {},
    "multifd": {
        "capabilities": ("return-path", "multifd"),
        "parameters": {"multifd-channels": 2},
    },
    "postcopy-preempt": {"capabilities": ("return-path", "postcopy-ram", "postcopy-preempt")},
}


@pytest.mark.parametrize("way", WAYS)
def test_tls_on_both_sides(way: str, rig: Any, credentials: Credentials) -> None:
    """Two authorities: neither QEMU would believe the other, both believe the gateway."""
    inner, outer = credentials("one"), credentials("two")
    with rig.machines(OLD, POINT) as (source, destination):
        rig.with_credentials(source, inner, "client")
        rig.with_credentials(destination, outer, "server")
        with rig.crossing(
            source,
            destination,
            rig.way(transport="tcp", **WAYS[way]),
            rig.judge(POINT),
            context=listening_context(inner),
            connecting=connecting_context(outer),
        ) as crossing:
            crossing.migrate()
            crossing.wait_source("completed", "failed")
            outcome = crossing.outcome()
            assert outcome.ending is Ending.COMPLETED, outcome.reason
            rig.wait_run_state(destination, "running")
            rig.runs_on()


def test_source_with_a_wrong_certificate_is_turned_away(rig: Any, credentials: Credentials) -> None:
    with rig.machines(OLD, POINT) as (source, destination):
        rig.with_credentials(source, credentials("two"), "client")
        with rig.crossing(
            source,
            destination,
            rig.way(transport="tcp"),
            rig.judge(POINT),
            context=listening_context(credentials("one")),
        ) as crossing:
            crossing.migrate()
            crossing.wait_source("failed")
            rig.wait_run_state(source, "running")
            rig.runs_on()
        assert crossing.outcomes == []
        assert [one["event"] for one in crossing.events] == ["rejected"]


def test_destination_with_a_wrong_certificate_is_refused(
    rig: Any, credentials: Credentials
) -> None:
    with rig.machines(OLD, POINT) as (source, destination):
        rig.with_credentials(destination, credentials("two"), "server")
        with rig.crossing(
            source,
            destination,
            rig.way(transport="tcp"),
            rig.judge(POINT),
            connecting=connecting_context(credentials("one")),
        ) as crossing:
            crossing.migrate()
            crossing.wait_source("failed")
            outcome = crossing.outcome()
            assert outcome.ending is Ending.FAILED
            assert "certificate verify failed" in outcome.reason
            rig.wait_run_state(source, "running")
            rig.runs_on()


def test_tls_that_the_gateway_does_not_end_is_refused_by_name(
    rig: Any, credentials: Credentials
) -> None:
    with rig.machines(OLD, POINT) as (source, destination):
        rig.with_credentials(source, credentials("one"), "client")
        with rig.crossing(source, destination, rig.way(), rig.judge(POINT)) as crossing:
            crossing.migrate()
            crossing.wait_source("failed")
            rig.wait_run_state(source, "running")
            rig.runs_on()
        assert crossing.outcomes == []
        (rejected,) = crossing.events
        assert rejected["reason"] == (
            "the source speaks TLS, which cannot pass through unread: give the gateway the "
            "destination's credentials (--tls-listen, --tls-connect) or turn tls-creds off"
        )


def test_destination_that_wants_tls_gets_nothing_in_the_clear(
    rig: Any, credentials: Credentials
) -> None:
    with rig.machines(OLD, POINT, hold=True) as (source, destination):
        rig.with_credentials(destination, credentials("two"), "server")
        with rig.crossing(source, destination, rig.way(), rig.judge(POINT)) as crossing:
            crossing.migrate()
            crossing.wait_source("failed")
            outcome = crossing.outcome()
            assert not outcome.moved
            assert outcome.before_state
            rig.wait_run_state(source, "running")
            rig.runs_on()
