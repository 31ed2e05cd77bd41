"""Where things are kept, how a release is named, and which mirror is used."""

from pathlib import Path

import pytest

from armferry.cache import cache_folder
from armferry.lab.apt_sources import DEBIAN, debian_mirror
from armferry.lab.releases import RELEASES, UnknownReleaseError, release_named


def test_cache_is_where_it_was_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARMFERRY_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder("qemu") == tmp_path / "own" / "qemu"
    assert (tmp_path / "own" / "qemu").is_dir()
    monkeypatch.delenv("ARMFERRY_CACHE")
    assert cache_folder() == tmp_path / "xdg" / "armferry"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "armferry"


@pytest.mark.parametrize(
    ("name", "suite"),
    [
        ("10.0", "trixie"),
        ("10.0.2", "bookworm-backports"),
        ("10.0.13", "trixie"),
        ("7", "bookworm"),
        ("bullseye", "bullseye"),
        ("trixie-backports", "trixie-backports"),
    ],
)
def test_release_is_found_by_any_of_its_names(name: str, suite: str) -> None:
    assert release_named(name).suite == suite


@pytest.mark.parametrize("name", ["", "1", "10.0.1", "sid"])
def test_unknown_release_is_told_the_choice(name: str) -> None:
    with pytest.raises(UnknownReleaseError) as caught:
        release_named(name)
    assert str(caught.value) == (
        f"no QEMU release {name!r} in the rig; name a version, its beginning or a suite of: "
        "5.2.0 (bullseye), 7.2.22 (bookworm), 10.0.2 (bookworm-backports), 10.0.13 (trixie), "
        "11.1.3 (trixie-backports)"
    )
    assert len({release.suite for release in RELEASES}) == len(RELEASES)


def _apt(folder: Path, **files: str) -> Path:
    (folder / "sources.list.d").mkdir(parents=True)
    for name, text in files.items():
        path = folder / "sources.list"
        if name != "list":
            path = folder / "sources.list.d" / name.replace("__", ".")
        path.write_text(text)
    return folder


DEB822 = """\
# a comment
Types: deb
URIs: https://packages.example.org/apt
Suites: bookworm
Components: main

Types: deb deb-src
URIs: http://security.debian.org/debian-security
Suites: bookworm-security
Components: main

Types: deb
# in the middle
URIs:
 http://near.example.org/debian/
 http://far.example.org/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""


def test_mirror_from_deb822_sources(tmp_path: Path) -> None:
    assert debian_mirror(_apt(tmp_path, debian__sources=DEB822)) == "http://near.example.org/debian"


def test_disabled_stanza_is_passed_over(tmp_path: Path) -> None:
    text = DEB822.replace("Components: main contrib", "Components: main\nEnabled: no")
    assert debian_mirror(_apt(tmp_path, debian__sources=text)) == DEBIAN


def test_mirror_from_one_line_sources(tmp_path: Path) -> None:
    text = (
        "# deb http://commented.example.org/debian bookworm main\n"
        "deb-src http://source.example.org/debian bookworm main\n"
        "deb http://ports.example.org/debian-security bookworm-security main\n"
        "deb cdrom:[Debian 12]/ bookworm main\n"
        "deb [arch=amd64 signed-by=/k.gpg] http://right.example.org/debian bookworm main # mine\n"
    )
    assert debian_mirror(_apt(tmp_path, list=text)) == "http://right.example.org/debian"


def test_no_debian_source_means_the_public_archive(tmp_path: Path) -> None:
    assert debian_mirror(tmp_path / "nowhere") == DEBIAN
    text = "deb http://archive.example.org/ubuntu noble main\n"
    assert debian_mirror(_apt(tmp_path / "apt", list=text)) == DEBIAN
