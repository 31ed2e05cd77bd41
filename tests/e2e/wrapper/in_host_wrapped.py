"""Runs inside a lab host: a wrapped QEMU under KVM carries a guest for a while and saves it.

Arguments: where the guest comes from (`-` for nowhere), the ticks to wait for, the machine type,
QEMU's further words. Prints one JSON object.
"""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

SERIAL, MONITOR, STATE = Path("/tmp/serial"), Path("/tmp/monitor"), Path("/tmp/state")
LIMIT = 900.0


def _ticks() -> int:
    text = SERIAL.read_bytes() if SERIAL.exists() else b""
    return text.count(b"\n")


def _until(done: "object", what: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + LIMIT
    while not done():  # type: ignore[operator]
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            stderr = process.communicate()[1].decode("utf-8", "replace")
            print(json.dumps({"failed": what, "status": process.returncode, "stderr": stderr}))
            sys.exit(0)
        time.sleep(0.05)


def main() -> None:
    """One stay of the guest on this host."""
    source, lines, machine, words = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:]
    command = [sys.executable, "-m", "armferry.wrapper.start", *words]
    command += ["-M", f"{machine},gic-version=3", "-accel", "kvm", "-m", "64", "-nodefaults"]
    command += ["-display", "none", "-kernel", "/guest/kernel.elf"]
    command += ["-chardev", f"file,id=s,append=on,path={SERIAL}", "-serial", "chardev:s"]
    command += ["-qmp", f"unix:{MONITOR},server=on,wait=off"]
    if source != "-":
        command += ["-incoming", f"exec:cat {source}"]
    before = _ticks()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _until(lambda: _ticks() >= before + lines, "ticks", process)
    with socket.socket(socket.AF_UNIX) as monitor:
        monitor.connect(str(MONITOR))
        said = monitor.makefile("rw")
        said.readline()
        answers: list[dict[str, object]] = []

        def execute(name: str, **arguments: object) -> dict[str, object]:
            said.write(json.dumps({"execute": name, "arguments": arguments}))
            said.flush()
            while True:
                answers.append(json.loads(said.readline()))
                if "event" not in answers[-1]:
                    return answers[-1]

        execute("qmp_capabilities")
        status = execute("query-status")["return"]
        execute("migrate", uri=f"exec:cat > {STATE}")
        _until(
            lambda: dict(execute("query-migrate")["return"]).get("status") == "completed",  # type: ignore[call-overload]
            "saved",
            process,
        )
        execute("quit")
    process.wait(LIMIT)
    stderr = process.communicate()[1].decode("utf-8", "replace")
    print(json.dumps({"status": status, "stderr": stderr, "exit": process.returncode}))


main()
