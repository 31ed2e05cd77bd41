"""The gateway against no relay at all and against socat: wall time, CPU, memory, added downtime.

    python -m benchmarks.gateway [--memory MIB] [--rounds N] [--way WAY ...] [--json]
                                 [--before FOLDER]

Every round moves the same paused guest, half of its memory zero pages, between two QEMUs of the
rig, once directly, once through socat and once through `armferry gateway` as a process of its
own; the rounds are interleaved so that a busy machine disturbs all three alike. The destination
has touched its memory before: what a kernel does to find fresh memory takes anything from nothing
to a second, with any relay.

With `--before`, a checkout of another version, the gateway of that one is measured in the same
rounds.

Ways of so many Gbit/s (`--network` for all of them) have the destination, and what relays, in a
network namespace of their own behind a veth that tc(8) holds to the rate; they need root.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from armferry.hosts.fingerprints.fingerprint import dump
from armferry.hosts.fingerprints.probe import fingerprint_of_qemu
from armferry.hosts.qmp.process import MachineSpec, QemuProcess
from armferry.lab.qemu_install import install, resolve
from benchmarks.network import Network, network

_RELEASE = "10.0.13"
_RELAYS = ("direct", "socat", "gateway")
_GATEWAYS = ("gateway", "before")
_WAYS = ("unix", "tcp", "unix multifd 4", "tcp multifd 4")
_RATES = ("1", "2.5", "10")
_NETWORK_WAYS = tuple(
    f"{rate} Gbit/s{channels}" for channels in ("", " multifd 4") for rate in _RATES
)
_STRIPE = 1 << 20
_TICKS = os.sysconf("SC_CLK_TCK")
_LIMIT = 300.0
_ACCEPTS = "00010000"  # flags of a UNIX socket that listens, in /proc/net/unix


@dataclass(frozen=True)
class Sample:
    """One move: seconds, CPU-seconds and peak MiB of the relay, gigabytes, milliseconds."""

    seconds: float
    cpu: float
    peak: float
    gigabytes: float
    downtime: float
    decision: float


def main() -> int:
    """Runs the benchmark and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--memory", type=int, default=4096, help="MiB of guest memory (4096)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", action="append", choices=(*_WAYS, *_NETWORK_WAYS))
    parser.add_argument("--network", action="store_true", help="every way with a rate; as root")
    parser.add_argument("--before", type=Path, help="a checkout whose gateway is measured too")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    relays: dict[str, Path | None] = dict.fromkeys(_RELAYS)
    if arguments.before:
        relays["before"] = arguments.before.resolve(strict=True)
    results: dict[str, dict[str, list[Sample]]] = {}
    with tempfile.TemporaryDirectory(prefix="armferry-bench-", dir="/dev/shm") as folder:
        memory = _memory(Path(folder), arguments.memory)
        fingerprint = _fingerprint(Path(folder))
        for way in arguments.way or (_NETWORK_WAYS if arguments.network else _WAYS):
            samples: dict[str, list[Sample]] = {relay: [] for relay in relays}
            for _ in range(arguments.rounds):
                for relay, checkout in relays.items():
                    if relay == "socat" and shutil.which("socat") is None:
                        continue
                    move = (way, relay, memory, fingerprint, arguments.memory)
                    samples[relay].append(_move(*move, checkout))
            results[way] = samples
            if not arguments.json:
                _print(way, samples)
    if arguments.json:
        print(
            json.dumps(
                {w: {r: [vars(s) for s in ss] for r, ss in by.items()} for w, by in results.items()}
            )
        )
    return 0


def _memory(folder: Path, mebibytes: int) -> Path:
    """A file of guest memory, every other stripe a hole: zero pages."""
    path = folder / "memory"
    stripe = os.urandom(_STRIPE)
    with path.open("wb") as file:
        file.truncate(mebibytes << 20)
        for at in range(0, mebibytes << 20, 2 * _STRIPE):
            file.seek(at)
            file.write(stripe)
    return path


def _spec(mebibytes: int) -> MachineSpec:
    return MachineSpec(machine="virt-10.0", cpu="cortex-a57", memory=mebibytes)


def _fingerprint(folder: Path) -> Path:
    path = folder / "destination.json"
    path.write_text(dump(fingerprint_of_qemu(install(resolve(_RELEASE)).launcher, _spec(64))))
    return path


