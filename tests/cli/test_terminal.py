"""What a person sees: colour and bars on a terminal, a last line, exit codes, interruptions."""

import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from armferry.cli.main import main
from armferry.stream import StreamParser
from armferry.stream.events import SectionBegins
from armferry.stream.wire import BE32, BE64, RamFlag, SectionType

pytestmark = pytest.mark.qemu

PROBE = ("fingerprint", "qemu", "--machine", "virt-10.0", "--cpu", "max", "--qemu")
ESCAPE = "\x1b["


@pytest.fixture
def here(fresh_state: Callable[..., Path]) -> Path:
    """A saved state of QEMU 10.0.2."""
    return fresh_state("bookworm-backports")


@pytest.fixture
def there(fresh_state: Callable[..., Path]) -> Path:
    """A saved state of QEMU 10.0.13."""
    return fresh_state("trixie")


def _on_terminal(*words: str | Path, columns: int = 80, **environment: str) -> tuple[int, str]:
    """(exit code, all that appeared) of armferry when its standard streams are a terminal."""
    return _ran([sys.executable, "-m", "armferry", *words], columns, environment)


def _ran(
    command: Sequence[str | Path], columns: int, environment: Mapping[str, str]
) -> tuple[int, str]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    unset = ("NO_COLOR", "COLUMNS", "LINES")
    env = {k: v for k, v in os.environ.items() if k not in unset} | {"TERM": "xterm"}
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**env, **environment},
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the terminal's other end is closed
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    return process.wait(timeout=30), shown.decode()


def test_colour_on_a_terminal_only(here: Path, there: Path, armferry: Any) -> None:
    code, shown = _on_terminal("check", here, "--to", there)
    assert code == 1
    assert ESCAPE in shown
    code, shown = _on_terminal("check", here, "--to", there, NO_COLOR="1")
    assert code == 1
    assert ESCAPE not in shown
    assert "DBGDTRTX " in shown
    code, shown = _on_terminal("check", here, "--to", there, "--json")
    assert ESCAPE not in shown
    piped = armferry("check", here, "--to", there)
    assert ESCAPE not in piped.out


WORDS = {
    "DBGDTRTX": "declared safe to be missing; the guest never ran, so nothing is lost",
    "DBGDTRTXINT": "the source does not have it; sent at its reset value",
    "DBGDTR_EL0": "the source does not have it; sent at its reset value",
}
INDEXES = ("0x40200000200e0298", "0x40200000200e0280", "0x6030000000139820")


@pytest.mark.parametrize("columns", [20, 40, 80, 100, 120, 200])
def test_table_fits_its_terminal(columns: int, here: Path, there: Path) -> None:
    code, shown = _on_terminal("check", here, "--to", there, columns=columns, NO_COLOR="1")
    assert code == 1
    assert ESCAPE not in shown
    part = shown.split("Registers that differ\r\n", 1)[1].split("\r\n\r\nAllowed by", 1)[0]
    lines = part.splitlines()
    # an index is never cut, so that it can be copied, and no word of the prose is lost
    assert sorted(re.findall("0x[0-9a-f]{16}", part)) == sorted(INDEXES)
    for register, why in WORDS.items():
        row = part[part.index(f"{register} " if columns > 20 else f"{register}\r\n") :]
        assert re.search(r"[\s\S]*?".join(map(re.escape, why.split())), row)
    widest = len("  only on destination: sent")
    assert max(map(len, lines)) <= max(columns, widest)


def test_every_section_has_a_line_of_its_own(here: Path) -> None:
    code, shown = _on_terminal("inspect", here, "--registers", columns=80, NO_COLOR="1")
    assert code == 0
    line = next(one for one in shown.splitlines() if " cpu/vfp " in one)
    assert line.split() == ["cpu", "0", "22", "5638", "cpu/vfp", "cpu/irq-line-state"]
    assert "\r\nTTBR0_EL1  0x603000000013c100  translation  value 0x" in shown


