"""The commands on snapshots, volumes and compressed states, also without what only Linux has."""

import bz2
import gzip
import json
import lzma
import os
import shutil
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from armferry.cli.main import main
from armferry.stream import CpuEdit, StateEdit, read_saved, rewrite_tail
from armferry.stream.save_image import Compression

from ..in_memory import Content
from .test_schemas import hold

DATA = Path(__file__).parents[1] / "stream" / "data"
DROPPED = 0x40200000200E0298  # DBGDTRTX, which QEMU 10.0.13 does not have
CLUSTER = 1 << 16

LINUX_ONLY = """
import fcntl, os, select, signal, socket, sys
for module, names in {
    os: ("copy_file_range", "SEEK_DATA", "SEEK_HOLE", "memfd_create", "splice", "pipe2",
         "getxattr", "setxattr", "listxattr", "removexattr", "sched_getaffinity", "pidfd_open",
         "eventfd", "posix_fallocate", "posix_fadvise", "fdatasync", "O_PATH", "O_TMPFILE",
         "unshare", "setns", "getrandom", "O_DIRECT", "O_NOATIME"),
    fcntl: ("F_OFD_GETLK", "F_OFD_SETLK", "F_OFD_SETLKW", "F_SETPIPE_SZ", "F_GETPIPE_SZ"),
    select: ("epoll",),
    signal: ("pidfd_send_signal",),
    socket: ("SO_PEERCRED",),
}.items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
sys.platform = "darwin"
from armferry.cli.main import main
raise SystemExit(main(sys.argv[1:]))
"""
"""What macOS lacks, taken away before armferry is imported."""


def _here() -> bytes:
    return lzma.decompress((DATA / "tcg_10.0.2_virt-10.0_cortex-a57_1.mig.xz").read_bytes())


def _there() -> bytes:
    """The same guest as another QEMU would save it, one that lacks a register."""
    saved = read_saved(Content(_here()))
    lists = [{i: v for i, v in cpu.registers.items() if i != DROPPED} for cpu in saved.cpus]
    tail = rewrite_tail(saved, StateEdit(tuple(CpuEdit(registers) for registers in lists)))
    assert tail is not None
    return _here()[: tail.offset] + tail.data


HERE, THERE = _here(), _there()


