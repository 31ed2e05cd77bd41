"""A compressed stream, bare or of a libvirt save image, as a descriptor of plain bytes.

Either direction runs beside the caller and is joined by a pipe, so memory stays bounded and the
(de)compression has a processor of its own. Python's own libraries serve gzip, bzip2 and xz; isal
and zstandard are used where they are installed, lzop, lz4 and otherwise zstd as programs. Levels
are fast ones, as libvirt's own. An archive of several members is read whole.
"""

import bz2
import contextlib
import enum
import gzip
import importlib.util
import lzma
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Literal

from armferry.errors import ArmferryError, EnvironmentFault
from armferry.hosts.files.descriptor import write_all
from armferry.stream.save_image import Compression

__all__ = [
    "MAGIC_BYTES",
    "Codec",
    "CompressionFault",
    "MissingProgram",
    "UnwrittenStream",
    "codec_of",
    "codec_of_image",
    "compressed",
    "decompressed",
    "replayed",
]

_CHUNK = 256 << 10
_LEVEL = 3
_XZ_MEMORY = 128 << 20
"""Bytes that reading an xz archive may take; one of `xz -9` takes 65 MiB."""


class Codec(enum.Enum):
    """How a stream is compressed: the name of the program, and what its output begins with."""

    GZIP = ("gzip", b"\x1f\x8b\x08")
    BZIP2 = ("bzip2", b"BZh")
    XZ = ("xz", b"\xfd7zXZ\0")
    LZOP = ("lzop", b"\x89LZO\0\r\n\x1a\n")
    ZSTD = ("zstd", b"\x28\xb5\x2f\xfd")
    LZ4 = ("lz4", b"\x04\x22\x4d\x18")

    @property
    def word(self) -> str:
        """Its name."""
        return self.value[0]


MAGIC_BYTES = max(len(codec.value[1]) for codec in Codec)
"""Bytes of a stream that say which codec it is."""
_BY_LIBRARY = (Codec.GZIP, Codec.BZIP2, Codec.XZ)


def codec_of(start: bytes) -> Codec | None:
    """The codec of what begins with `start`; None for none that is known here."""
    return next((codec for codec in Codec if start.startswith(codec.value[1])), None)


def codec_of_image(compression: Compression) -> Codec | None:
    """The codec of a libvirt save image's format; None where the stream lies as QEMU wrote it."""
    return None if compression.seekable else Codec[compression.name]


class CompressionFault(ArmferryError):
    """Compressed bytes that are damaged, or that cannot be read or written."""


class UnwrittenStream(CompressionFault, EnvironmentFault):
    """A compressed stream that did not reach its end: the disk is full, the reader has gone."""

    exit_code = EnvironmentFault.exit_code


class MissingProgram(EnvironmentFault):
    """A compression whose program is not installed."""


@contextlib.contextmanager
def decompressed(source: int, codec: Codec | None) -> Iterator[int]:
    """A descriptor with what the rest of `source` holds, decompressed where there is a codec.

    Raises MissingProgram at once and CompressionFault at the end of the block, unless the block
    left the stream unread.
    """
    if codec is None:
        yield source
        return
    program = _program(codec)
    if program is not None:
        with _piped([program, "-dc"], source, subprocess.PIPE, reading=True) as process:
            assert process.stdout is not None
            yield process.stdout.fileno()
        return
    ours, theirs = os.pipe()
    with _thread(lambda: _decode(source, theirs, codec), theirs, reading=True):
        try:
            yield ours
        finally:
            os.close(ours)  # a decoder that still writes ends with EPIPE


@contextlib.contextmanager
def compressed(target: int, codec: Codec | None) -> Iterator[int]:
    """A descriptor; what is written to it goes to `target`, compressed and whole when it ends.

    Raises MissingProgram at once and UnwrittenStream, a CompressionFault, for what cannot be
    written.
    """
    if codec is None:
        yield target
        return
    program = _program(codec)
    if program is not None:
        packer = [program, f"-{_LEVEL}", "-c"]
        with _piped(packer, subprocess.PIPE, target, reading=False) as process:
            assert process.stdin is not None
            yield process.stdin.fileno()
        return
    theirs, ours = os.pipe()
    with _thread(lambda: _encode(theirs, target, codec), theirs, reading=False):
        try:
            yield ours
        finally:
            os.close(ours)


@contextlib.contextmanager
def replayed(source: int, first: bytes) -> Iterator[int]:
    """A descriptor with `first`, which has been read from `source`, and the rest of `source`."""
    try:
        os.lseek(source, -len(first), os.SEEK_CUR)
        sought = True
    except OSError:
        sought = False
    if sought or not first:
        yield source
        return
    ours, theirs = os.pipe()
    with _thread(lambda: _replay(source, theirs, first), theirs, reading=True):
        try:
            yield ours
        finally:
            os.close(ours)


