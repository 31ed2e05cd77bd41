"""What is kept of a QEMU's own properties, and what becomes of an answer that cannot be used."""

from pathlib import Path

import pytest

from armferry.wrapper.beside import property_support
from armferry.wrapper.beside.property_support import cached, known_properties

PSCI = "kvm-psci-version"


@pytest.fixture
def qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A QEMU that is never started; its cache is empty."""
    monkeypatch.setenv("ARMFERRY_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "qemu"
    path.write_bytes(b"one")
    return path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The CPU types that were asked for; each has one property."""
    asked: list[str] = []

    def ask(program: Path, kind: str, accelerator: str) -> frozenset[str]:
        asked.append(kind)
        return frozenset({PSCI})

    monkeypatch.setattr(property_support, "_ask", ask)
    return asked


def test_it_is_asked_once_for_each_binary(qemu: Path, asked: list[str]) -> None:
    for _ in range(2):
        assert known_properties(qemu, "host", "kvm") == {PSCI}
    assert asked == ["host-arm-cpu"]
    qemu.write_bytes(b"another")
    assert known_properties(qemu, "host", "kvm") == {PSCI}
    assert asked == ["host-arm-cpu"] * 2


@pytest.mark.parametrize("damage", ["", "{", "[1, 2", "7", '[["x"]]', "\0"])
def test_a_damaged_answer_is_asked_for_again(
    damage: str, qemu: Path, asked: list[str], tmp_path: Path
) -> None:
    known_properties(qemu, "", "tcg")
    (kept,) = (tmp_path / "cache" / "wrapper").iterdir()
    kept.write_text(damage)
    assert known_properties(qemu, "", "tcg") == {PSCI}
    assert known_properties(qemu, "", "tcg") == {PSCI}
    assert asked == ["max-arm-cpu"] * 2


def test_nothing_kept_is_nothing(qemu: Path) -> None:
    assert cached("properties", "no such key") is None
