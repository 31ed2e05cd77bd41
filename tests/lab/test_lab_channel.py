"""Frames on the lab channel, and the agent that answers them."""

import itertools
import os
import socket
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armferry.lab import agent
from armferry.lab.channel import ChannelFault, Frame, FrameReader, encode

FRAMES = st.lists(
    st.builds(
        Frame,
        st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=8), max_size=4),
        st.binary(max_size=50),
    ),
    max_size=5,
)


@given(FRAMES, st.lists(st.integers(0, 400)))
def test_frames_come_through_in_any_pieces(frames: list[Frame], cuts: list[int]) -> None:
    stream = b"".join(map(encode, frames))
    reader = FrameReader()
    got: list[Frame] = []
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    for begin, end in itertools.pairwise(edges):
        got += reader.feed(stream[begin:end])
    assert got == frames


def test_what_is_no_frame_is_refused_before_anything_is_kept() -> None:
    with pytest.raises(ChannelFault) as refused:
        list(FrameReader().feed(b"[    0.000000] Booting Linux"))
    assert str(refused.value) == (
        "a frame on the lab channel announces 1528832032 + 540028464 bytes: something else is"
        " writing to the port; boot the host again"
    )


def _execute(*argv: str, stdin: bytes = b"", limit: float = 30.0) -> Frame:
    header: dict[str, object] = {
        "do": "exec",
        "argv": list(argv),
        "environment": {"WORD": "ferry"},
        "time_limit": limit,
    }
    return agent.answer(Frame(header, stdin))


def test_a_command_gives_its_output_and_exit_code() -> None:
    reply = _execute("sh", "-c", "cat; echo $WORD; echo bad >&2; exit 7", stdin=b"in\n")
    assert reply == Frame({"exit_code": 7, "stdout": 9}, b"in\nferry\nbad\n")


def test_a_command_out_of_time_is_killed_with_its_children() -> None:
    reply = _execute("sh", "-c", "echo begun; sleep 60 & sleep 60", limit=0.5)
    assert reply == Frame({"exit_code": None, "stdout": 6}, b"begun\n")


def test_a_file_goes_in_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "tool"
    header: dict[str, object] = {"do": "put", "path": str(path), "permissions": 0o755}
    assert agent.answer(Frame(header, b"content")) == Frame({})
    assert os.access(path, os.X_OK)
    assert agent.answer(Frame({"do": "get", "path": str(path)})) == Frame({}, b"content")


def test_what_cannot_be_done_is_answered(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    assert agent.answer(Frame({"do": "get", "path": missing})) == Frame(
        {"error": f"[Errno 2] No such file or directory: '{missing}'"}
    )
    assert _execute(missing).header == {
        "error": f"[Errno 2] No such file or directory: '{missing}'"
    }
    assert agent.answer(Frame({"do": "dance"})).header == {
        "error": "the lab agent does not know how to 'dance'"
    }


def test_the_agent_serves_until_the_port_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    monkeypatch.setattr(os, "open", lambda *_: theirs.fileno())
    serving = threading.Thread(target=agent.main, args=("/dev/port",))
    serving.start()
    reader = FrameReader()
    frames: list[Frame] = []
    request: dict[str, object] = {"do": "get", "path": sys.executable}
    ours.sendall(encode(Frame(request)))
    while len(frames) < 2:
        frames += reader.feed(ours.recv(1 << 20))
    ours.close()
    serving.join(10)
    theirs.close()
    assert not serving.is_alive()
    assert frames[0].header == {"ready": os.uname().release}
    assert frames[1].payload == Path(sys.executable).read_bytes()