def _move(
    way: str,
    relay: str,
    memory: Path,
    fingerprint: Path,
    mebibytes: int,
    checkout: Path | None,
) -> Sample:
    qemu = install(resolve(_RELEASE))
    backend = f"memory-backend-file,id=memory,size={mebibytes}M,mem-path={memory},share=off"
    plain = _spec(mebibytes)
    spec = replace(
        plain,
        machine=f"{plain.machine},memory-backend=memory",
        extra=("-object", backend),
    )
    blank = replace(
        plain,
        machine=f"{plain.machine},memory-backend=memory",
        extra=("-object", f"memory-backend-ram,id=memory,size={mebibytes}M,prealloc=on"),
    )
    channels = 4 if "multifd" in way else 0
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="armferry-bench-")))
        far = None
        there = qemu
        if way in _NETWORK_WAYS:
            far = stack.enter_context(network(float(way.partition(" ")[0])))
            there = replace(qemu, launcher=far.launcher(qemu.launcher, folder))
        source = stack.enter_context(QemuProcess(qemu, spec, paused=True, time_limit=_LIMIT))
        destination = stack.enter_context(
            QemuProcess(there, blank, paused=True, incoming=True, time_limit=_LIMIT)
        )
        out = _address(folder / "out", way, "" if relay != "direct" or not far else far.address)
        into = (
            out if relay == "direct" else _address(folder / "in", way, far.address if far else "")
        )
        names = ["return-path", *["multifd"] * bool(channels)]
        on = {"capabilities": [{"capability": name, "state": True} for name in names]}
        for machine in (source, destination):
            machine.execute("migrate-set-capabilities", on)
            if channels:
                machine.execute("migrate-set-parameters", {"multifd-channels": channels})
        # else QEMU stops the guest when what is left fits into 300 ms, and the pause is that
        source.execute("migrate-set-parameters", {"downtime-limit": 1})
        destination.execute("migrate-incoming", {"uri": out})
        with _relay(relay, into, out, fingerprint, far, checkout) as process:
            idle = 0.0 if process is None else _cpu(process.pid)
            source.migrate(into)
            state = source.execute("query-migrate")
            destination.wait_loaded()
            cpu, peak = (0.0, 0.0) if process is None else _spent(process, relay)
            cpu -= idle
        decision = 0.0
        if relay in _GATEWAYS and process is not None and process.stdout is not None:
            decision = json.loads(process.stdout.read())["decision_seconds"] * 1e3
        return Sample(
            seconds=state["total-time"] / 1e3,
            cpu=cpu,
            peak=peak,
            gigabytes=state["ram"]["transferred"] / 1e9,
            downtime=float(state["downtime"]),
            decision=decision,
        )


def _address(path: Path, way: str, host: str) -> str:
    """A free address; `host` is that of a far end, whose ports are all free."""
    if way.startswith("unix"):
        return f"unix:{path}"
    if host:
        return f"tcp:{host}:4446"
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"tcp:127.0.0.1:{probe.getsockname()[1]}"


@contextlib.contextmanager
def _relay(
    relay: str,
    into: str,
    out: str,
    fingerprint: Path,
    far: Network | None,
    checkout: Path | None,
) -> Iterator[subprocess.Popen[str] | None]:
    if relay == "direct":
        yield None
        return
    if relay == "socat":
        command = ["socat", f"{_socat(into, 'LISTEN')},fork", _socat(out, "CONNECT")]
    else:
        command = [
            *(sys.executable, "-m", "armferry", "gateway", "--json", "--to", str(fingerprint)),
            *("--listen", into, "--connect", out, *(["--allow-plain"] if far else [])),
        ]
    if far is not None:
        command = far.inside(command)
    process = subprocess.Popen(
        command,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        cwd=checkout,  # where a program's modules are looked for first
    )
    try:
        deadline = time.monotonic() + _LIMIT
        while not _listens(process.pid, into) and time.monotonic() < deadline:
            if process.poll() is not None:
                raise RuntimeError(f"{command}: {process.communicate()[1]}")
            time.sleep(0.02)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def _listens(pid: int, address: str) -> bool:
    """Whether somebody listens at `address`, seen from the network namespace of process `pid`."""
    family, _, rest = address.partition(":")
    table = "unix" if family == "unix" else "tcp"
    try:
        rows = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
    except OSError:
        return False
    fields = (row.split() for row in rows)
    if family == "unix":  # a path is there before anybody listens
        return any(one[-1] == rest and one[3] == _ACCEPTS for one in fields)
    port = f":{int(rest.rpartition(':')[2]):04X}"
    return any(one[1].endswith(port) and one[3] == "0A" for one in fields)


def _socat(address: str, kind: str) -> str:
    family, _, rest = address.partition(":")
    if family == "unix":
        return f"UNIX-{kind}:{rest}"
    host, _, port = rest.rpartition(":")
    bound = f",bind={host},reuseaddr"
    return f"TCP4-LISTEN:{port}{bound}" if kind == "LISTEN" else f"TCP4:{host}:{port}"


def _spent(process: subprocess.Popen[str], relay: str) -> tuple[float, float]:
    """CPU-seconds of the relay and its children, and its peak memory in MiB (gateway only)."""
    if relay in _GATEWAYS:
        # it ends by itself right after the move
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
    time.sleep(0.2)
    return sum(map(_cpu, _family(process.pid))), 0.0


def _cpu(pid: int) -> float:
    """CPU-seconds of a process and of its children that have ended."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return sum(map(int, words[11:15])) / _TICKS


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def _print(way: str, samples: dict[str, list[Sample]]) -> None:
    print(f"\n{way}")
    print(
        f"{'relay':<9}{'GB/s':>7}{'x direct':>10}{'CPU s/GB':>10}{'peak MiB':>10}"
        f"{'downtime ms':>13}{'decision ms':>13}"
    )
    for relay, all_of_it in samples.items():
        if not all_of_it:
            continue
        rate = statistics.median(s.gigabytes / s.seconds for s in all_of_it)
        # round by round, for what disturbs the machine disturbs all of a round
        ratio = statistics.median(
            (s.gigabytes / s.seconds) / (d.gigabytes / d.seconds)
            for s, d in zip(all_of_it, samples["direct"], strict=True)
        )
        cpu = statistics.median(s.cpu / s.gigabytes for s in all_of_it)
        print(
            f"{relay:<9}{rate:>7.2f}{ratio:>10.2f}{cpu:>10.2f}"
            f"{max(s.peak for s in all_of_it):>10.0f}"
            f"{statistics.median(s.downtime for s in all_of_it):>13.0f}"
            f"{statistics.median(s.decision for s in all_of_it):>13.1f}"
        )


if __name__ == "__main__":
    sys.exit(main())
