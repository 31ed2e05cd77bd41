"""For the gateway's tests without QEMU: recorded streams, judges, played peers."""

import contextlib
import io
import json
import lzma
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from armferry.gateway import Dialer, Gateway, Judge, Listener, Log, TransferReport, parse_address
from armferry.hosts.fingerprints.as_end import end_of
from armferry.hosts.fingerprints.fingerprint import Fingerprint
from armferry.hosts.fingerprints.from_stream import fingerprint_of_stream
from armferry.policy import EMPTY, Policy, aggregate
from armferry.stream import SavedCollector, StreamParser
from armferry.stream.events import RamRecord, RamRecordKind

DATA = Path(__file__).parent.parent / "stream" / "data"
OLD = "tcg_10.0.2_virt-10.0_cortex-a57_1"
LOADED = b"\x00\x01\x00\x04\x00\x00\x00\x00"
LIMIT = 20.0


class Destination:
    """Listens; keeps what each connection brings, in order of arrival."""

    def __init__(self, path: Path, answer: bytes = b"") -> None:
        self._answer = answer
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        self.address = f"unix:{path}"
        self.received: list[bytearray] = []
        self.connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                self.received.append(bytearray())
                thread = threading.Thread(
                    target=self._read, args=(connection, self.received[-1]), daemon=True
                )
                thread.start()
                self._threads.append(thread)
                self.connections.append(connection)

    def _read(self, connection: socket.socket, received: bytearray) -> None:
        with contextlib.suppress(OSError):
            while data := connection.recv(65_536):
                received += data
            if received.startswith(b"QEVM"):
                connection.sendall(self._answer)
        connection.close()

    def close(self) -> None:
        self._server.close()

    def wait_for_connections(self, count: int) -> None:
        """Returns when so many have been accepted."""
        deadline = time.monotonic() + LIMIT
        while len(self.connections) < count:
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def wait(self) -> None:
        """Returns when every connection has ended; there was one at least."""
        self.wait_for_connections(1)
        for thread in self._threads:
            thread.join(LIMIT)
            assert not thread.is_alive()


class Running:
    """A gateway in a thread."""

    def __init__(self, folder: Path, judge: Judge, to: str, **options: Any) -> None:
        self.path = str(folder / "gateway")
        self.log = io.StringIO()
        self.listener = Listener(parse_address(options.pop("listen", f"unix:{self.path}")))
        self.outcomes: list[TransferReport] = []
        self._sources: list[socket.socket] = []
        log = options.pop("log", Log(self.log))
        self.gateway = Gateway(self.listener, Dialer(parse_address(to)), judge, log=log, **options)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        self.outcomes = self.gateway.run()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.gateway.abort("the test ends")
        self._thread.join(LIMIT)
        self.listener.close()
        assert not self._thread.is_alive()

    def connect(self) -> socket.socket:
        source = socket.socket(socket.AF_UNIX)
        source.settimeout(LIMIT)
        source.connect(self.path)
        self._sources.append(source)  # a source that has gone has cancelled
        return source

    def outcome(self) -> TransferReport:
        self._thread.join(LIMIT)
        assert not self._thread.is_alive(), self.log.getvalue()
        return self.outcomes[0]

    @property
    def rejections(self) -> list[str]:
        lines = map(json.loads, self.log.getvalue().splitlines())
        return [line["reason"] for line in lines if line["event"] == "rejected"]

    def wait_for(self, event: str) -> None:
        deadline = time.monotonic() + LIMIT
        while f'"event": "{event}"' not in self.log.getvalue():
            assert time.monotonic() < deadline, self.log.getvalue()
            time.sleep(0.005)


@pytest.fixture(scope="session")
def recorded() -> Callable[[str], bytes]:
    """A function from a recording's name to its bytes, nearly all of guest memory left out."""
    known: dict[str, bytes] = {}

    def read(name: str) -> bytes:
        if name not in known:
            whole = lzma.decompress((DATA / f"{name}.mig.xz").read_bytes())
            known[name] = _without_most_pages(whole)
        return known[name]

    return read


def _without_most_pages(stream: bytes) -> bytes:
    """The stream with every fiftieth page of each block, so that thousands of runs are quick."""
    parser = StreamParser(ram_records=True)
    parts, at, block = [], 0, ""
    for number, event in enumerate([*parser.feed(stream), *parser.close()]):
        if isinstance(event, RamRecord) and event.kind in (RamRecordKind.ZERO, RamRecordKind.PAGE):
            # the first one of a block names it for those that follow
            if event.block == block and number % 50:
                parts.append(stream[at : event.offset])
                at = event.offset + event.length
            block = event.block
    return b"".join((*parts, stream[at:]))


@pytest.fixture(scope="session")
def host_of() -> Callable[[bytes], Fingerprint]:
    """A function from a stream to the fingerprint of the host that wrote it."""

    def host(stream: bytes) -> Fingerprint:
        parser, collector = StreamParser(), SavedCollector()
        collector.take(parser.feed(stream))
        collector.take(parser.close())
        return fingerprint_of_stream(collector.saved(len(stream)))

    return host


@pytest.fixture(scope="session")
def judge_of() -> Callable[..., Judge]:
    """A function from a fingerprint to its judge; without `builtin` `policy` stands alone."""

    def judge(fingerprint: Fingerprint, policy: Policy = EMPTY, *, builtin: bool = True) -> Judge:
        united = aggregate(
            fingerprint.provenance.machine,
            fingerprint.accelerator,
            builtin=builtin,
            command_line=policy,
        )
        return Judge(end_of(fingerprint), lambda _machine, _accelerator: united)

    return judge


@pytest.fixture(scope="session")
def stream(recorded: Callable[[str], bytes]) -> bytes:
    """A whole migration with a return path."""
    return recorded("switchover-ack")


@pytest.fixture(scope="session")
def judge(
    stream: bytes,
    host_of: Callable[[bytes], Fingerprint],
    judge_of: Callable[..., Judge],
) -> Judge:
    """The judge of the host that wrote it."""
    return judge_of(host_of(stream), builtin=False)


@pytest.fixture
def destination(tmp_path: Path) -> Iterator[Destination]:
    """A destination that says it has loaded everything."""
    one = Destination(tmp_path / "destination", LOADED)
    yield one
    one.close()


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Callable[[bytes], Destination]]:
    """A function from what it answers to a destination."""
    with contextlib.ExitStack() as stack:

        def made(answer: bytes) -> Destination:
            one = Destination(tmp_path / "answering", answer)
            stack.callback(one.close)
            return one

        yield made


@pytest.fixture
def carry(tmp_path: Path) -> Callable[..., Running]:
    """A function from a judge and a destination's address to a running gateway."""

    def made(judge: Judge, to: str, **options: Any) -> Running:
        return Running(tmp_path, judge, to, **options)

    return made
