"""The agent inside a lab host: does what the booter asks over the virtio console port.

Started by the host's /init as `python3 -m armferry.lab.agent PORT`. Requests (`do` in the header):

    exec   argv, time_limit (s), environment; payload is standard input
           -> exit_code (None: time was up), stdout (length); payload is stdout + stderr
    put    path, permissions; payload is the content       -> {}
    get    path                                            -> {}, payload is the content

A failing request is answered with `error`, and the agent goes on. The end of the port ends the
agent, and /init then powers the host off. Standard library only, and little of it: every import
costs a tenth of a second under emulation.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

from armferry.lab.channel import Frame, FrameReader, encode

__all__ = ["answer", "main"]

_CHUNK = 1 << 16


def answer(request: Frame) -> Frame:
    """Do one request. What the operating system refuses is answered, not raised."""
    header = request.header
    try:
        match header["do"]:
            case "exec":
                return _execute(header, request.payload)
            case "put":
                path = Path(str(header["path"]))
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(request.payload)
                path.chmod(int(str(header["permissions"])))
                return Frame({})
            case "get":
                return Frame({}, Path(str(header["path"])).read_bytes())
            case unknown:
                return Frame({"error": f"the lab agent does not know how to {unknown!r}"})
    except OSError as refused:
        return Frame({"error": str(refused)})


def _execute(header: dict[str, object], stdin: bytes) -> Frame:
    argv, limit, environment = header["argv"], header["time_limit"], header["environment"]
    assert isinstance(argv, list)
    assert isinstance(limit, int | float)
    assert isinstance(environment, dict)
    process = subprocess.Popen(
        argv,
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    exit_code: int | None
    try:
        stdout, stderr = process.communicate(stdin, timeout=limit)
        exit_code = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        stdout, stderr = process.communicate()
        exit_code = None
    return Frame({"exit_code": exit_code, "stdout": len(stdout)}, stdout + stderr)


def main(port: str) -> None:
    """Serve the port until its other end goes away."""
    reader = FrameReader()
    descriptor = os.open(port, os.O_RDWR | os.O_CLOEXEC)
    _send(descriptor, Frame({"ready": os.uname().release}))
    while chunk := os.read(descriptor, _CHUNK):
        for request in reader.feed(chunk):
            _send(descriptor, answer(request))


def _send(descriptor: int, frame: Frame) -> None:
    view = memoryview(encode(frame))
    while view:
        view = view[os.write(descriptor, view) :]


if __name__ == "__main__":
    main(sys.argv[1])
