"""The service as it is shipped, under a flood: within its unit's memory, and it obeys signals.

Its memory is bounded by a control group where this machine lets one be made, as the unit's
MemoryMax= does it.
"""

import contextlib
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from armferry.hosts.fingerprints.fingerprint import Fingerprint, dump
from armferry.stream import StreamParser
from armferry.stream.events import DeviceStateBegins

UNIT = Path(__file__).parents[2] / "packaging" / "armferry-gateway@.service"
OLD = "tcg_10.0.2_virt-10.0_cortex-a57_1"
LOADED = b"\x00\x01\x00\x04\x00\x00\x00\x00"
LIMIT = 60.0
SECTION = b"\x04\x00\x00\x00\x09\x03foo\x00\x00\x00\x00\x00\x00\x00\x01"
FALSE_END = b"\x7e\x00\x00\x00\x09\x00\x06\x00\x00\x00\x0e" + b'{"devices":[]}'
MIB = 1 << 20


def unit_number(name: str) -> int:
    """A number of the shipped unit, in bytes where it has a letter."""
    found = re.search(rf"^{name}=(\d+)(M?)$", UNIT.read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * (MIB if found[2] else 1)


def unit_environment() -> dict[str, str]:
    """What the shipped unit adds to the environment."""
    return dict(re.findall(r"^Environment=(\w+)=(\S+)$", UNIT.read_text(), re.MULTILINE))


@dataclass(frozen=True)
class Group:
    """A control group: its folder, and the file that says how much it took at most."""

    folder: Path
    peak: Path


@pytest.fixture
def group() -> Iterator[Group]:
    """A control group with the memory of the shipped unit."""
    for root, limit, peak in (
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes"),
        ("/sys/fs/cgroup", "memory.max", "memory.peak"),
    ):
        folder = Path(root) / f"armferry-test-{os.getpid()}"
        try:
            folder.mkdir()
            try:
                (folder / limit).write_text(str(unit_number("MemoryMax")))
            except OSError:
                folder.rmdir()
                continue
        except OSError:
            continue
        try:
            yield Group(folder, folder / peak)
        finally:
            folder.rmdir()
        return
    pytest.skip("no control group for memory can be made here")


@dataclass
class Service:
    """A running gateway, what connects to it, and its destination."""

    process: subprocess.Popen[str]
    listening: Path

    def connect(self) -> socket.socket:
        source = socket.socket(socket.AF_UNIX)
        source.settimeout(LIMIT)
        source.connect(str(self.listening))
        return source

    def takes(self, head: bytes) -> bool:
        """Whether a move that begins with `head` is taken, or turned away at once."""
        with self.connect() as source:
            source.settimeout(1.0)
            try:
                source.sendall(head)
                return source.recv(1) != b""
            except TimeoutError:
                return True
            except OSError:
                return False

    def seconds(self) -> float:
        """Processor time that it has taken so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _serve(listening: socket.socket) -> None:
    """A destination that takes every stream and says that it has loaded each whole one."""

    def take(connection: socket.socket) -> None:
        parser = StreamParser()
        with connection, contextlib.suppress(Exception):
            while not parser.done and (data := connection.recv(1 << 18)):
                parser.feed(data)
            connection.sendall(LOADED)

    with contextlib.suppress(OSError):
        while True:
            connection, _ = listening.accept()
            threading.Thread(target=take, args=(connection,), daemon=True).start()


@pytest.fixture
def service(
    tmp_path: Path,
    recorded: Callable[[str], bytes],
    host_of: Callable[[bytes], Fingerprint],
) -> Iterator[Callable[[Group | None], Service]]:
    """A function that starts a gateway, in a control group or not."""
    (tmp_path / "to").write_text(dump(host_of(recorded(OLD))))
    started: list[subprocess.Popen[str]] = []
    destination = socket.socket(socket.AF_UNIX)
    destination.bind(str(tmp_path / "out"))
    destination.listen(256)
    threading.Thread(target=_serve, args=(destination,), daemon=True).start()

    def start(group: Group | None) -> Service:
        listening = tmp_path / "in"
        command = [sys.executable, "-m", "armferry", "gateway", "--keep", "--log", "-"]
        command += [f"--listen=unix:{listening}", f"--connect=unix:{tmp_path}/out"]
        command += ["--to", str(tmp_path / "to")]
        if group is not None:
            enter = f'echo $$ > {group.folder}/cgroup.procs && exec "$@"'
            command = ["/bin/sh", "-c", enter, "sh", *command]
        descriptors = unit_number("LimitNOFILE")
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **unit_environment()},
            preexec_fn=lambda: resource.setrlimit(
                resource.RLIMIT_NOFILE, (descriptors, descriptors)
            ),
        )
        started.append(process)
        deadline = time.monotonic() + LIMIT
        while not listening.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return Service(process, listening)

    yield start
    for process in started:
        process.kill()
        process.wait()
    destination.close()


@pytest.fixture
def head(recorded: Callable[[str], bytes]) -> bytes:
    """What stands before the device state of a guest that the destination would take."""
    stream = recorded(OLD)
    events = StreamParser().feed(stream)
    begins = next(event.offset for event in events if isinstance(event, DeviceStateBegins))
    return stream[:begins]


def _flood(source: socket.socket, head: bytes, piece: bytes, count: int) -> None:
    with contextlib.suppress(OSError):
        source.sendall(head + SECTION)
        for _ in range(count):
            source.sendall(piece)


@pytest.mark.full
def test_many_large_states_stay_within_the_units_memory(
    group: Group,
    service: Callable[[Group | None], Service],
    head: bytes,
    recorded: Callable[[str], bytes],
) -> None:
    """As many as run at once, each with more state than its share; then a move goes through."""
    running = service(group)
    sources = [running.connect() for _ in range(128)]
    floods = [
        threading.Thread(target=_flood, args=(source, head, b"A" * MIB, 40)) for source in sources
    ]
    for flood in floods:
        flood.start()
    for flood in floods:
        flood.join(LIMIT)
    assert running.process.poll() is None
    for source in sources:
        source.close()
    deadline = time.monotonic() + LIMIT
    answer = b""
    while answer != LOADED and time.monotonic() < deadline:  # places become free one by one
        with contextlib.suppress(OSError), running.connect() as source:
            source.sendall(recorded(OLD))
            answer = source.recv(len(LOADED))
    assert answer == LOADED
    assert running.process.poll() is None
    peak = int(group.peak.read_text())
    print(f"at most {peak >> 20} MiB of {unit_number('MemoryMax') >> 20}")
    assert peak < unit_number("MemoryMax")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_signals_are_obeyed_while_it_is_flooded(
    number: signal.Signals, service: Callable[[Group | None], Service], head: bytes
) -> None:
    """Within a second of its own processor time, whatever else the machine does."""
    running = service(None)
    sources = [running.connect() for _ in range(6)]
    for source in sources:
        piece = FALSE_END * (MIB // len(FALSE_END))
        threading.Thread(target=_flood, args=(source, head, piece, 30), daemon=True).start()
    begun = running.seconds()
    deadline = time.monotonic() + LIMIT
    while running.seconds() < begun + 0.1:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    before = running.seconds()
    running.process.send_signal(number)
    if number == signal.SIGTERM:  # no new move, those that run go on
        while running.takes(head):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert running.seconds() < before + 1.0
        for source in sources:
            source.close()
    _, _, usage = os.wait4(running.process.pid, 0)
    running.process.returncode = 0  # it has been waited for
    assert usage.ru_utime + usage.ru_stime < before + 1.0
