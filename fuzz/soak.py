"""`python -m fuzz.soak [--moves N]`: moves without end through one gateway, on networks that fail.

Four lanes, each with a source and a destination played here, two of them through one process of
`armferry gateway`, two with TLS through another. Every move has one fault of the source's network
or the destination's, or none: latency and jitter, little bandwidth, a slow close, a cut or a reset
at any offset, a black hole, silence, words of no migration. What must hold: a whole move arrives
with the bytes that it always has; of any other the destination never has the guest's state, or has
never said that it loaded it; memory and descriptors stay flat. Prints the counts; 1 when anything
was found.
"""

import argparse
import contextlib
import os
import random
import re
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from armferry.gateway import connecting_context, listening_context
from armferry.stream import StreamError, StreamParser
from armferry.stream.events import DeviceStateBegins, EndOfStream
from fuzz.corpus import recorded

SOURCE = "tcg_10.0.2_virt-10.0_cortex-a57_1"
DESTINATION = "switchover-ack"
LOADED = b"\x00\x01\x00\x04\x00\x00\x00\x00"
FAILED = b"\x00\x01\x00\x04\x00\x00\x00\x01"
LIMIT = 120.0
STALL = 10.0
MORE_MEMORY = 24 << 20
"""Bytes that the gateway may take at the end beyond what it took after the first tenth."""
MORE_DESCRIPTORS = 8

OF_SOURCE = ("cut", "reset", "black hole", "latency", "bandwidth", "slow close", "silence", "words")
OF_DESTINATION = ("reset by it", "black hole there", "slow reader", "no answer", "failure")
WHOLE = ("none", "latency", "bandwidth", "slow close", "slow reader")
"""Faults that a move survives."""
_ON_ITS_WAY = 5.0
_RESETTING = struct.pack("ii", 1, 0)


@dataclass
class Lane:
    """One source and one destination; `received` is what the last move brought there."""

    server: socket.socket
    context: ssl.SSLContext | None
    client: ssl.SSLContext | None
    port: int = 0
    fault: str = "none"
    at: int = 0
    received: bytearray = field(default_factory=bytearray)
    accepted: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    def serve(self) -> None:
        """The destination, for as long as the socket lives."""
        with contextlib.suppress(OSError):
            while True:
                plain, _ = self.server.accept()
                self.accepted.set()
                with contextlib.suppress(OSError), plain:
                    plain.settimeout(LIMIT)
                    connection: socket.socket = plain
                    if self.context is not None:
                        connection = self.context.wrap_socket(plain, server_side=True)
                    self._take(connection)
                    connection.close()
                self.ended.set()

    def _take(self, connection: socket.socket) -> None:
        if self.fault == "black hole there":
            connection.recv(1000)
            time.sleep(STALL + 1)
            return
        size = 2_000 if self.fault == "slow reader" else 65_536
        parser = StreamParser()
        while not parser.done and (data := connection.recv(size)):
            self.received += data
            with contextlib.suppress(StreamError):
                parser.feed(data)
            if self.fault == "reset by it" and len(self.received) > self.at:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESETTING)
                return
            if self.fault == "slow reader" and len(self.received) % 7 == 0:
                time.sleep(0.001)
        if not parser.done:
            return
        if self.fault == "failure":
            connection.sendall(FAILED)
        elif self.fault != "no answer":
            connection.sendall(LOADED)

    def settle(self) -> None:
        """A connection that is still on its way must not be taken for the next move's."""
        if self.fault not in ("silence", "words") and self.accepted.wait(_ON_ITS_WAY):
            self.ended.wait(LIMIT)

    def move(self, stream: bytes) -> bytes:
        """The source: sends `stream` as its fault lets it; what came back."""
        self.received.clear()
        self.accepted.clear()
        self.ended.clear()
        plain = socket.create_connection(("127.0.0.1", self.port), LIMIT)
        with contextlib.suppress(OSError), plain:
            connection: socket.socket = plain
            if self.client is not None and self.fault not in ("silence", "words"):
                connection = self.client.wrap_socket(plain, server_hostname="localhost")
            with contextlib.closing(connection):
                return self._send(connection, stream)
        return b""

    def _send(self, connection: socket.socket, stream: bytes) -> bytes:
        if self.fault == "silence":
            return connection.recv(100)
        if self.fault == "words":
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            return connection.recv(100)
        if self.fault in ("cut", "reset", "black hole"):
            connection.sendall(stream[: self.at])
            if self.fault == "black hole":
                return connection.recv(100)
            if self.fault == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESETTING)
            return b""
        if self.fault in ("latency", "bandwidth"):
            at = 0
            while at < len(stream):
                step = random.randrange(1, 60_000) if self.fault == "latency" else 20_000
                connection.sendall(stream[at : at + step])
                time.sleep(random.random() * 0.01 if self.fault == "latency" else 0.004)
                at += step
        else:
            connection.sendall(stream)
        if self.fault == "slow close":
            time.sleep(0.2)
        answer = b""
        while len(answer) < len(LOADED) and (data := connection.recv(100)):
            answer += data
        return answer


