"""Runs inside a lab host: one end of a live move of a QEMU under KVM.

    start NUMBER runs|waits [PROGRAM WORD...]   a QEMU whose guest runs, or is waited for
    send NUMBER plain|tls WIRE...       moves that QEMU's guest: multifd over more wires than one
    receive NUMBER plain|tls WIRE...    the other end
    quit NUMBER                 ends that QEMU, and says what was written on its standard error
    ticks NUMBER COUNT          returns once the guest has told so many more ticks

PROGRAM is `qemu-system-aarch64` or `armferry-qemu`. A wire is a virtio console port, which has no
end of file: what ends a move is the return path. The far end of a wire connects when the first
bytes have come, so that QEMU sees its channels in the order in which they were opened.
Prints one JSON object. Standard library only, and little of it.
"""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

LIMIT = 600.0
SERIAL = Path("/tmp/serial")
TRACER = Path("/guest/tracer.so")


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


def start(number: str, waits: bool, program: str, words: list[str]) -> dict[str, object]:
    wrapped = [sys.executable, "-m", "armferry.wrapper.start"]
    command = wrapped if program == "armferry-qemu" else [program]
    command += ["-nodefaults", "-no-user-config", "-display", "none", "-m", "64"]
    command += words or ["-M", "virt-10.0,accel=kvm,gic-version=3", "-cpu", "host"]
    command += ["-kernel", "/guest/kernel", "-serial", "chardev:s"]
    command += ["-chardev", f"file,id=s,append=on,path={SERIAL}"]
    command += ["-qmp", f"unix:/tmp/monitor-{number},server=on,wait=off"]
    command += ["-incoming", "defer"] * waits
    environment = dict(os.environ)
    if TRACER.exists():
        environment |= {"LD_PRELOAD": str(TRACER), "TRACE": f"/tmp/trace-{number}"}
    with open(f"/tmp/qemu-{number}", "wb") as said:
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment
        )
    try:
        return Monitor(number).execute("query-status", {})
    except (OSError, ValueError):  # QEMU is gone, or was never there
        time.sleep(1)  # what is beside it has its last word
        raise SystemExit(Path(f"/tmp/qemu-{number}").read_text()) from None


def wire(name: str) -> int:
    """The port that was handed to this host under `name`."""
    for port in Path("/sys/class/virtio-ports").iterdir():
        if (port / "name").read_text().strip() == name:
            return os.open(f"/dev/{port.name}", os.O_RDWR)
    raise SystemExit(f"no wire {name}")


def copy(read: Callable[[], bytes], write: Callable[[memoryview], int]) -> None:
    while piece := read():
        view = memoryview(piece)
        while view:
            view = view[write(view) :]


def bridge(port: int, connection: socket.socket) -> None:
    """Copies both ways for as long as this program runs."""
    ways = (
        (lambda: os.read(port, 65_536), connection.send),
        (lambda: connection.recv(65_536), lambda piece: os.write(port, piece)),
    )
    for way in ways:
        threading.Thread(target=copy, args=way, daemon=True).start()


def near_end(server: socket.socket, ports: list[int]) -> None:
    for port in ports:
        bridge(port, server.accept()[0])


def far_end(path: str, port: int) -> None:
    first = os.read(port, 65_536)
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    connection.sendall(first)
    bridge(port, connection)


def move(number: str, sends: bool, tls: bool, names: list[str]) -> dict[str, object]:
    monitor = Monitor(number)
    wanted = ["return-path"] + ["multifd"] * (len(names) > 1)
    states = [{"capability": name, "state": True} for name in wanted]
    monitor.execute("migrate-set-capabilities", {"capabilities": states})
    # an emulated host is slow and its guest is not
    parameters: dict[str, object] = {"max-bandwidth": 8 << 30, "downtime-limit": 10_000}
    if len(names) > 1:
        parameters["multifd-channels"] = len(names) - 1
    if tls:
        parameters["tls-creds"] = "client" if sends else "server"
        if sends:
            parameters["tls-hostname"] = "localhost"
    monitor.execute("migrate-set-parameters", parameters)
    ports = [wire(name) for name in names]
    path = f"/tmp/{names[0]}"
    uri = {"uri": f"unix:{path}"}
    if sends:
        server = socket.socket(socket.AF_UNIX)
        server.bind(path)
        server.listen()
        threading.Thread(target=near_end, args=(server, ports), daemon=True).start()
        monitor.execute("migrate", uri)
    else:
        monitor.execute("migrate-incoming", uri)
        for port in ports:
            threading.Thread(target=far_end, args=(path, port), daemon=True).start()
    state = monitor.migrated()
    time.sleep(0.5)  # the last word of the return path must leave
    words = Path(f"/tmp/qemu-{number}").read_text()
    return {"state": state, "run": monitor.execute("query-status", {}), "stderr": words}


def leave(number: str) -> dict[str, object]:
    Monitor(number).execute("quit", {})
    time.sleep(0.5)  # what is beside QEMU has its last word
    return {"stderr": Path(f"/tmp/qemu-{number}").read_text()}


def ticks(count: int) -> dict[str, object]:
    def told() -> int:
        return SERIAL.read_bytes().count(b"tick") if SERIAL.exists() else 0

    before, deadline = told(), time.monotonic() + LIMIT
    while told() < before + count and time.monotonic() < deadline:
        time.sleep(0.05)
    return {"ticks": told() - before}


def main(verb: str, number: str, *words: str) -> dict[str, object]:
    if verb == "start":
        program = words[1] if len(words) > 1 else "qemu-system-aarch64"
        return start(number, words[0] == "waits", program, list(words[2:]))
    if verb == "ticks":
        return ticks(int(words[0]))
    if verb == "quit":
        return leave(number)
    return move(number, verb == "send", words[0] == "tls", list(words[1:]))


print(json.dumps(main(*sys.argv[1:])))