def test_diff_says_once_what_is_the_same_on_several_vcpus(
    fresh_state: Callable[..., Path], armferry: Any
) -> None:
    a, b = (fresh_state(release, smp=8) for release in ("bookworm-backports", "trixie"))
    said = armferry("diff", a, b).out
    assert re.search(r"\n\nOnly in A: 1\n.*\nDBGDTRTX +0x40200000200e0298  0-7 +0x0  -\n\n", said)
    assert re.search(r"\n\nOnly in B: 2\n.*\nDBGDTRTXINT .*  0-7 .*\nDBGDTR_EL0 .*  0-7 ", said)
    assert ", 24 differences, all vCPUs together\n" in said


def test_trace_is_text_on_a_terminal_only(here: Path, there: Path, armferry: Any) -> None:
    code, shown = _on_terminal("check", here, "--to", there, "--trace", "-", "--json")
    assert code == 1
    assert shown.splitlines()[1] == (
        "vcpu 0 DBGDTRTX 0x40200000200e0298 only in source: dropped: source 0x0 destination - "
        "sent - risk lossless: declared safe to be missing; the guest never ran, so nothing is lost"
    )
    piped = armferry("check", here, "--to", there, "--trace", "-")
    assert [json.loads(line)["name"] for line in piped.err.splitlines()] == [
        "DBGDTRTXINT",
        "DBGDTRTX",
        "DBGDTR_EL0",
    ]


def test_stream_is_not_written_to_a_terminal(here: Path, there: Path) -> None:
    code, shown = _on_terminal("ferry", here, "-", "--to", there)
    assert code == 3
    assert shown == ("armferry: standard output is a terminal; redirect it, or name OUT\r\n")


def _write_long(path: Path, state: bytes) -> None:
    """`state` with 260 MiB of pages more."""
    begun = [seen for seen in StreamParser().feed(state) if isinstance(seen, SectionBegins)]
    last = begun[-1]
    assert last.kind == SectionType.LAST
    number = BE32.pack(last.id)
    page = BE64.pack(RamFlag.PAGE | RamFlag.CONTINUE) + bytes(4096)
    with path.open("wb") as file:
        file.write(state[: last.offset] + bytes([SectionType.PART]) + number)
        file.write(BE64.pack(RamFlag.ZERO) + b"\x0dmach-virt.ram\0")
        for _ in range(65):
            file.write(page * 1024)
        file.write(BE64.pack(RamFlag.EOS) + bytes([SectionType.FOOTER]) + number)
        file.write(state[last.offset :])


def test_bar_for_long_files_on_a_terminal_only(
    here: Path, there: Path, tmp_path: Path, armferry: Any
) -> None:
    long = tmp_path / "long"
    _write_long(long, here.read_bytes())
    code, shown = _on_terminal("ferry", long, tmp_path / "out", "--to", there)
    assert code == 0
    assert "ferrying long" in shown
    through = f"{sys.executable} -m armferry ferry"
    for line, name in {
        f"{through} {long} - --to {there} | cat > {tmp_path}/out": "long",
        f"{through} - {tmp_path}/out --to {there} < {long}": "-",
    }.items():
        code, shown = _ran(["/bin/bash", "-ec", line], 80, {})
        assert code == 0
        assert f"ferrying {name}" in shown, line
    code, shown = _on_terminal("ferry", here, tmp_path / "out", "--to", there)
    assert code == 0
    assert "ferrying" not in shown
    assert armferry("ferry", long, "out", "--to", there).err == ""


def test_last_line_says_what_to_type_next(
    here: Path, there: Path, tmp_path: Path, armferry: Any
) -> None:
    spaced = tmp_path / "a state"
    shutil.copy(here, spaced)

    def last(*words: str | Path) -> str:
        line: str = armferry(*words).out.splitlines()[-1]
        return line

    assert last("inspect", spaced) == f"next: armferry check '{spaced}' --to DEST"
    assert last("diff", spaced, there) == f"next: armferry check '{spaced}' --to {there}"
    assert last("check", spaced, "--to", there, "--hidden-regs", "TCR2_EL1") == (
        f"next: armferry ferry '{spaced}' OUT --to {there} --hidden-regs TCR2_EL1"
    )
    assert last("ferry", spaced, "out put", "--to", there).startswith("next: QEMU ... -incoming ")
    assert last("fingerprint", "stream", there, "-o", "a b") == (
        "next: armferry check SOURCE --to 'a b'"
    )
    assert last("ferry", spaced, "no", "--to", there, "--no-builtin") == (
        f"next: armferry check '{spaced}' --to {there} --no-builtin"
    )


