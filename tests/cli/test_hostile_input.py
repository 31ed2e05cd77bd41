"""Input nobody meant well: a named error, little memory, no traceback, nothing written.

Every case goes through the real command; the many cuts and flips go through the same function
inside this process, so that there can be many.
"""

import io
import json
import os
import random
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from armferry.cli.main import main
from armferry.hosts.fingerprints.saved_subject import read_state

MIB = 1 << 20
pytestmark = pytest.mark.qemu

# What an x86 guest's stream begins with: another machine type, then the same sections.
X86 = (
    b"QEVM\0\0\0\3\x07\0\0\0\x0dpc-i440fx-9.2\x01\0\0\0\x02\x03ram\0\0\0\0\0\0\0\x04"
    + (0x08000000 | 4).to_bytes(8, "big")
    + b"\x06pc.ram"
    + 0x08000000.to_bytes(8, "big")
    + 0x10.to_bytes(8, "big")
    + b"\x7e\0\0\0\x02"
    + b"\x03\0\0\0\x02"
    + 0x10.to_bytes(8, "big")
    + b"\x7e\0\0\0\x02"
    + b"\x04\0\0\0\x05\x03cpu\0\0\0\0\0\0\0\x0c"
    + bytes(2000)
    + b"\x7e\0\0\0\x05\0"
)


@pytest.fixture
def destination(fresh_state: Callable[..., Path]) -> Path:
    """A saved state of the QEMU to move to."""
    return fresh_state("trixie")


@pytest.fixture
def state(fresh_state: Callable[..., Path]) -> bytes:
    """A whole saved state."""
    return fresh_state("bookworm-backports").read_bytes()


def _sparse(path: Path, start: bytes, end: bytes, size: int) -> None:
    with path.open("wb") as file:
        file.write(start)
        file.seek(size - len(end))
        file.write(end)
        file.truncate(size)


def _texts(state: bytes) -> dict[str, tuple[Callable[[Path], object], str]]:
    """Name of the case -> (what makes the file, what is said of it)."""
    tail = state.rindex(b"\0\6", 0, state.rindex(b'"devices"'))
    return {
        "empty": (lambda path: path.touch(), "the input is empty (at byte 0)"),
        "text": (
            lambda path: path.write_text("Dear machine,\n" * 1000),
            "this is no QEMU migration stream: it begins with b'Dear', not b'QEVM' (at byte 0)",
        ),
        "x86": (
            lambda path: path.write_bytes(X86),
            "section 'cpu' instance 0); armferry carries aarch64 guests only",
        ),
        "zeros": (
            lambda path: _sparse(path, b"", b"", 10 << 30),
            "it begins with b'\\x00\\x00\\x00\\x00', not b'QEVM' (at byte 0)",
        ),
        "head-of-zeros": (
            lambda path: _sparse(path, state[:40_000], b"", 10 << 30),
            "",
        ),
        "hole-behind-a-cut": (
            lambda path: _sparse(path, state[: tail - 9_000], b"", 10 << 30),
            "",
        ),
        "brace-at-the-end": (
            lambda path: _sparse(path, state[:40_000], b"}", 10 << 30),
            "",
        ),
        "description-of-nothing": (
            lambda path: _sparse(path, state[:40_000], state[tail:], 10 << 30),
            "",
        ),
    }


CASES = (
    "empty",
    "text",
    "x86",
    "zeros",
    "head-of-zeros",
    "hole-behind-a-cut",
    "brace-at-the-end",
    "description-of-nothing",
)


def _named(ended: tuple[int, str, str], name: str, words: str) -> None:
    code, out, err = ended
    assert (code, out) == (3, ""), err
    assert err.startswith(f"armferry: {name}: "), err
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("case", CASES)
def test_file_that_is_no_saved_state(
    case: str, state: bytes, destination: Path, tmp_path: Path, armferry: Any
) -> None:
    make, words = _texts(state)[case]
    path = tmp_path / "input"
    make(path)
    before = path.stat()
    outside: list[tuple[str | Path, ...]] = [
        ("inspect", path, "--json"),
        ("check", destination, "--to", path),
        ("ferry", path, "--in-place", "--to", destination),
        ("ferry", path, "-", "--to", destination),
    ]
    for command in outside:
        done = armferry(*command)
        _named((done.code, done.out, done.err), str(path), words)
        assert done.peak < 64 * MIB
    out = tmp_path / "out"
    inside: list[tuple[str | Path, ...]] = [
        ("inspect", path),
        ("diff", path, destination),
        ("diff", destination, path),
        ("check", path, "--to", destination),
        ("ferry", path, out, "--to", destination),
        ("fingerprint", "stream", path, "-o", out),
    ]
    for command in inside:
        _named(_inside(*command), str(path), words)
    assert sorted(tmp_path.iterdir()) == [path]
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_blocks) == (
        before.st_size,
        before.st_mtime_ns,
        before.st_blocks,
    )


