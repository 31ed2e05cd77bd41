"""Compressed streams: whole, in several members, damaged, left unread, and bounded."""

import gzip
import lzma
import os
import subprocess
import tempfile
import tracemalloc
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from armferry.hosts.files.compression import (
    Codec,
    CompressionFault,
    MissingProgram,
    UnwrittenStream,
    compressed,
    decompressed,
)
from armferry.hosts.files.descriptor import write_all


def _read_all(descriptor: int) -> bytes:
    parts = []
    while part := os.read(descriptor, 1 << 16):
        parts.append(part)
    return b"".join(parts)


def _pack(data: bytes, codec: Codec | None) -> bytes:
    with tempfile.TemporaryFile() as file:
        with compressed(file.fileno(), codec) as packed:
            write_all(packed, data)
        return os.pread(file.fileno(), 1 << 30, 0)


def _unpack(data: bytes, codec: Codec | None) -> bytes:
    with tempfile.TemporaryFile() as file:
        os.pwrite(file.fileno(), data, 0)
        with decompressed(file.fileno(), codec) as plain:
            return _read_all(plain)


@pytest.mark.parametrize("codec", [None, *Codec])
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.binary(max_size=10_000), copies=st.integers(1, 60))
def test_what_goes_in_comes_out(codec: Codec | None, data: bytes, copies: int) -> None:
    assert _unpack(_pack(data * copies, codec), codec) == data * copies


@pytest.mark.parametrize("codec", Codec)
def test_the_programs_read_and_write_the_same(codec: Codec) -> None:
    data = os.urandom(5_000) * 50
    program = [codec.word]
    packed = subprocess.run([*program, "-c"], input=data, capture_output=True, check=True).stdout
    assert _unpack(packed, codec) == data
    ours = _pack(data, codec)
    done = subprocess.run([*program, "-dc"], input=ours, capture_output=True, check=True)
    assert done.stdout == data


@pytest.mark.parametrize("codec", [one for one in Codec if one is not Codec.LZOP])
def test_several_members_are_one_stream(codec: Codec) -> None:
    both = _pack(b"one", codec) + _pack(b"two", codec)
    assert _unpack(both, codec) == b"onetwo"


@pytest.mark.parametrize("codec", Codec)
def test_damage_is_told(codec: Codec) -> None:
    packed = bytearray(_pack(os.urandom(100_000), codec))
    packed[len(packed) // 2 : len(packed) // 2 + 2_000] = bytes(2_000)
    with pytest.raises(CompressionFault) as fault:
        _unpack(bytes(packed), codec)
    assert str(fault.value).startswith("the compressed stream cannot be read: ")
    assert str(fault.value).endswith("; save the guest again")


@pytest.mark.parametrize("codec", Codec)
def test_reader_may_stop_early(codec: Codec, tmp_path: Path) -> None:
    path = tmp_path / "packed"
    path.write_bytes(_pack(os.urandom(2_000_000), codec))
    with path.open("rb") as file, decompressed(file.fileno(), codec) as plain:
        assert len(os.read(plain, 100)) == 100


@pytest.mark.parametrize("size", [10, 3_000_000])
@pytest.mark.parametrize("codec", Codec)
def test_a_reader_that_has_gone_is_a_fault(codec: Codec, size: int) -> None:
    """However little was written, and so may still lie in a pipe when its last reader goes."""
    reader, writer = os.pipe()
    os.close(reader)

    def pack() -> None:
        with compressed(writer, codec) as sink:
            write_all(sink, os.urandom(size))

    with pytest.raises(UnwrittenStream) as fault:
        pack()
    os.close(writer)
    assert fault.value.exit_code == 4
    assert str(fault.value).startswith("the compressed output cannot be written: ")


@pytest.mark.parametrize("word", ["lzop", "zstd", "lz4"])
def test_a_program_that_is_killed_is_a_fault(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a signal, as when memory runs out: what it gave so far is no whole stream."""
    killed = tmp_path / word
    killed.write_text("#!/bin/sh\nhead -c 10\nkill -9 $$\n")
    killed.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    codec = Codec[word.upper()]
    with pytest.raises(CompressionFault) as fault:
        _unpack(bytes(100), codec)
    assert f"{word} ended with status -9" in str(fault.value)
    with pytest.raises(UnwrittenStream):
        _pack(bytes(100), codec)


def test_a_bomb_is_unpacked_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "zeros.gz"
    with gzip.open(path, "wb") as file:
        for _ in range(200):
            file.write(bytes(1 << 20))
    total = 0
    tracemalloc.start()
    with path.open("rb") as source, decompressed(source.fileno(), Codec.GZIP) as plain:
        while part := os.read(plain, 1 << 20):
            total += len(part)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == 200 << 20
    assert peak < 8 << 20


def test_missing_program_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingProgram) as fault, decompressed(0, Codec.LZOP):
        pass
    assert str(fault.value) == (
        "the stream is compressed with lzop and the program lzop is missing; apt-get install lzop"
    )
    assert fault.value.exit_code == 4


def test_xz_of_several_streams_with_padding() -> None:
    one, other = lzma.compress(b"one" * 1000), lzma.compress(b"other" * 1000)
    data = one + bytes(8) + other + bytes(4)
    assert _unpack(data, Codec.XZ) == b"one" * 1000 + b"other" * 1000
    with pytest.raises(CompressionFault, match="ends too early"):
        _unpack(one + other[:-20], Codec.XZ)


@pytest.mark.parametrize(("preset", "taken"), [(9, True), (40, False)])
def test_xz_that_takes_gigabytes_is_refused(preset: int, taken: bool) -> None:
    """The head of the first block names its window; here one of 4 GiB, of 100 bytes of data."""
    packed = bytearray(lzma.compress(b"x" * 100, preset=min(preset, 9)))
    if not taken:
        header = (packed[12] + 1) * 4
        assert packed[14:16] == b"\x21\x01"
        packed[16] = preset
        checked = bytes(packed[12 : 12 + header - 4])
        packed[12 + header - 4 : 12 + header] = zlib.crc32(checked).to_bytes(4, "little")
    if taken:
        assert _unpack(bytes(packed), Codec.XZ) == b"x" * 100
    else:
        with pytest.raises(CompressionFault, match="Memory usage limit"):
            _unpack(bytes(packed), Codec.XZ)