def test_exit_codes(
    here: Path, there: Path, armferry: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert armferry("check", here, "--to", here).code == 0
    assert armferry("check", here, "--to", there).code == 1
    assert armferry("check", here, "--to", there, "--no-builtin").code == 2
    capsys.readouterr()
    for words in (
        (),
        ("fly",),
        ("check", here),
        ("ferry", here, "--to", there),
        ("ferry", here, "out", "--in-place", "--to", there),
        ("ferry", "-", "--in-place", "--to", there),
        ("ferry", here, "out", "--undo"),
        ("inspect", here, "--cpu", "1"),
        ("inspect", here, "--cpu", "-1"),
        ("check", "-", "--to", "-"),
        ("diff", "-", "-"),
        (*PROBE, "qemu", "--time-limit", "0"),
        (*PROBE, "qemu", "--time-limit", "nan"),
        (*PROBE, "qemu", "--time-limit", "soon"),
    ):
        try:
            code = main(list(map(str, words)))
        except SystemExit as usage:
            code = int(usage.code or 0)
        said = capsys.readouterr()
        assert (code, said.out) == (3, ""), words
        assert said.err.count("\n") == 1, said.err
    missing = armferry(*PROBE, "no-such-qemu")
    assert missing.code == 4
    assert missing.err.startswith(
        "armferry: no-such-qemu: no such program; install QEMU for Arm or name one with --qemu"
    )
    assert missing.err.count("\n") == 1
    assert armferry(*PROBE, "/bin/true").code == 4


def test_full_disk_and_closed_streams(here: Path, there: Path) -> None:
    def shell(line: str) -> tuple[int, str]:
        done = subprocess.run(
            [
                "/bin/bash",
                "-c",
                f'set -o pipefail; a() {{ {sys.executable} -m armferry "$@"; }}; {line}',
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stderr

    assert shell(f"a inspect {here} > /dev/full") == (
        4,
        "armferry: No space left on device\n",
    )
    assert shell(f"a ferry {here} - --to {there} > /dev/full") == (
        4,
        "armferry: the output cannot be written: No space left on device\n",
    )
    assert shell(f"a inspect {here} >&-") == (4, "armferry: standard output is closed\n")
    # what is for standard error never ends in the stream instead
    assert shell(f"test -z $(a ferry missing - --to {there} 2>&-)") == (0, "")
    assert shell(f"a ferry {here} - --to {there} --json 2>&- | a inspect -")[0] == 0
    assert shell("a inspect - <&-") == (
        3,
        "armferry: standard input is closed; give the name of a file instead of -\n",
    )
    # more than a pipe holds, so that the reader has gone before all is written
    assert shell(f"a inspect {here} --json | head -c 1") == (141, "")
    assert shell(f"a ferry {here} - --to {there} | head -c 1") == (
        4,
        "armferry: the output cannot be written: Broken pipe\n",
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_ferry_leaves_nothing(
    number: signal.Signals, here: Path, there: Path, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "armferry", "ferry", "-", "out", "--to", there],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
    )
    assert process.stdin is not None
    process.stdin.write(here.read_bytes()[:200_000])
    process.stdin.flush()
    deadline = time.monotonic() + 30
    while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (128 + number, b"")
    assert list(tmp_path.iterdir()) == []


def test_lean_imports(here: Path, there: Path) -> None:
    """A plain host has no rich; it is not even looked for without a terminal."""
    program = (
        "import io, sys, contextlib\n"
        "from armferry.cli.main import main\n"
        "with contextlib.redirect_stdout(io.StringIO()): main(sys.argv[1:])\n"
        "heavy = ('rich', 'qemu', 'asyncio', 'armferry.lab')\n"
        "print([name for name in sys.modules if name.startswith(heavy)])\n"
    )
    for words in (("inspect", here), ("check", here, "--to", there), ("diff", here, there)):
        done = subprocess.run(
            [sys.executable, "-c", program, *words], capture_output=True, text=True, check=True
        )
        assert done.stdout == "[]\n", done.stdout