@pytest.mark.parametrize("case", CASES)
def test_standard_input_that_is_no_saved_state(
    case: str, state: bytes, destination: Path, tmp_path: Path, armferry: Any
) -> None:
    make, words = _texts(state)[case]
    path = tmp_path / "input"
    make(path)
    for command in (
        ("inspect", "-"),
        ("ferry", "-", "out", "--to", destination),
    ):
        done = armferry(*command, stdin=path)
        _named((done.code, done.out, done.err), "-", words)
        assert done.peak < 64 * MIB
    assert sorted(tmp_path.iterdir()) == [path]


def test_names_that_are_no_files(
    destination: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    advice = "give a regular file, or - and the stream on standard input"
    before = sorted(tmp_path.iterdir())
    for name, words in {
        "folder": f"a directory; {advice}",
        "pipe": f"a pipe; {advice}",
        "/dev/null": f"a character device; {advice}",
        "missing": "cannot be read: No such file or directory",
        "missing/file": "cannot be read: No such file or directory",
    }.items():
        for command in (
            ("inspect", name),
            ("check", destination, "--to", name),
            ("ferry", name, "out", "--to", destination),
        ):
            assert _inside(*command) == (3, "", f"armferry: {name}: {words}\n")
    assert sorted(tmp_path.iterdir()) == before


def test_file_that_may_not_be_read(
    destination: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """root may read everything, so the refusal is made here."""
    real = os.open

    def refuse(path: Any, flags: int, *more: int, **options: int) -> int:
        if Path(path).name == "state":
            raise PermissionError(13, os.strerror(13), str(path))
        return real(path, flags, *more, **options)

    monkeypatch.setattr(os, "open", refuse)
    path = tmp_path / "state"
    assert _inside("inspect", path) == (
        3,
        "",
        f"armferry: {path}: cannot be read: Permission denied\n",
    )
    assert _inside("ferry", path, "--in-place", "--to", destination) == (
        3,
        "",
        f"armferry: {path}: cannot be changed: Permission denied\n",
    )


# -- documents


def _nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def _documents(good: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(text of a fingerprint, what is wrong with it)."""
    registers = good["cpus"][0]["registers"]
    first = next(iter(registers))

    def changed(**changes: object) -> str:
        return json.dumps({**good, **changes})

    def register(index: str, value: object) -> str:
        return changed(cpus=[{"registers": {**registers, index: value}}])

    yield (
        "{",
        "not a fingerprint: it is not JSON (Expecting property name enclosed in double quotes",
    )
    yield "{}", 'not a fingerprint: it does not say "format": "armferry-fingerprint"'
    yield '{"a": ' + _nested(100_000) + "}", "not a fingerprint: it is not JSON (maximum recursion"
    yield '{"a": ' + "9" * 100_000 + "}", "not a fingerprint: it is not JSON (Exceeds the limit"
    yield "{" + "\0" * 100, "not a fingerprint: it is not JSON ("
    yield '{"format": "\xff', "not a fingerprint: it is not text"
    yield changed(version=2), "fingerprint version 2; this armferry reads version 1"
    yield changed(cpus=[]), "malformed fingerprint: no vCPU"
    yield changed(cpus=[{"registers": {}}]), "malformed fingerprint: a vCPU without registers"
    yield changed(cpus=[{}]), "malformed fingerprint: 'registers' is missing"
    yield changed(cpus=7), "malformed fingerprint: 'int' object is not iterable"
    yield changed(at_reset="no"), "malformed fingerprint: at_reset is 'no', not true or false"
    yield changed(provenance={"how": "x", "scope": "red"}), "'red' is not a valid Scope"
    yield changed(provenance={}), "malformed fingerprint: 'how' is missing"
    yield changed(memory=[{"name": "ram"}]), "malformed fingerprint: 'bytes' is missing"
    yield (
        changed(memory=[{"name": "ram", "bytes": -1}]),
        "malformed fingerprint: memory block 'ram' of -1 bytes",
    )
    yield (
        changed(memory=[{"name": "ram", "bytes": 4096}] * 5000),
        "malformed fingerprint: 5000 memory blocks",
    )
    yield (
        changed(configuration={"machine": "virt", "page_bytes": 0, "capabilities": []}),
        "malformed fingerprint: pages of 0 bytes",
    )
    yield changed(provenance={"how": "x", "accelerator": "abacus"}), "'abacus' is not a valid Acc"
    yield register(first, hex(1 << 64)), f"malformed fingerprint: register {int(first, 16):#x} = "
    yield register(first, "-0x1"), "is out of range"
    yield register(first, "green"), "malformed fingerprint: invalid literal for int()"
    yield register(first, 5), "malformed fingerprint: 5 is no number in text"
    yield register(hex(1 << 64), "0x0"), "is out of range"
    many = {hex(0x6030000000130000 + number): "0x0" for number in range(9000)}
    yield changed(cpus=[{"registers": many}]), "malformed fingerprint: 9000 registers"
    device = {"name": "d", "instance": 0, "vmsd": "d", "version": 1, "subsections": []}
    yield (
        changed(devices=[{**device, "fields": [["f", "t", float("inf"), 1]]}]),
        "malformed fingerprint: cannot convert float infinity to integer",
    )
    shell = json.dumps({**device, "fields": [["f", "t", 1, 1, "INNER"]]})
    before, after = shell.split('"INNER"')
    deep = before * 600 + json.dumps({**device, "fields": []}) + after * 600
    yield changed(devices=["DEEP"]).replace('"DEEP"', deep), "maximum recursion depth exceeded"


def test_documents_that_are_no_fingerprint(
    destination: Path, tmp_path: Path, armferry: Any
) -> None:
    path = tmp_path / "fingerprint"
    assert armferry("fingerprint", "stream", destination, "-o", path).code == 0
    good = json.loads(path.read_text())
    for text, words in _documents(good):
        path.write_bytes(text.encode("latin-1"))
        code, out, err = _inside("check", destination, "--to", path)
        assert (code, out) == (3, ""), err
        assert err.startswith(f"armferry: {path}: "), err
        assert words in err
        assert err.count("\n") == 1
        assert len(err) < 400
    # the same through the process: one that is deep, one that is long, one that is endless
    deep = '{"a": ' + _nested(100_000) + "}"
    for make in (
        lambda: path.write_text(deep),
        lambda: path.write_text("{" + " " * (20 * MIB)),
        lambda: _sparse(path, b"{", b"}", 10 << 30),
    ):
        make()
        done = armferry("check", destination, "--to", path)
        assert (done.code, done.out) == (3, "")
        assert done.err.startswith(f"armferry: {path}: not a fingerprint: it is ")
        assert done.peak < 64 * MIB
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "text",
    [
        b"level",
        b"level = 'virt-10.1'\n[[entry]]\n",
        b"[[entry]]\nregister = 'TCR2_EL1'\naction = 'explode'\n",
        b"[[entry]]\nregister = 'NOT_A_REGISTER'\naction = 'hidden'\n",
        b"a = " + b"[" * 5000 + b"]" * 5000,
        b"a = " + b"9" * 5000,
        b"\xff\xfe\x00",
        b"\0" * 100,
    ],
    ids=["half", "entry", "action", "name", "deep", "huge", "binary", "zeros"],
)
def test_policy_files_that_are_none(
    text: bytes, destination: Path, tmp_path: Path, armferry: Any
) -> None:
    path = tmp_path / "policy.toml"
    path.write_bytes(text)
    done = armferry("check", destination, "--to", destination, "--policy", path)
    assert done.code == 3, done.out
    assert done.err.startswith(f"armferry: {path}"), done.err
    assert "Traceback" not in done.err
    assert done.peak < 64 * MIB


def test_policy_and_trace_that_cannot_be_opened(
    destination: Path, tmp_path: Path, armferry: Any
) -> None:
    done = armferry("check", destination, "--to", destination, "--policy", "missing")
    assert (done.code, done.out) == (3, "")
    assert done.err.startswith("armferry: missing: ")
    done = armferry("check", destination, "--to", destination, "--trace", "missing/trace")
    assert (done.code, done.out) == (3, "")
    assert done.err == "armferry: missing/trace: cannot be written: No such file or directory\n"
    done = armferry("ferry", destination, "missing/out", "--to", destination)
    assert (done.code, done.out) == (3, "")
    assert done.err == "armferry: missing/out: cannot be written: No such file or directory\n"
    assert list(tmp_path.iterdir()) == []


def test_output_never_replaces_what_is_read(
    state: bytes, destination: Path, tmp_path: Path
) -> None:
    guest, to, policy = tmp_path / "guest", tmp_path / "to", tmp_path / "policy.toml"
    guest.write_bytes(state)
    to.write_bytes(destination.read_bytes())
    policy.touch()
    (tmp_path / "link").symlink_to(guest)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for words, named in {
        ("check", guest, "--to", to, "--trace", guest): guest,
        ("check", guest, "--to", to, "--trace", tmp_path / "link"): tmp_path / "link",
        ("check", guest, "--to", to, "--trace", to): to,
        ("check", guest, "--to", to, "--policy", policy, "--trace", policy): policy,
        ("ferry", guest, "out", "--to", to, "--trace", "out"): "out",
        ("ferry", guest, "--in-place", "--to", to, "--trace", guest): guest,
        ("ferry", guest, to, "--to", to): to,
        ("plan", guest, "--to", to, "-o", guest): guest,
        ("fingerprint", "stream", guest, "-o", guest): guest,
    }.items():
        advice = "this command uses that file for something else; name another one"
        assert _inside(*words) == (3, "", f"armferry: {named}: {advice}\n")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_trace_that_cannot_be_written_stops_the_ferry(
    state: bytes, destination: Path, tmp_path: Path
) -> None:
    (tmp_path / "guest").write_bytes(state)
    words = ("ferry", tmp_path / "guest", tmp_path / "out", "--to", destination)
    assert _inside(*words, "--trace", "/dev/full") == (
        4,
        "",
        "armferry: /dev/full: cannot be written: No space left on device\n",
    )
    assert list(tmp_path.iterdir()) == [tmp_path / "guest"]


# -- cuts and flips of a whole state


def _inside(*words: str | Path) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of a command run in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(list(map(str, words)))
    return code, out.getvalue(), err.getvalue()


def _cuts(state: bytes, path: Path, count: int) -> list[int]:
    saved = read_state(path)
    marks = {0, 1, 4, 8, 9, len(state) - 1, saved.state_offset, saved.end_offset}
    for section in saved.sections:
        marks |= {section.offset, section.payload_offset, section.end, section.end + 5}
    near = {mark + step for mark in marks for step in (-1, 0, 1)}
    chance = random.Random(20)
    return sorted(
        {cut for cut in near if 0 <= cut < len(state)}
        | {chance.randrange(len(state)) for _ in range(count)}
    )


@pytest.mark.parametrize("count", [40, pytest.param(4000, marks=pytest.mark.full)])
def test_cut_anywhere(
    count: int, state: bytes, fresh_state: Callable[..., Path], destination: Path, tmp_path: Path
) -> None:
    whole = fresh_state("bookworm-backports")
    end = read_state(whole).end_offset
    path = tmp_path / "cut"
    for cut in _cuts(state, whole, count):
        path.write_bytes(state[:cut])
        code, out, err = _inside("check", path, "--to", destination)
        if cut == end + 1:  # the description is left out: QEMU loads that as well
            assert code == 1, err
            continue
        assert (code, out) == (3, ""), f"cut at {cut}: {err}"
        assert err.startswith(f"armferry: {path}: "), err
        assert "(at byte " in err
        assert err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("count", [60, pytest.param(4000, marks=pytest.mark.full)])
def test_flipped_bits(
    count: int, state: bytes, fresh_state: Callable[..., Path], destination: Path, tmp_path: Path
) -> None:
    """A flip is either named or, in the middle of a value, nothing that can be noticed."""
    saved = read_state(fresh_state("bookworm-backports"))
    chance = random.Random(21)
    path = tmp_path / "flipped"
    codes = set()
    for _ in range(count):
        flipped = bytearray(state)
        begin = chance.choice((0, saved.state_offset, saved.end_offset))
        for _ in range(chance.choice((1, 1, 3))):
            flipped[chance.randrange(begin, len(flipped))] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        code, out, err = _inside("check", path, "--to", destination)
        codes.add(code)
        assert code in (0, 1, 2, 3)
        if code == 3:
            assert out == ""
            assert err.startswith(f"armferry: {path}: "), err
            assert err.count("\n") == 1
        out_path = tmp_path / "out"
        code, _, _ = _inside("ferry", path, out_path, "--to", destination)
        assert out_path.exists() == (code == 0)
        out_path.unlink(missing_ok=True)
    assert 3 in codes
    assert 1 in codes
    assert sorted(tmp_path.iterdir()) == [path]