def credentials(folder: Path) -> Path:
    """An authority, and certificates for both ends, as QEMU lays them out."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    folder.mkdir()
    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl(*new, "-x509", "-days", "2", "-subj", "/CN=authority", "-keyout", "ca-key.pem",
            "-out", "ca-cert.pem")  # fmt: skip
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    for end in ("server", "client"):
        openssl(*new, "-subj", "/CN=localhost", "-keyout", f"{end}-key.pem", "-out", "request")
        openssl("x509", "-req", "-in", "request", "-CA", "ca-cert.pem", "-CAkey", "ca-key.pem",
                "-CAcreateserial", "-days", "2", "-extfile", "names", "-out",
                f"{end}-cert.pem")  # fmt: skip
    return folder


class Gateway:
    """One process with two lanes; TLS is of a process, so there are two of them."""

    def __init__(self, folder: Path, lanes: list[Lane], keys: Path | None) -> None:
        words = [sys.executable, "-m", "armferry", "gateway", "--keep", "--to", str(folder / "to")]
        for lane in lanes:
            port = lane.server.getsockname()[1]
            words += ["--listen", "tcp:127.0.0.1:0", "--connect", f"tcp:localhost:{port}"]
        words += ["--stall-limit", str(STALL), "--connect-limit", str(STALL), "--json"]
        if keys is not None:
            words += ["--tls-listen", str(keys), "--tls-connect", str(keys)]
            words += ["--tls-authorize", "localhost"]
        self._out = (folder / f"out-{keys is not None}").open("wb")
        self.process = subprocess.Popen(words, stdout=self._out, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        for lane in lanes:
            line = self.process.stderr.readline()
            found = re.match(r"listening on tcp:127\.0\.0\.1:(\d+)", line)
            assert found, line + self.process.stderr.read()
            lane.port = int(found.group(1))
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    @property
    def memory(self) -> int:
        """Bytes resident."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"^VmRSS:\s+(\d+) kB", text, re.MULTILINE)[0]) << 10

    @property
    def descriptors(self) -> int:
        """Open ones."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def end(self) -> int:
        """Stops it; its exit code."""
        self.process.terminate()
        code = self.process.wait(LIMIT)
        self._out.close()
        return code


def verdict(lane: Lane, answer: bytes, begin: int, whole: set[bytes]) -> str:
    """What is wrong with a move that has ended, empty when nothing is."""
    got = bytes(lane.received)
    if lane.fault in WHOLE:
        if answer != LOADED:
            return f"did not arrive: answered {answer!r}, {len(got)} bytes came"
        whole.add(got)
        return "" if len(whole) == 1 else "arrived with other bytes than the moves before"
    if answer == LOADED:
        return "the source was told that it was loaded"
    if lane.fault in OF_SOURCE and len(got) > begin:
        return f"{len(got)} bytes arrived, of which the first {begin} alone may"
    return ""


def main() -> int:
    """The moves that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moves", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    rng = random.Random(arguments.seed)
    stream = recorded(SOURCE)
    parsed = StreamParser()
    events = [*parsed.feed(stream), *parsed.close()]
    begin = next(e.offset for e in events if isinstance(e, DeviceStateBegins))
    end = next(e.offset for e in events if isinstance(e, EndOfStream))
    with tempfile.TemporaryDirectory(prefix="armferry-soak-") as name:
        folder = Path(name)
        (folder / "to").write_bytes(recorded(DESTINATION))
        keys = credentials(folder / "keys")
        lanes = [
            Lane(
                socket.create_server(("127.0.0.1", 0)),
                listening_context(keys) if tls else None,
                connecting_context(keys) if tls else None,
            )
            for tls in (False, False, True, True)
        ]
        for lane in lanes:
            threading.Thread(target=lane.serve, daemon=True).start()
        gateways = [Gateway(folder, lanes[:2], None), Gateway(folder, lanes[2:], keys)]
        done, found = _soak(lanes, gateways, arguments.moves, rng, stream, (begin, end))
        codes = [gateway.end() for gateway in gateways]
    print(f"{sum(done.values())} moves: {dict(sorted(done.items()))}, {found} findings")
    return 1 if found or any(code not in (0, 2, 4) for code in codes) else 0


