"""Where things are kept, how a release is named, and which mirror is used."""

import hashlib
from pathlib import Path

import pytest

from armferry.cache import cache_folder
from armferry.lab.apt import AptFault, AptState, Package
from armferry.lab.apt_sources import NoMirror, debian_mirror
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
URIs: http://security.example.org/debian-security
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
    with pytest.raises(NoMirror):
        debian_mirror(_apt(tmp_path, debian__sources=text))


def test_mirror_from_one_line_sources(tmp_path: Path) -> None:
    text = (
        "# deb http://commented.example.org/debian bookworm main\n"
        "deb-src http://source.example.org/debian bookworm main\n"
        "deb http://ports.example.org/debian-security bookworm-security main\n"
        "deb cdrom:[Debian 12]/ bookworm main\n"
        "deb [arch=amd64 signed-by=/k.gpg] http://right.example.org/debian bookworm main # mine\n"
    )
    assert debian_mirror(_apt(tmp_path, list=text)) == "http://right.example.org/debian"


def test_archive_at_a_moment_counts(tmp_path: Path) -> None:
    url = "http://moments.example.org/archive/debian/20260101T000000Z"
    assert debian_mirror(_apt(tmp_path, list=f"deb {url}/ trixie main\n")) == url


def test_no_debian_source_is_said(tmp_path: Path) -> None:
    text = "deb http://archive.example.org/ubuntu noble main\n"
    for apt in (tmp_path / "nowhere", _apt(tmp_path / "apt", list=text)):
        with pytest.raises(NoMirror) as error:
            debian_mirror(apt)
        assert str(error.value) == (
            f"{apt}: names no archive of Debian: the lab takes kernels and QEMUs from the one that "
            "this machine's apt uses; add its line to sources.list (deb URL trixie main), then "
            "apt-get update"
        )


def test_package_that_was_there_before_is_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = b"the package"
    package = Package("linux", "1", "trixie", hashlib.sha256(good).hexdigest())
    folder = tmp_path / "packages" / package.sha256
    folder.mkdir(parents=True)
    (folder / "linux.deb").write_bytes(b"another one")
    fetched: list[bytes] = [good, b"a third one"]

    def run(_: AptState, command: list[str], cwd: Path | None = None) -> str:
        assert command == ["apt-get", "-qq", "download", "linux=1"]
        assert cwd == folder
        (folder / "linux.deb").write_bytes(fetched.pop(0))
        return ""

    monkeypatch.setattr(AptState, "_run", run)
    assert AptState(tmp_path).download(package).read_bytes() == good
    assert AptState(tmp_path).download(package).read_bytes() == good  # nothing more is fetched
    (folder / "linux.deb").write_bytes(b"damaged")
    with pytest.raises(AptFault, match=f"its SHA-256 is not {package.sha256}, that of the index"):
        AptState(tmp_path).download(package)