def image_of(states: dict[str, bytes]) -> bytes:
    """A qcow2 image with an empty disk and these states."""
    parts = [b""]

    def put(data: bytes) -> int:
        at = sum(map(len, parts)) + CLUSTER
        parts.append(data + bytes(-len(data) % CLUSTER))
        return at

    entries = b""
    for number, (name, state) in enumerate(states.items()):
        at = put(state) if state else 0
        count = -(-len(state) // CLUSTER)
        table = put(b"".join((at + k * CLUSTER).to_bytes(8, "big") for k in range(count)))
        l1 = put(struct.pack(">QQ", 0, table))
        fixed = (l1, 2, 1, len(name), 1_764_000_000, 0, 7 * 10**9, len(state), 16)
        entry = struct.pack(">QIHHIIQIIQQ", *fixed, len(state), CLUSTER)
        entry += str(number + 1).encode() + name.encode()
        entries += entry + bytes(-len(entry) % 8)
    snapshots, active = put(entries), put(bytes(8))
    used = sum(map(len, parts)) // CLUSTER + 3
    block = put(struct.pack(">H", 1) * used)
    table = put(block.to_bytes(8, "big"))
    header = struct.pack(
        ">4sIQIIQIIQQIIQ", b"QFI\xfb", 3, 0, 0, 16, CLUSTER, 0, 1, active, table, 1, len(states),
        snapshots,
    )  # fmt: skip
    header += struct.pack(">QQQII", 0, 0, 0, 4, 104)
    return header.ljust(CLUSTER, b"\0") + b"".join(parts)


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A state that the destination's QEMU saved."""
    path = tmp_path / "there.mig"
    path.write_bytes(THERE)
    return path


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """An image with a state of the source's QEMU, one of the destination's, and a disk alone."""
    path = tmp_path / "disk.qcow2"
    path.write_bytes(image_of({"old": HERE, "new": THERE, "bare": b""}))
    return path


@pytest.fixture(params=["here", "without Linux"])
def armferry(request: pytest.FixtureRequest) -> Callable[..., "subprocess.CompletedProcess[bytes]"]:
    """The command, as it is and with Linux's own calls taken away."""
    program = ["-m", "armferry"] if request.param == "here" else ["-c", LINUX_ONLY]

    def run(*words: object, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        command = [sys.executable, *program, *map(str, words)]
        return subprocess.run(command, input=stdin, capture_output=True, timeout=120, check=False)

    return run


Command = Callable[..., "subprocess.CompletedProcess[bytes]"]


def test_a_snapshot_goes_through_every_command(
    armferry: Command, disk: Path, there: Path, tmp_path: Path
) -> None:
    listed = json.loads(armferry("inspect", disk, "--json").stdout)
    hold(listed, "snapshots")
    assert listed["snapshots"] == [
        {"id": "1", "name": "old", "date": "2025-11-24T16:00:00Z", "state_bytes": len(HERE),
         "machine": "virt-10.0"},
        {"id": "2", "name": "new", "date": "2025-11-24T16:00:00Z",
         "state_bytes": len(THERE), "machine": "virt-10.0"},
        {"id": "3", "name": "bare", "date": "2025-11-24T16:00:00Z", "state_bytes": 0,
         "machine": ""},
    ]  # fmt: skip
    out = armferry("inspect", disk).stdout.decode()
    assert "old   1   2025-11-24T16:00:00Z" in out
    assert "none: a disk alone" in out
    shown = json.loads(armferry("inspect", f"{disk}#old", "--json").stdout)
    assert (shown["machine"], shown["snapshot"]) == ("virt-10.0", "old")
    for words in ((f"{disk}#old",), (disk, "--snapshot", "old"), (f"{disk}#1",)):
        assert armferry("check", *words, "--to", f"{disk}#new").returncode == 1
    done = armferry("ferry", f"{disk}#old", tmp_path / "out", "--to", there)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.endswith(
        f"{tmp_path}/out: rewritten; a plain stream\n\n"
        f"next: QEMU ... -incoming 'exec:cat {tmp_path}/out'\n".encode()
    )
    piped = armferry("ferry", f"{disk}#old", "-", "--to", there)
    assert piped.stdout == (tmp_path / "out").read_bytes()
    done = armferry("ferry", f"{disk}#old", "--in-place", "--to", there)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(
        f"{disk}#old: rewritten, in its image\n\nnext: QEMU ... -loadvm old\n".encode()
    )
    again = armferry("ferry", f"{disk}#old", "-", "--to", there)
    assert again.stdout == (tmp_path / "out").read_bytes()
    assert armferry("check", f"{disk}#old", "--to", there).returncode == 0
    settled = armferry("ferry", f"{disk}#old", "--undo")
    assert settled.stdout == f"{disk}: no rewrite in place was interrupted\n".encode()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk.qcow2", "out", "there.mig"]


def test_what_cannot_be_meant_is_said(
    disk: Path, there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = disk.read_bytes()
    empty = tmp_path / "empty.qcow2"
    empty.write_bytes(image_of({"bare": b""}))
    several = "those with a saved state: 'old', 'new'"
    for words, said in {
        ("check", str(disk), "--to", str(there)): (
            f"{disk}: 2 snapshots hold a saved state: give one as IMAGE#NAME: "
            f"'old' (2025-11-24T16:00:00Z, {len(HERE):,} bytes, virt-10.0), "
            f"'new' (2025-11-24T16:00:00Z, {len(THERE):,} bytes, virt-10.0)"
        ),
        ("check", f"{disk}#x", "--to", str(there)): f"{disk}: there is no snapshot 'x'; {several}",
        ("check", f"{disk}#bare", "--to", str(there)): (
            f"{disk}: the snapshot 'bare' holds a disk and no saved state; {several}"
        ),
        ("check", str(empty), "--to", str(there)): (
            f"{empty}: no snapshot in this qcow2 image holds a saved state. QEMU keeps the state "
            "of a machine in one of its images, often in that of the UEFI variables: look at each "
            "with armferry inspect IMAGE"
        ),
        ("check", f"{there}#old", "--to", str(there)): (
            f"{there}: this is no qcow2 image: there are no snapshots in it"
        ),
        ("ferry", f"{disk}#old", str(disk), "--to", str(there)): (
            f"{disk}: a disk image: nothing is written over it. Give --in-place to change the "
            "state in one, or another name for a file"
        ),
    }.items():
        assert main(list(words)) == 3
        assert capsys.readouterr().err == f"armferry: {said}\n"
    assert disk.read_bytes() == before
    assert main(["inspect", str(empty)]) == 0
    assert "no snapshot here holds a saved state; QEMU keeps" in capsys.readouterr().out


def test_a_file_with_a_hash_in_its_name_goes_first(tmp_path: Path, there: Path) -> None:
    odd = tmp_path / "a#b"
    odd.write_bytes(HERE)
    assert main(["check", str(odd), "--to", str(there)]) == 1
    (tmp_path / "c#d.qcow2").write_bytes(image_of({"e#f": HERE}))
    assert main(["check", f"{tmp_path}/c#d.qcow2#e#f", "--to", str(there)]) == 1
    (tmp_path / "c").write_bytes(b"a file whose name is where the other's begins")
    assert main(["check", f"{tmp_path}/c#d.qcow2#e#f", "--to", str(there)]) == 1


def test_of_two_snapshots_with_a_name_the_id_is_offered(
    disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk.write_bytes(image_of({"old": HERE, "new": THERE, "baz": b""}).replace(b"3baz", b"3new"))
    assert main(["inspect", str(disk)]) == 0
    assert capsys.readouterr().out.endswith(f"next: armferry inspect '{disk}#2'\n")


@pytest.mark.parametrize(
    "behind",
    [
        pytest.param(bytes(300_000), marks=pytest.mark.full),
        pytest.param(b"an older state " * 9_999, marks=pytest.mark.full),
        THERE,
    ],
    ids=["zeros", "text", "an older state"],
)
def test_bytes_behind_the_stream_stay(
    armferry: Command, behind: bytes, there: Path, tmp_path: Path
) -> None:
    """A volume: whatever follows, also an older state that is whole and ends where it ends."""
    volume, alone = tmp_path / "volume", tmp_path / "alone"
    before = HERE + bytes(-len(HERE + behind) % 512) + behind
    volume.write_bytes(before)
    alone.write_bytes(HERE)
    for path in (volume, alone):
        done = armferry("ferry", path, "--in-place", "--to", there)
        assert done.returncode == 0, done.stderr
    new, after = alone.read_bytes(), volume.read_bytes()
    longest = max(len(HERE), len(new))
    assert len(after) == len(before)
    assert after[: len(new)] == new
    assert after[longest:] == before[longest:]
    assert armferry("ferry", volume, tmp_path / "out", "--to", there).returncode == 0
    assert (tmp_path / "out").read_bytes() == new


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: _piped("zstd", data),
    "lz4": lambda data: _piped("lz4", data),
    "lzop": lambda data: _piped("lzop", data),
}


def _piped(program: str, data: bytes) -> bytes:
    return subprocess.run([program, "-c"], input=data, capture_output=True, check=True).stdout


def _unpacked(program: str, data: bytes) -> bytes:
    return subprocess.run([program, "-dc"], input=data, capture_output=True, check=True).stdout


@pytest.mark.parametrize(
    "word", [pytest.param(word, marks=[pytest.mark.full] * (word != "zstd")) for word in PACKERS]
)
def test_a_compressed_stream_stays_one(
    word: str, armferry: Command, there: Path, tmp_path: Path
) -> None:
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    plain.write_bytes(HERE)
    packed.write_bytes(PACKERS[word](HERE))
    packed.chmod(0o640)
    assert json.loads(armferry("inspect", packed, "--json").stdout)["compression"] == word
    assert armferry("ferry", plain, "--in-place", "--to", there).returncode == 0
    done = armferry("ferry", "-", "-", "--to", there, stdin=packed.read_bytes())
    assert _unpacked(word, done.stdout) == plain.read_bytes()
    done = armferry("ferry", packed, "--in-place", "--to", there)
    assert f"{packed}: rewritten; compressed with {word}, written beside and renamed" in (
        done.stdout.decode()
    )
    assert _unpacked(word, packed.read_bytes()) == plain.read_bytes()
    assert stat.S_IMODE(packed.stat().st_mode) == 0o640


def test_every_codec_of_a_save_image_has_a_name() -> None:
    from armferry.hosts.files.compression import codec_of_image

    words = {one.word for one in Compression if not one.seekable}
    assert {codec.word for one in Compression if (codec := codec_of_image(one))} == words


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Path]:
    """A block device of 8 MiB."""
    backing = tmp_path / "backing"
    backing.write_bytes(bytes(8 << 20))
    done = subprocess.run(
        ["losetup", "--find", "--show", backing], capture_output=True, text=True, check=True
    )
    yield Path(done.stdout.strip())
    subprocess.run(["losetup", "--detach", done.stdout.strip()], check=True)


def test_a_state_on_a_block_device(
    loop: Path, there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place, size unchanged; an older state that ends at the device's end is not looked at."""
    monkeypatch.setenv("ARMFERRY_JOURNALS", str(tmp_path / "journals"))
    older = THERE
    alone = tmp_path / "alone"
    alone.write_bytes(HERE)
    with loop.open("r+b") as device:
        device.write(HERE)
        device.seek(-len(older), os.SEEK_END)
        device.write(older)
    before = loop.read_bytes()
    for path in (loop, alone):
        assert main(["ferry", str(path), "--in-place", "--to", str(there)]) == 0
    after, new = loop.read_bytes(), alone.read_bytes()
    assert len(after) == len(before)
    assert after[: len(new)] == new
    longest = max(len(new), len(HERE))
    assert after[longest:] == before[longest:]
    assert list((tmp_path / "journals").iterdir()) == []


def test_an_image_on_a_block_device(
    loop: Path, disk: Path, there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARMFERRY_JOURNALS", str(tmp_path / "journals"))
    with loop.open("r+b") as device, disk.open("rb") as source:
        shutil.copyfileobj(source, device)
    for path in (loop, disk):
        assert main(["ferry", f"{path}#old", "--in-place", "--to", str(there)]) == 0
    end = disk.stat().st_size
    assert loop.read_bytes()[:end] == disk.read_bytes()
    assert loop.read_bytes()[end:].strip(b"\0") == b""
