"""Limits of the lab grow with the machine's load."""

import os

import pytest

from armferry.lab.patience import patient


@pytest.mark.parametrize(
    ("load", "seconds"), [(0.0, 20.0), (4.0, 20.0), (15.0, 75.0), (60.0, 300.0)]
)
def test_a_busy_machine_is_waited_for(
    load: float, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert patient(10.0) == seconds
