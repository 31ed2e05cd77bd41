"""Two network namespaces with a veth between them, held to a rate by tc(8); needs root.

The far one stands for the destination's host: what runs in it is started with `inside`.
"""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Network", "network"]


@dataclass(frozen=True)
class Network:
    """`address` is the far end's; `name` the namespace that it is in."""

    name: str
    address: str

    def inside(self, words: list[str]) -> list[str]:
        """The command that runs `words` at the far end."""
        return ["ip", "netns", "exec", self.name, *words]

    def launcher(self, program: Path, folder: Path) -> Path:
        """A program that is `program` at the far end."""
        path = folder / "qemu-at-the-far-end"
        path.write_text(f'#!/bin/sh\nexec ip netns exec {self.name} "{program}" "$@"\n')
        path.chmod(0o755)
        return path


@contextlib.contextmanager
def network(gigabits: float) -> Iterator[Network]:
    """A network of that many Gbit/s each way; removed at the end."""
    name = f"armferry-{os.getpid()}"
    # of its own, for a run that was killed leaves its network
    third, fourth = os.getpid() % 256, os.getpid() // 256 % 64 * 4
    here, there = (f"10.199.{third}.{fourth + end}" for end in (1, 2))
    near, far = f"afn{os.getpid() % 100000}", f"aff{os.getpid() % 100000}"
    _ip("netns", "add", name)
    try:
        _ip("link", "add", near, "type", "veth", "peer", "name", far)
        _ip("link", "set", far, "netns", name)
        for device, address, where in ((near, here, []), (far, there, ["-n", name])):
            _ip(*where, "address", "add", f"{address}/30", "dev", device)
            _ip(*where, "link", "set", device, "up")
            rate = ["root", "tbf", "rate", f"{gigabits * 1000:g}mbit"]
            rate += ["burst", "4mb", "latency", "50ms"]
            _run("tc", *where, "qdisc", "add", "dev", device, *rate)
        _ip("-n", name, "link", "set", "lo", "up")
        yield Network(name, there)
    finally:
        _ip("netns", "delete", name)


def _ip(*words: str) -> None:
    _run("ip", *words)


def _run(*words: str) -> None:
    subprocess.run(words, check=True)
