"""A wrapped QEMU as a process: the same id, signals, status, streams and speed as without."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE

import pytest

from armferry.lab.qemu_install import InstalledQemu

pytestmark = pytest.mark.qemu

Named = Callable[[str], InstalledQemu]
Wrapped = Callable[[str], Path]

PAUSED = ["-M", "virt-7.2", "-cpu", "cortex-a57", "-display", "none", "-nodefaults", "-S"]
MODERN = ("bookworm", "trixie", "trixie-backports")
HIDING = ("-global", "arm-cpu.x-mig-hidden-regs=0x6030000000139820")


@pytest.fixture(autouse=True)
def private_folders(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Where wrapped QEMUs keep their sockets; nothing may be left there."""
    folder = tmp_path_factory.mktemp("w")
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    deadline = time.monotonic() + 10
    while left := list(folder.iterdir()):
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


def _connect(path: Path, limit: float = 20.0) -> socket.socket:
    deadline = time.monotonic() + limit
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        else:
            connection.settimeout(limit)
            return connection


def _converse(path: Path, *commands: str) -> list[dict[str, object]]:
    """What a monitor says to `commands`, up to their answers; the greeting first."""
    with _connect(path) as connection, connection.makefile("rw") as lines:
        said = [json.loads(lines.readline())]
        for command in ("qmp_capabilities", *commands):
            lines.write(json.dumps({"execute": command}))
            lines.flush()
            while True:
                said.append(json.loads(lines.readline()))
                if "event" not in said[-1]:
                    break
    return said


@pytest.mark.parametrize(
    ("words", "status"), [(["-S"], 0), (["-M", "virt-7.2", "-cpu", "nonsense"], 1)]
)
def test_exit_status_and_words_are_qemus(
    words: list[str], status: int, wrapped: Wrapped, qemu_release: Named
) -> None:
    def run(program: Path) -> tuple[int, bytes, bytes]:
        command = [str(program), *PAUSED, *words, "-qmp", "stdio"]
        monitor = b'{"execute":"qmp_capabilities"}{"execute":"quit"}'
        done = subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=PIPE)
        out, err = done.communicate(monitor if status == 0 else b"", timeout=60)
        return done.returncode, out.replace(b"\r\n", b"\n").split(b'{"timestamp"')[0], err

    ours = run(wrapped("trixie"))
    assert ours[0] == status
    stock = run(qemu_release("trixie").launcher)
    assert (ours[0], ours[2]) == (stock[0], stock[2])
    # a QEMU that fails at once may do so before it has greeted a monitor on a socket
    assert ours[1] == stock[1] or status


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 0), (signal.SIGKILL, -9), (signal.SIGSEGV, -11)]
)
def test_signals_reach_qemu(
    number: signal.Signals, status: int, wrapped: Wrapped, tmp_path: Path
) -> None:
    path = tmp_path / "q"
    process = subprocess.Popen(
        [wrapped("trixie"), *PAUSED, "-qmp", f"unix:{path},server=on,wait=off"],
        stderr=PIPE,
    )
    said = _converse(path, "query-status")
    assert said[-1]["return"] == {"status": "prelaunch", "running": False}
    assert "armferry" not in Path(f"/proc/{process.pid}/exe").readlink().name
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == status
    deadline = time.monotonic() + 10
    while path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_guest_outlives_the_process_beside_it(
    wrapped: Wrapped, tmp_path: Path, private_folders: Path
) -> None:
    """Killed, it takes the monitors with it and nothing else."""
    path = tmp_path / "q"
    process = subprocess.Popen(
        [wrapped("trixie"), *PAUSED, *HIDING, "-qmp", f"unix:{path},server=on,wait=off"],
        stderr=PIPE,
    )
    _converse(path, "query-status")  # QEMU has begun
    with _connect(path) as connection:
        assert b"QMP" in connection.recv(1000)
        beside = [
            int(found.parent.name)
            for found in Path("/proc").glob("[0-9]*/cmdline")
            if str(path).encode() in _content(found) and b"armferry.wrapper" in _content(found)
        ]
        assert process.pid not in beside
        (number,) = beside
        os.kill(number, signal.SIGKILL)
        assert connection.recv(1000) == b""
    assert process.poll() is None
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 0
    (left,) = private_folders.iterdir()
    shutil.rmtree(left)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # the process has ended
        return b""


def test_clients_come_one_after_the_other(wrapped: Wrapped, tmp_path: Path) -> None:
    path = tmp_path / "q"
    process = subprocess.Popen(
        [wrapped("trixie"), *PAUSED, "-qmp", f"unix:{path},server=on,wait=on"]
    )
    greetings = [_converse(path, "query-version")[0] for _ in range(3)]
    assert all("QMP" in greeting for greeting in greetings)
    _converse(path, "quit")
    assert process.wait(20) == 0