class Pulse:
    """Wakes ten times a second, and notes when it was not let: proof of a starved machine."""

    def __init__(self) -> None:
        self._missed = 0.0
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        last = time.monotonic()
        while True:
            time.sleep(0.1)
            now = time.monotonic()
            if now - last > STALL / 4:
                self._missed = now
            last = now

    def missed(self, since: float) -> bool:
        """Whether there was a pause of a quarter of the stall limit since that moment."""
        return self._missed > since


def _soak(
    lanes: list[Lane],
    gateways: list[Gateway],
    moves: int,
    rng: random.Random,
    stream: bytes,
    state: tuple[int, int],
) -> tuple[Counter[str], int]:
    done: Counter[str] = Counter()
    findings: list[str] = []
    whole: set[bytes] = set()
    lock = threading.Lock()
    left = iter(range(moves))
    first: list[tuple[int, int]] = []

    pulse = Pulse()

    def work(lane: Lane) -> None:
        while True:
            with lock:
                number = next(left, None)
                if number is None:
                    return
                lane.fault = rng.choice(("none", *OF_SOURCE, *OF_DESTINATION))
                # of a cut, mostly in the state, where it matters
                near = (state[0] - 200, state[1]) if rng.random() < 0.7 else (0, state[1])
                lane.at = rng.randrange(*near)
            begun = time.monotonic()
            answer = lane.move(stream)
            lane.settle()
            if lane.fault in WHOLE and answer != LOADED and pulse.missed(begun):
                # a machine that gives a process no time for so long fails a move by design
                with lock:
                    done["(starved once)"] += 1
                answer = lane.move(stream)
                lane.settle()
            with lock:
                done[lane.fault] += 1
                wrong = verdict(lane, answer, state[0], whole)
                if wrong:
                    findings.append(wrong)
                    print(f"FOUND {lane.fault} at {lane.at}: {wrong}", flush=True)
                if number == max(1, moves // 10):
                    first.extend((one.memory, one.descriptors) for one in gateways)

    threads = [threading.Thread(target=work, args=(lane,)) for lane in lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    time.sleep(STALL + 1)  # the last silent one has been turned away
    for (memory, descriptors), gateway in zip(first, gateways, strict=True):
        print(
            f"memory {memory >> 20} -> {gateway.memory >> 20} MiB, "
            f"descriptors {descriptors} -> {gateway.descriptors}",
            flush=True,
        )
        if gateway.memory > memory + MORE_MEMORY:
            findings.append("memory grew")
        if gateway.descriptors > descriptors + MORE_DESCRIPTORS:
            findings.append("descriptors grew")
    return done, len(findings)


if __name__ == "__main__":
    sys.exit(main())
