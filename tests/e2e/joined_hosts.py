"""Two lab hosts joined by wires, between which guests are moved live; nothing is in between."""

import contextlib
import json
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from armferry.lab.host import HostSpec, LabHost
from armferry.lab.kernels import KernelStore
from armferry.lab.releases import release_named

__all__ = ["TICKS", "End", "cross", "joined"]

IN_HOST = Path(__file__).with_name("in_host_live.py")
LIMIT, TICKS = 1200.0, 3


class End:
    """One host; `wires` are joined to another's."""

    def __init__(
        self, kernel: str, suite: str, wires: dict[str, socket.socket], files: Mapping[str, bytes]
    ) -> None:
        spec = HostSpec(KernelStore().get(kernel), release_named(suite))
        self.host = LabHost(spec, wires=wires)
        for path, content in {**files, "/guest/in_host.py": IN_HOST.read_bytes()}.items():
            self.host.put(path, content, 0o755)
        setting = f"import time; time.clock_settime(time.CLOCK_REALTIME, {time.time()})"
        self.host.run(["python3", "-c", setting])
        self.serial = b""

    def do(self, *words: str) -> dict[str, Any]:
        """What the host answers."""
        done = self.host.run(["python3", "/guest/in_host.py", *words], time_limit=LIMIT)
        assert done.exit_code == 0, done.stderr.decode()
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def said(self) -> bytes:
        """What the guest has written on this host since the last time."""
        whole = self.host.get("/tmp/serial")
        new = whole[len(self.serial) :]
        self.serial = whole
        return new


@contextlib.contextmanager
def joined(
    kernels: tuple[str, str], suite: str, names: Iterable[str], files: Mapping[str, bytes]
) -> Iterator[tuple[End, End]]:
    """Two hosts that run, with `files` in both, a wire of each name between them."""
    with contextlib.ExitStack() as stack:
        pairs = {name: socket.socketpair() for name in names}
        ends = []
        for side, kernel in enumerate(kernels):
            wires = {name: stack.enter_context(pair[side]) for name, pair in pairs.items()}
            ends.append(End(kernel, suite, wires, files))
            stack.enter_context(ends[-1].host)
        yield ends[0], ends[1]


def cross(
    source: End, sender: str, target: End, receiver: str, wires: Sequence[str], how: str = "plain"
) -> str:
    """A live move over the wires, after which the guest runs on; what was said at the source."""
    with ThreadPoolExecutor(1) as pool:
        receiving = pool.submit(target.do, "receive", receiver, how, *wires)
        sent = source.do("send", sender, how, *wires)
        received = receiving.result()
    assert sent["state"]["status"] == "completed", (wires, sent, received)
    assert received["state"]["status"] == "completed", (wires, received)
    assert received["run"]["status"] == "running"
    assert target.do("ticks", receiver, str(TICKS))["ticks"] >= TICKS
    words: str = source.do("quit", sender)["stderr"]
    return words