def test_daemon(wrapped: Wrapped, tmp_path: Path) -> None:
    path, pidfile = tmp_path / "q", tmp_path / "pid"
    words = ["-daemonize", "-pidfile", str(pidfile), "-qmp", f"unix:{path},server=on,wait=off"]
    done = subprocess.run([wrapped("trixie"), *PAUSED, *words], capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert int(pidfile.read_text()) > 0
    assert _converse(path, "query-status")[-1]["return"] == {
        "status": "prelaunch",
        "running": False,
    }
    _converse(path, "quit")
    deadline = time.monotonic() + 10
    while path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_inherited_monitor_and_sandbox(wrapped: Wrapped, tmp_path: Path) -> None:
    """As libvirt does it: a listening socket is passed, and QEMU may start nothing."""
    path = tmp_path / "q"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(1)
        number = listening.fileno()
        process = subprocess.Popen(
            [
                *(str(wrapped("trixie")), *PAUSED, "-sandbox"),
                "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
                *("-chardev", f"socket,id=m,fd={number},server=on,wait=off"),
                *("-mon", "chardev=m,mode=control"),
            ],
            pass_fds=(number,),
        )
    assert "return" in _converse(path, "query-status")[-1]
    _converse(path, "quit")
    assert process.wait(20) == 0


@pytest.mark.parametrize(
    "words",
    [
        ["-object", "monitor-qmp,id=q,chardev=m"],
        ["-object", '{"qom-type":"monitor-qmp","id":"q","chardev":"m"}'],
    ],
)
def test_monitor_that_is_an_object(words: list[str], wrapped: Wrapped, tmp_path: Path) -> None:
    path = tmp_path / "q"
    chardev = ["-chardev", f"socket,id=m,path={path},server=on,wait=off"]
    process = subprocess.Popen(
        [wrapped("trixie-backports"), *PAUSED, *chardev, *words, *HIDING], stderr=PIPE
    )
    said = _converse(path, "query-status", "query-chardev")
    assert said[-2]["return"] == {"status": "prelaunch", "running": False}
    assert str(path) not in json.dumps(said[-1]), "QEMU has it itself"
    _converse(path, "quit")
    assert process.wait(20) == 0


@pytest.mark.parametrize("suite", MODERN)
@pytest.mark.parametrize(
    "words",
    [
        (
            "-cpu max,x-mig-safe-missing-regs=TCR2_EL1,,PIR_EL1,"
            "x-mig-hidden-regs=0x6030000000160003,pmu=off"
        ),
        (
            "-cpu cortex-a57 "
            "-global arm-cpu.x-mig-safe-missing-regs=0x603000000013c103,,0x603000000013c512 "
            "-global arm-cpu.x-mig-hidden-regs=0x6030000000160002,0x6030000000160003"
        ),
    ],
)
def test_command_lines_of_the_mission(suite: str, words: str, wrapped: Wrapped) -> None:
    command = ["-M", "virt-7.2", "-display", "none", "-nodefaults", "-S", "-qmp", "stdio"]
    done = subprocess.run(
        [wrapped(suite), *command, *words.split()],
        input=b'{"execute":"qmp_capabilities"}{"execute":"quit"}',
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert b'"SHUTDOWN"' in done.stdout


def test_stock_refuses_them(qemu_release: Named) -> None:
    words = ["-M", "virt-7.2", "-cpu", "cortex-a57,x-mig-hidden-regs=0x6030000000160003"]
    done = subprocess.run(
        [qemu_release("trixie").launcher, *words], capture_output=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (
        1,
        (
            b"qemu-system-aarch64: can't apply global cortex-a57-arm-cpu.x-mig-hidden-regs="
            b"0x6030000000160003: Property 'cortex-a57-arm-cpu.x-mig-hidden-regs' not found\n"
        ),
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["-cpu", "max,x-mig-hidden-regs=NOTHING"],
            "-cpu x-mig-hidden-regs: 'NOTHING': no register goes by this name",
        ),
        (
            ["-cpu", "cortex-a57,x-mig-hidden-regs=TTBR0_EL1"],
            "-cpu: the guest needs TTBR0_EL1 (0x603000000013c100) to run",
        ),
        (
            ["-cpu", "cortex-a57,kvm-psci-version=1.1"],
            (
                "can't apply global cortex-a57-arm-cpu.kvm-psci-version=1.1: Property "
                "'cortex-a57-arm-cpu.kvm-psci-version' not found"
            ),
        ),
        (["-incoming", "tcp:192.0.2.1:1"], "-incoming tcp:192.0.2.1:1: cannot listen"),
    ],
)
def test_bad_values_end_before_qemu_starts(
    words: list[str], message: str, wrapped: Wrapped
) -> None:
    done = subprocess.run(
        [wrapped("trixie"), "-M", "virt-7.2", "-display", "none", *words],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == (4 if "-incoming" in words else 3)
    assert done.stderr.startswith(f"qemu-system-aarch64: {message}")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "words",
    [
        ["-version"],
        ["-M", "help"],
        ["-cpu", "help", "-M", "virt"],
        ["-machine", "none", "-device", "help"],
    ],
)
def test_questions_are_answered_by_qemu_itself(
    words: list[str], wrapped: Wrapped, qemu_release: Named
) -> None:
    def run(program: Path) -> tuple[int, bytes, bytes]:
        done = subprocess.run([program, *words], capture_output=True, timeout=60)
        return done.returncode, done.stdout, done.stderr

    assert run(wrapped("trixie")) == run(qemu_release("trixie").launcher)
