"""The initramfs archives: written, read back, concatenated, and refused when broken."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armferry.lab import cpio

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=40)
ENTRIES = st.lists(
    st.one_of(
        st.builds(cpio.file, NAMES, st.binary(max_size=200), st.sampled_from((0o644, 0o755))),
        st.builds(cpio.directory, NAMES),
        st.builds(cpio.symlink, NAMES, NAMES),
        st.builds(cpio.device, NAMES, st.integers(0, 255), st.integers(0, 255)),
    ),
    max_size=8,
)


def _archive(*entries: cpio.Entry) -> bytes:
    return b"".join(cpio.write(entries))


@given(ENTRIES, ENTRIES)
def test_concatenated_archives_read_as_one(
    first: list[cpio.Entry], second: list[cpio.Entry]
) -> None:
    assert list(cpio.read(_archive(*first) + _archive(*second))) == first + second


@given(ENTRIES)
def test_the_next_archive_begins_aligned(entries: list[cpio.Entry]) -> None:
    assert len(_archive(*entries)) % 4 == 0


def test_a_member_is_laid_out_as_the_kernel_reads_it() -> None:
    header = (
        b"070701"
        b"00000001"
        b"000081ED"
        b"00000000"
        b"00000000"
        b"00000001"
        b"00000000"
        b"00000003"
        b"00000000"
        b"00000000"
        b"00000000"
        b"00000000"
        b"00000005"
        b"00000000"
    )
    assert _archive(cpio.file("init", b"abc", 0o755)).startswith(header + b"init\0\0abc\0")


def test_a_device_carries_its_numbers() -> None:
    (entry,) = cpio.read(_archive(cpio.device("dev/console", 5, 1)))
    assert stat.S_ISCHR(entry.mode)
    assert entry.device == (5, 1)


def test_store_replaces_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.cpio"
    path.write_bytes(b"old")
    cpio.store(path, [cpio.file("a", b"new")])
    assert list(cpio.read(path.read_bytes())) == [cpio.file("a", b"new")]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (b"nonsense" * 20, "no newc header at offset 0 of the archive"),
        (_archive(cpio.file("a", b"abc"))[:100], "no newc header at offset 0 of the archive"),
        (
            _archive(cpio.file("a", b"x" * 100))[:150],
            "the archive ends within the member at offset 0",
        ),
        (b"070701" + b"zzzzzzzz" * 13, "bad number in the newc header at offset 0"),
    ],
)
def test_what_is_no_archive_is_refused(archive: bytes, message: str) -> None:
    with pytest.raises(cpio.CpioError) as refused:
        list(cpio.read(archive))
    assert str(refused.value) == message
