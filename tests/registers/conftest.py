"""The register lists of real QEMUs and kernels, recorded in data/register-lists.json.xz."""

import json
import lzma
from pathlib import Path

import pytest

RECORDED = Path(__file__).parent / "data" / "register-lists.json.xz"


@pytest.fixture(scope="session")
def recorded_lists() -> dict[str, tuple[int, ...]]:
    """Where a list was recorded (tcg/... or kvm/...) to its indexes, ascending."""
    document = json.loads(lzma.decompress(RECORDED.read_bytes()))
    return {
        label: tuple(int(text, 16) for text in indexes)
        for label, indexes in document["lists"].items()
    }


@pytest.fixture(scope="session")
def recorded_indexes(recorded_lists: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Every index that any recorded list has, ascending."""
    return tuple(sorted({index for indexes in recorded_lists.values() for index in indexes}))