def _replay(source: int, target: int, first: bytes) -> None:
    data = first
    while data:
        write_all(target, data)
        data = os.read(source, _CHUNK)


def _program(codec: Codec) -> str | None:
    """The program that does it; None when a library does."""
    installed = codec is Codec.ZSTD and importlib.util.find_spec("zstandard") is not None
    if installed or codec in _BY_LIBRARY:
        return None
    found = shutil.which(codec.word)
    if found is None:
        raise MissingProgram(
            f"the stream is compressed with {codec.word} and the program {codec.word} is missing; "
            f"apt-get install {codec.word}"
        )
    return found


def _opened(file: BinaryIO, codec: Codec, mode: Literal["rb", "wb"]) -> Any:
    """`file` as a file of plain bytes, read or written in bounded pieces."""
    if codec is Codec.BZIP2:
        return bz2.BZ2File(file, mode, compresslevel=_LEVEL)
    if codec is Codec.XZ:
        return lzma.LZMAFile(file, mode, preset=_LEVEL)
    if codec is Codec.ZSTD:
        import zstandard

        if mode == "rb":
            return zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
        return compressor.stream_writer(file, closefd=False)
    if importlib.util.find_spec("isal") is not None:
        from isal import igzip

        untyped: Any = igzip.IGzipFile
        return untyped(fileobj=file, mode=mode, compresslevel=_LEVEL)
    return gzip.GzipFile(fileobj=file, mode=mode, compresslevel=_LEVEL)


def _xz_pieces(file: BinaryIO) -> Iterator[bytes]:
    """What is in an archive of one stream or several, zeros between them.

    Its head says how large a window it takes, up to 4 GiB: more than `xz -9` makes is refused
    before memory is taken for it.
    """
    data = b""
    while data := (data or file.read(_CHUNK)).lstrip(b"\0"):
        stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
        while not stream.eof:
            yield stream.decompress(data, _CHUNK)
            data = file.read(_CHUNK) if stream.needs_input and not stream.eof else b""
            if not data and stream.needs_input and not stream.eof:
                raise EOFError("the archive ends too early")
        data = stream.unused_data


def _decode(source: int, target: int, codec: Codec) -> None:
    if codec is Codec.XZ:
        with open(source, "rb", closefd=False) as archive:
            for piece in _xz_pieces(archive):
                write_all(target, piece)
        return
    with open(source, "rb", closefd=False) as file, _opened(file, codec, "rb") as plain:
        while data := plain.read(_CHUNK):
            write_all(target, data)


def _encode(source: int, target: int, codec: Codec) -> None:
    with open(target, "wb", closefd=False) as file, _opened(file, codec, "wb") as packed:
        while data := os.read(source, _CHUNK):
            packed.write(data)


@contextlib.contextmanager
def _thread(work: Callable[[], None], pipe: int, *, reading: bool) -> Iterator[None]:
    """Runs `work` beside the block; `pipe` is its end of the pipe, closed when it is done."""
    faults: list[Exception] = []

    def run() -> None:
        try:
            work()
        except Exception as fault:
            # a block may leave what it reads unread; what it writes must arrive
            if not (reading and isinstance(fault, BrokenPipeError)):
                faults.append(fault)
        finally:
            os.close(pipe)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        # what the block made of a broken stream is only the consequence
        if faults:
            raise _fault(_words(faults[0]), reading=reading) from faults[0]


def _words(reason: Exception) -> str:
    return reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)


def _fault(words: str, *, reading: bool) -> CompressionFault:
    if not reading:
        return UnwrittenStream(f"the compressed output cannot be written: {words}")
    return CompressionFault(f"the compressed stream cannot be read: {words}; save the guest again")


@contextlib.contextmanager
def _piped(
    command: list[str], source: int, target: int, *, reading: bool
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command, stdin=source, stdout=target, stderr=subprocess.PIPE, start_new_session=True
    )
    fault: Exception | None = None
    try:
        yield process
    except (ArmferryError, OSError) as error:
        fault = error  # perhaps only the consequence of what the program says
    except BaseException:
        process.kill()
        raise
    finally:
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        assert process.stderr is not None
        said = process.stderr.read().decode("utf-8", "replace").strip()
        process.stderr.close()
        process.wait()
    left_unread = process.returncode == -signal.SIGPIPE or "roken pipe" in said
    if process.returncode and not (reading and left_unread):
        how = f"{command[0].rpartition('/')[2]} ended with status {process.returncode}"
        raise _fault(f"{how}: {said}" if said else how, reading=reading) from fault
    if fault is not None:
        raise fault
