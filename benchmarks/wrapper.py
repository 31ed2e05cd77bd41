"""What `armferry-qemu` adds to QEMU: to a question before a start, and to a command on a monitor.

    python -m benchmarks.wrapper [--runs N]

QEMU itself is the peer, asked in turn with the wrapper; medians in milliseconds.
"""

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from armferry.lab.qemu_install import InstalledQemu, install, resolve
from benchmarks.timing import Comparison, compare

_RELEASE = "10.0.13"
_QUESTION = ("-machine", "none", "-M", "help")
_LIMIT = 30.0


def main() -> int:
    """Prints both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--runs", type=int, default=25)
    runs = parser.parse_args().runs
    qemu = install(resolve(_RELEASE))
    _print("a question before a start", _questions(qemu, runs))
    _print("a command on a monitor", _commands(qemu, 40 * runs))
    return 0


def _wrapper() -> str:
    return str(Path(sys.executable).with_name("armferry-qemu"))


def _environment(qemu: InstalledQemu) -> dict[str, str]:
    return {**os.environ, "ARMFERRY_QEMU": str(qemu.launcher)}


def _questions(qemu: InstalledQemu, runs: int) -> Comparison:
    def ask(program: str) -> None:
        words = (program, *_QUESTION)
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, env=_environment(qemu))

    return compare(lambda: ask(_wrapper()), lambda: ask(str(qemu.launcher)), runs)


def _commands(qemu: InstalledQemu, runs: int) -> Comparison:
    # with a register to hide every monitor is relayed
    hiding = ("-cpu", "cortex-a57,x-mig-hidden-regs=0x6030000000160003")
    with (
        tempfile.TemporaryDirectory(prefix="armferry-bench-") as folder,
        _monitor(qemu, _wrapper(), Path(folder) / "ours", *hiding) as ours,
        _monitor(qemu, str(qemu.launcher), Path(folder) / "theirs", "-cpu", "cortex-a57") as theirs,
    ):
        return compare(lambda: _status(ours), lambda: _status(theirs), runs)


@contextlib.contextmanager
def _monitor(qemu: InstalledQemu, program: str, path: Path, *words: str) -> Iterator[socket.socket]:
    command = (
        *(program, "-nodefaults", "-display", "none", "-machine", "virt-10.0", "-S", *words),
        *("-qmp", f"unix:{path},server=on,wait=off"),
    )
    process = subprocess.Popen(command, env=_environment(qemu))
    try:
        with socket.socket(socket.AF_UNIX) as client:
            deadline = time.monotonic() + _LIMIT
            while client.connect_ex(str(path)) and time.monotonic() < deadline:
                time.sleep(0.01)
            client.settimeout(_LIMIT)
            client.recv(65_536)
            client.sendall(b'{"execute": "qmp_capabilities"}')
            client.recv(65_536)
            yield client
            client.sendall(b'{"execute": "quit"}')
            process.wait(_LIMIT)
    finally:
        process.kill()
        process.wait()


def _status(client: socket.socket) -> None:
    client.sendall(b'{"execute": "query-status"}')
    answer = json.loads(client.recv(65_536))
    assert answer["return"]["status"] == "prelaunch", answer


def _print(what: str, comparison: Comparison) -> None:
    ours, theirs = comparison.ours * 1e3, comparison.theirs * 1e3
    print(
        f"{what}: armferry-qemu {ours:.2f} ms, QEMU {theirs:.2f} ms, {ours - theirs:+.2f} ms, "
        f"{ours / theirs:.1f} times"
    )


if __name__ == "__main__":
    sys.exit(main())
