"""A file with pages at fixed offsets (mapped-ram) as SOURCE, DEST, IN and OUT, and in place."""

import filecmp
import lzma
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from armferry.cli.main import main

DATA = Path(__file__).parents[1] / "stream" / "data"
NEW = "tcg_11.1.3_virt-10.0_cortex-a57_1"
ALLOWED = ("--safe-missing-regs", "ID_AA64ISAR0_EL1")
LOAD = (
    "next: QEMU ... -incoming defer, then over QMP migrate-set-capabilities mapped-ram and "
    "migrate-incoming file:"
)


def unpack(name: str, path: Path) -> None:
    """A recorded stream, its holes kept."""
    with lzma.open(DATA / f"{name}.mig.xz") as packed, path.open("wb") as file:
        while block := packed.read(1 << 20):
            if block.count(0) == len(block):
                file.seek(len(block), 1)
            else:
                file.write(block)
        file.truncate()


def on_disk(path: Path) -> int:
    return path.stat().st_blocks * 512


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    unpack("mapped-ram", folder / "guest")
    unpack(NEW, folder / "new")
    return folder


@pytest.fixture
def folder(recorded: Path, tmp_path: Path) -> Path:
    """A copy of its own, since a file may be changed where it lies."""
    shutil.copyfile(recorded / "new", tmp_path / "new")
    unpack("mapped-ram", tmp_path / "guest")
    return tmp_path


def test_either_end(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guest = str(recorded / "guest")
    assert main(["check", guest, "--to", guest]) == 0
    assert capsys.readouterr().out.startswith("works as it is, risk none\n")
    assert main(["check", guest, "--to", str(recorded / "new")]) == 2
    assert "ID_AA64ISAR0_EL1" in capsys.readouterr().out


def test_beside_and_in_place_and_through_a_pipe(
    folder: Path, armferry: Callable[..., object], capsys: pytest.CaptureFixture[str]
) -> None:
    guest, out, piped = folder / "guest", folder / "out", folder / "piped"
    words = ["--to", str(folder / "new"), *ALLOWED]
    assert main(["ferry", str(guest), str(out), *words]) == 0
    assert capsys.readouterr().out.endswith(f"{out}: rewritten\n\n{LOAD}{out}\n")
    assert on_disk(out) <= on_disk(guest) + (1 << 16)

    armferry("ferry", "-", piped, *words, stdin=guest)
    assert filecmp.cmp(out, piped, shallow=False)

    assert main(["ferry", str(guest), "--in-place", *words]) == 0
    assert capsys.readouterr().out.endswith(f"{guest}: rewritten\n\n{LOAD}{guest}\n")
    assert filecmp.cmp(out, guest, shallow=False)
    assert on_disk(guest) <= on_disk(out) + (1 << 16)

    # what was ferried is ferried to itself, without a policy
    assert main(["ferry", str(out), str(folder / "twice"), "--to", str(folder / "new")]) == 0
    assert filecmp.cmp(out, folder / "twice", shallow=False)
