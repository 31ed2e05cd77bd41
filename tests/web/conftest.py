"""A fleet with something of everything, and its page."""

from pathlib import Path

import pytest

from armferry.fleet.overview import Overview, overview
from armferry.web.page import fleet_page

from ..fleet.hosts_of_atlas import guest, report
from ..fleet.test_questions import NOW, standing_of

HOSTILE = "<script>alert(1)</script>&\"'"
PLAN = (
    ("Wave 1: 1 host", ("virsh migrate g1 b2", "reboot a1 into 6.17")),
    ("Wave 2: 2 hosts", (f"virsh migrate {HOSTILE} c3",)),
)


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Overview:
    """Hosts of four kernels, one of them silent; guests of which three have nowhere to go."""
    reports = [
        report("a1", "5.10", guests=(guest("way ahead"),)),
        report("b2", "6.12", guests=(guest("fine"), guest(HOSTILE))),
        report("b3", "6.12", time=NOW - 200_000),
        report("c4", "6.17", guests=(guest("stays"), guest("stays too", "came"))),
        report("d5", "6.12", cpu="neoverse-n2", guests=(guest(f"alone {HOSTILE}"),)),
    ]
    return overview(standing_of(tmp_path_factory.mktemp("fleet"), *reports), NOW)


@pytest.fixture(scope="session")
def page(fleet: Overview, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page in a file."""
    place = tmp_path_factory.mktemp("page") / "fleet.html"
    place.write_text(fleet_page(fleet, PLAN), encoding="utf-8")
    return place
