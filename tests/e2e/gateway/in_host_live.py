"""Runs inside a lab host: one end of a live move of a QEMU under KVM.

    start NUMBER [INCOMING]     a QEMU, its guest running or, with INCOMING, waited for
    send NUMBER WIRE            moves that QEMU's guest over the wire
    receive NUMBER WIRE         the other end
    ticks NUMBER COUNT          returns once the guest has told so many more ticks

A wire is a virtio console port, which has no end of file: what ends a move is the return path.
Prints one JSON object. Standard library only, and little of it.
"""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

LIMIT = 150.0
SERIAL = Path("/tmp/serial")
RETURN_PATH = {"capabilities": [{"capability": "return-path", "state": True}]}


class Monitor:
    """QMP of one QEMU."""

    def __init__(self, number: str) -> None:
        connection = socket.socket(socket.AF_UNIX)
        deadline = time.monotonic() + LIMIT
        while True:
            try:
                connection.connect(f"/tmp/monitor-{number}")
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        self._said = connection.makefile("rw")
        self._said.readline()
        self.execute("qmp_capabilities", {})

    def execute(self, name: str, arguments: object) -> dict[str, object]:
        self._said.write(json.dumps({"execute": name, "arguments": arguments}))
        self._said.flush()
        while True:
            answer: dict[str, object] = json.loads(self._said.readline())
            if "error" in answer:
                raise SystemExit(f"{name}: {answer['error']}")
            if "return" in answer:
                value = answer["return"]
                return value if isinstance(value, dict) else {}

    def migrated(self) -> dict[str, object]:
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            state = self.execute("query-migrate", {})
            if state.get("status") in ("completed", "failed", "cancelled"):
                break
            time.sleep(0.05)
        return state


def start(number: str, incoming: bool) -> dict[str, object]:
    command = ["qemu-system-aarch64", "-nodefaults", "-no-user-config", "-display", "none"]
    command += ["-M", "virt-10.0,accel=kvm,gic-version=3", "-cpu", "host", "-m", "64"]
    command += ["-kernel", "/guest/kernel.elf", "-serial", "chardev:s"]
    command += ["-chardev", f"file,id=s,append=on,path={SERIAL}"]
    command += ["-qmp", f"unix:/tmp/monitor-{number},server=on,wait=off"]
    command += ["-incoming", "defer"] * incoming
    with open(f"/tmp/qemu-{number}", "wb") as words:
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=words, stderr=words)
    return Monitor(number).execute("query-status", {})


def wire(name: str) -> int:
    """The port that was handed to this host under `name`."""
    for port in Path("/sys/class/virtio-ports").iterdir():
        if (port / "name").read_text().strip() == name:
            return os.open(f"/dev/{port.name}", os.O_RDWR)
    raise SystemExit(f"no wire {name}")


def bridge(port: int, connection: socket.socket) -> None:
    """Copies both ways for as long as this program runs."""

    def back() -> None:
        while piece := os.read(port, 65_536):
            connection.sendall(piece)

    def forward() -> None:
        while piece := connection.recv(65_536):
            view = memoryview(piece)
            while view:
                view = view[os.write(port, view) :]

    for work in (back, forward):
        threading.Thread(target=work, daemon=True).start()


def move(number: str, name: str, sends: bool) -> dict[str, object]:
    monitor = Monitor(number)
    monitor.execute("migrate-set-capabilities", RETURN_PATH)
    # an emulated host is slow and its guest is not
    patient = {"max-bandwidth": 8 << 30, "downtime-limit": 10_000}
    monitor.execute("migrate-set-parameters", patient)
    port = wire(name)
    uri = {"uri": f"unix:/tmp/{name}"}
    if sends:
        server = socket.socket(socket.AF_UNIX)
        server.bind(f"/tmp/{name}")
        server.listen()
        monitor.execute("migrate", uri)
        connection, _ = server.accept()
    else:
        monitor.execute("migrate-incoming", uri)
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(f"/tmp/{name}")
    bridge(port, connection)
    state = monitor.migrated()
    time.sleep(0.5)  # the last word of the return path must leave
    words = Path(f"/tmp/qemu-{number}").read_text()
    return {"state": state, "run": monitor.execute("query-status", {}), "stderr": words}


def ticks(count: int) -> dict[str, object]:
    def told() -> int:
        return SERIAL.read_bytes().count(b"tick") if SERIAL.exists() else 0

    before, deadline = told(), time.monotonic() + LIMIT
    while told() < before + count and time.monotonic() < deadline:
        time.sleep(0.05)
    return {"ticks": told() - before}


def main(verb: str, number: str, *words: str) -> dict[str, object]:
    if verb == "start":
        return start(number, bool(words))
    if verb == "ticks":
        return ticks(int(words[0]))
    return move(number, words[0], verb == "send")


print(json.dumps(main(*sys.argv[1:])))
