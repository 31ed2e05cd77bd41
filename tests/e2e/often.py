"""Which of many like cases `make test` runs; `make test-full` runs them all."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

__all__ = ["often"]


def often(cases: Iterable[Any], chosen: Callable[[Any], bool]) -> list[Any]:
    """The cases as parameters; those that are not chosen wait for the full set."""
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=_marks(chosen(case)))
        for case in cases
    ]


def _marks(chosen: bool) -> tuple[pytest.MarkDecorator, ...]:
    return () if chosen else (pytest.mark.full,)
