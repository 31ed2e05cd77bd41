"""Runs inside a lab host: 64 vCPUs started and loaded, and a move, with and without the boundary.

    in_host_boundary.py VCPUS ROUNDS MIB

Beside it lies `table`, the boundary's rules. Every round does each thing once in each way. Prints
one JSON object: lists of seconds by what was done and how, and of moves with their CPU-seconds per
GB.
"""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from armferry.boundary import Preload, library
from armferry.hosts.qmp.client import UNLIMITED, QmpClient

LIMIT = 300.0
MACHINE = "virt-10.0,accel=kvm,gic-version=3"
ENDED = ("completed", "failed", "cancelled")
TABLE = Path(__file__).with_name("table").read_bytes()


class Qemu:
    """One QEMU, its vCPUs stopped; `seconds` is what it took to answer."""

    def __init__(self, ruled: bool, *words: str) -> None:
        ours, theirs = socket.socketpair()
        command = ["qemu-system-aarch64", "-nodefaults", "-no-user-config", "-display", "none"]
        command += ["-S", "-M", MACHINE, "-cpu", "host", "-m", "64", *words]
        command += ["-chardev", f"socket,id=q,fd={theirs.fileno()}", "-qmp", "chardev:q"]
        own = library()
        assert own is not None
        preload = Preload.of(TABLE, own) if ruled else None
        began = time.perf_counter()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            env=None if preload is None else preload.environment(os.environ),
            pass_fds=(
                theirs.fileno(),
                *(() if preload is None else (preload.table, preload.writing)),
            ),
        )
        theirs.close()
        self.qmp = QmpClient(ours, "QEMU", limit=LIMIT)
        self.qmp.execute("query-status")
        self.seconds = time.perf_counter() - began
        if preload is not None:
            preload.close_for_qemu()
            preload.reports.close()

    def migrated(self) -> dict[str, object]:
        while (state := self.qmp.execute("query-migrate")).get("status") not in ENDED:
            time.sleep(0.005)
        assert state["status"] == "completed", state
        return dict(state)

    def quit(self) -> float:
        """CPU-seconds of the whole process."""
        self.qmp.execute("quit")
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        return usage.ru_utime + usage.ru_stime


def start_and_load(vcpus: int, ruled: bool) -> tuple[float, float]:
    words = ("-smp", str(vcpus))
    born = Qemu(ruled, *words)
    born.qmp.execute("migrate-set-parameters", {"max-bandwidth": UNLIMITED})
    born.qmp.execute("migrate", {"uri": "exec:cat > stream"})
    born.migrated()
    born.quit()
    taken = Qemu(ruled, *words, "-incoming", "defer")
    began = time.perf_counter()
    taken.qmp.execute("migrate-incoming", {"uri": "exec:cat stream"})
    taken.migrated()
    seconds = time.perf_counter() - began
    taken.quit()
    return born.seconds, seconds


def move(way: str, mebibytes: int, fingerprint: Path) -> dict[str, float]:
    """Seconds, GB, downtime in ms; CPU-seconds of both QEMUs and of the relay between them."""
    for path in ("in", "out"):
        Path(path).unlink(missing_ok=True)
    size = f"size={mebibytes}M"
    full = ("-object", f"memory-backend-file,id=m,{size},mem-path=memory,share=off")
    blank = ("-object", f"memory-backend-ram,id=m,{size},prealloc=on")
    common = ("-m", str(mebibytes), "-machine", "memory-backend=m")
    source = Qemu(way == "boundary", *common, *full)
    destination = Qemu(way == "boundary", *common, *blank, "-incoming", "defer")
    on = {"capabilities": [{"capability": "return-path", "state": True}]}
    for one in (source, destination):
        one.qmp.execute("migrate-set-capabilities", on)
    source.qmp.execute("migrate-set-parameters", {"max-bandwidth": UNLIMITED, "downtime-limit": 1})
    destination.qmp.execute("migrate-incoming", {"uri": "unix:out"})
    relay = None
    if way == "gateway":
        command = ["python3", "-m", "armferry", "gateway", "--to", str(fingerprint)]
        command += ["--listen", "unix:in", "--connect", "unix:out"]
        relay = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not Path("in").exists():
            assert relay.poll() is None
            time.sleep(0.05)
    before = 0.0 if relay is None else cpu_of(relay.pid)
    source.qmp.execute("migrate", {"uri": "unix:in" if relay else "unix:out"})
    state = source.migrated()
    destination.migrated()
    spent = {"qemus": source.quit() + destination.quit(), "relay": 0.0}
    if relay is not None:
        relay.send_signal(signal.SIGTERM)
        _, _, usage = os.wait4(relay.pid, 0)
        spent["relay"] = usage.ru_utime + usage.ru_stime - before
    memory, milliseconds, downtime = state["ram"], state["total-time"], state["downtime"]
    assert isinstance(memory, dict)
    assert isinstance(milliseconds, int)
    assert isinstance(downtime, int)
    sent = memory["transferred"] / 1e9
    return {"seconds": milliseconds / 1e3, "GB": sent, "downtime": downtime, **spent}


def cpu_of(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, words[11:13])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Every round, each way in turn."""
    vcpus, rounds, mebibytes = map(int, sys.argv[1:])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    Path("memory").write_bytes(os.urandom(1 << 20) * mebibytes)
    fingerprint = Path("host.json")
    command = ["python3", "-m", "armferry", "fingerprint", "qemu", "--machine", "virt-10.0"]
    command += ["--cpu", "host", "--accel", "kvm", "-o", str(fingerprint)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found: dict[str, list[object]] = {}
    for _ in range(rounds):
        for how in ("stock", "boundary"):
            started, loaded = start_and_load(vcpus, how == "boundary")
            found.setdefault(f"start {how}", []).append(started)
            found.setdefault(f"load {how}", []).append(loaded)
        for way in ("direct", "boundary", "gateway"):
            found.setdefault(f"move {way}", []).append(move(way, mebibytes, fingerprint))
    print(json.dumps(found))


main()
