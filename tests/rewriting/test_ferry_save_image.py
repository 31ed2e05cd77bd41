"""A libvirt save image stays one: its head, its compression, and what it says when cut short."""

import lzma
import os
import subprocess
from pathlib import Path

import pytest

from armferry.hosts.files.compression import codec_of_image, compressed
from armferry.hosts.files.in_place import FileInPlace
from armferry.hosts.files.locked import FileWindow
from armferry.hosts.files.saved_file import Saved, image_in, saved_in
from armferry.rewriting.copy import Mark, copy_with_tail
from armferry.rewriting.pump import pump
from armferry.stream import CpuEdit, StateEdit, rewrite_tail
from armferry.stream.save_image import Compression, SaveImage, SaveImageHeader

DATA = Path(__file__).parent.parent / "stream" / "data"
STREAM = lzma.decompress((DATA / "tcg_10.0.2_virt-10.0_cortex-a57_1.mig.xz").read_bytes())
BODY = b"<domain/>\0<cookie/>\0" + bytes(5_000)
DROPPED = 0x40200000200E0298  # DBGDTRTX


def _header(compression: Compression) -> SaveImageHeader:
    unused = tuple(range(14))
    return SaveImageHeader(True, 2, len(BODY), 1, compression, 10, unused, "big")


@pytest.fixture(params=Compression)
def image(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A recorded stream in a save image of each kind."""
    compression: Compression = request.param
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.write(_header(compression).encode(complete=True) + BODY)
        file.flush()
        with compressed(file.fileno(), codec_of_image(compression)) as packed:
            view = memoryview(STREAM)
            while view:
                view = view[os.write(packed, view) :]
    return path


def _edits(saved: Saved) -> StateEdit:
    return StateEdit(
        [
            CpuEdit({index: value for index, value in cpu.registers.items() if index != DROPPED})
            for cpu in saved.state.cpus
        ]
    )


def _same(saved: Saved) -> StateEdit:
    return StateEdit([CpuEdit(cpu.registers) for cpu in saved.state.cpus])


def _saved(path: Path) -> Saved:
    with FileWindow(path) as window:
        return saved_in(window)


def _pumped(image: Path, target: Path) -> None:
    with image.open("rb") as source, target.open("wb") as file:
        pump(source.fileno(), file.fileno(), _edits)


def _check(before: Saved, after: Saved) -> None:
    assert after.image is not None
    assert after.image == before.image == SaveImage(after.image.header, BODY)
    (old,), (new,) = before.state.cpus, after.state.cpus
    assert DROPPED in old.registers
    assert dict(new.registers) == {k: v for k, v in old.registers.items() if k != DROPPED}


def test_image_through_a_pump(image: Path, tmp_path: Path) -> None:
    _pumped(image, tmp_path / "target")
    _check(_saved(image), _saved(tmp_path / "target"))


def test_image_through_pipes(image: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    with image.open("rb") as source, target.open("wb") as file:
        reader = subprocess.Popen(["cat"], stdin=source, stdout=subprocess.PIPE)
        writer = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=file)
        assert reader.stdout is not None
        assert writer.stdin is not None
        with reader.stdout, writer.stdin:
            pump(reader.stdout.fileno(), writer.stdin.fileno(), _edits)
        assert (reader.wait(), writer.wait()) == (0, 0)
    _check(_saved(image), _saved(target))


def test_refused_image_never_says_that_it_is_complete(image: Path, tmp_path: Path) -> None:
    class Refused(Exception):
        pass

    def refuse(saved: Saved) -> StateEdit:
        raise Refused

    with (
        image.open("rb") as source,
        (tmp_path / "target").open("wb") as file,
        pytest.raises(Refused),
    ):
        pump(source.fileno(), file.fileno(), refuse)
    assert (tmp_path / "target").read_bytes()[:16] == b"LibvirtQemudPart"


@pytest.mark.parametrize("image", [Compression.RAW, Compression.SPARSE], indirect=True)
def test_image_in_place_and_beside(image: Path, tmp_path: Path) -> None:
    before = _saved(image)
    with FileWindow(image) as window:
        found = image_in(window)
        assert found is not None
        mark = Mark(found.header.encode(complete=False), found.header.encode(complete=True))
        tail = rewrite_tail(before.state, _edits(before))
        copy_with_tail(window, tmp_path / "copy", window.size, tail, mark=mark)
    with FileInPlace(image) as window:
        assert tail is not None
        window.rewrite(tail, window.size)
    assert image.read_bytes() == (tmp_path / "copy").read_bytes()
    _check(before, _saved(image))


@pytest.mark.parametrize("image", [Compression.RAW, Compression.SPARSE], indirect=True)
def test_nothing_to_change_changes_no_byte(image: Path, tmp_path: Path) -> None:
    with image.open("rb") as source, (tmp_path / "target").open("wb") as file:
        pump(source.fileno(), file.fileno(), _same)
    assert (tmp_path / "target").read_bytes() == image.read_bytes()


def test_stream_without_a_container_is_as_before(tmp_path: Path) -> None:
    (tmp_path / "stream").write_bytes(STREAM)
    with (tmp_path / "stream").open("rb") as source, (tmp_path / "target").open("wb") as file:
        saved = pump(source.fileno(), file.fileno(), _same)
    assert saved.image is None
    assert (tmp_path / "target").read_bytes() == STREAM
