"""Whole screens as a person sees them, 80 and 120 columns wide, held against files.

What is shown is the real command's, on recorded guests and the atlas. In a file `…` stands for what
differs from host to host. To take over what a change does to the others, run this file as a
program: `python -m tests.cli.test_screens`.
"""

import fcntl
import json
import lzma
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SCREENS = HERE / "screens"
DATA = HERE.parent / "stream" / "data"
WIDTHS = (80, 120)
ANYTHING = "…"

FILES = {
    "guest.state": "kvm_6.17_neoverse-n1_10.0.13",
    "there.state": "kvm_6.12_neoverse-n1_10.0.13",
    "old.state": "tcg_10.0.2_virt-10.0_cortex-a57_1",
    "new.state": "tcg_11.1.3_virt-10.0_cortex-a57_1",
}
COMMANDS: Mapping[str, Sequence[str]] = {
    "check": ("check", "guest.state", "--to", "there.state", "--destination-qemu", "10.0.13"),
    "check-fails": ("check", "old.state", "--to", "new.state", "--no-builtin"),
    "check-quiet": ("check", "-q", "old.state", "--to", "new.state"),
    "plan": ("plan", "old.state", "--to", "new.state"),
    "plan-kernels": (
        *("plan", "atlas:6.17/neoverse-n1", "--to", "atlas:6.12/neoverse-n1"),
        *("--machine", "virt-10.0"),
    ),
    "inspect": ("inspect", "guest.state"),
    "inspect-register": ("inspect", "guest.state", "--register", "firmware version"),
    "explain": ("explain", "Could not set register fw reg 0 to 10003 (is 10001)"),
    "atlas-why": ("atlas", "why", "TCR2_EL1"),
    "diff": ("diff", "old.state", "new.state"),
    "ferry": ("ferry", "old.state", "out", "--to", "old.state"),
    "host-check": ("host", "check", "--state", "state"),
}
PROGRAM = """\
import json, sys
from armferry.cli.main import main
for words in json.loads(sys.argv[1]):
    main(words)
    print("\\f", end="", flush=True)
"""


def screens(folder: Path, columns: int) -> dict[str, str]:
    """What each command shows on a terminal of that many columns, by its name."""
    for name, recorded in FILES.items():
        (folder / name).write_bytes(lzma.decompress((DATA / f"{recorded}.mig.xz").read_bytes()))
    shown = on_terminal(
        [sys.executable, "-c", PROGRAM, json.dumps(list(COMMANDS.values()))], folder, columns
    )
    return dict(zip(COMMANDS, shown.split("\f"), strict=False))


def on_terminal(words: Sequence[str], folder: Path, columns: int) -> str:
    """All that appears when the streams of a program are a terminal without colour."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    environment = {**kept, "TERM": "xterm", "NO_COLOR": "1", "PATH": str(folder)}
    with subprocess.Popen(
        words, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=environment
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # Linux ends a terminal with EIO
                break
            if not piece:
                break
            shown += piece
        os.close(ours)
        process.wait(timeout=60)
    return shown.decode().replace("\r\n", "\n")


def golden(name: str, columns: int) -> Path:
    """The file that a screen is held against."""
    return SCREENS / f"{name}-{columns}.txt"


def like(expected: str, shown: str) -> bool:
    """Whether a screen is as its file has it."""
    return bool(re.fullmatch(".*?".join(map(re.escape, expected.split(ANYTHING))), shown, re.S))


@pytest.fixture(scope="module", params=WIDTHS)
def seen(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[int, dict[str, str]]:
    folder = tmp_path_factory.mktemp("screens")
    return request.param, screens(folder, request.param)


@pytest.mark.parametrize("name", COMMANDS)
def test_screen_is_as_its_file_has_it(name: str, seen: tuple[int, dict[str, str]]) -> None:
    columns, shown = seen
    expected = golden(name, columns).read_text(encoding="utf-8")
    if not like(expected, shown[name]):
        assert shown[name] == expected


def test_nothing_is_cut_inside_a_word(seen: tuple[int, dict[str, str]]) -> None:
    columns, shown = seen
    for name, screen in shown.items():
        for line in screen.splitlines():
            # a command to type is one line, however long
            command = line.startswith(("next: ", "      armferry", "-global "))
            assert command or len(line) <= columns, (name, line)


WAITS = """\
import sys, time
from armferry.cli import progress
progress._AFTER = 0.05
with progress.working("waiting"):
    time.sleep(float(sys.argv[1]))
print("done")
"""


def test_what_takes_long_counts_the_seconds_and_goes_away(tmp_path: Path) -> None:
    long = on_terminal([sys.executable, "-c", WAITS, "0.4"], tmp_path, 80)
    assert re.fullmatch(r"(\r\x1b\[Kwaiting \(\d s\))+\r\x1b\[Kdone\n", long)
    assert on_terminal([sys.executable, "-c", WAITS, "0"], tmp_path, 80) == "done\n"
    piped = [sys.executable, "-c", WAITS, "0.2"]
    done = subprocess.run(piped, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("done\n", "")


def main() -> None:
    """Writes the files anew; what `…` stands for in them is put back by hand."""
    for columns in WIDTHS:
        with tempfile.TemporaryDirectory() as folder:
            for name, screen in screens(Path(folder), columns).items():
                file = golden(name, columns)
                if not file.exists() or ANYTHING not in file.read_text(encoding="utf-8"):
                    file.write_text(screen, encoding="utf-8")


if __name__ == "__main__":
    main()
