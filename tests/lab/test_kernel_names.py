"""Which kernel a request means, what a Packages index offers, and what is kept of a package."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from armferry.lab.apt import AptFault, AptState, Package, parse_packages
from armferry.lab.deb import BadPackage
from armferry.lab.kernels import (
    KernelStore,
    KernelUnpackFault,
    UnknownKernelError,
    newest_match,
    release_key,
)

RELEASES = (
    *("5.10.0-30", "5.10.0-32", "6.1.0-50", "6.12.95+deb12", "6.12.107+deb13"),
    *("6.12.90+deb12", "6.12.90+deb12.1", "6.17.13+deb13"),
)


@pytest.mark.parametrize(
    ("request_text", "release"),
    [
        ("6.12", "6.12.107+deb13"),
        ("6.12.90", "6.12.90+deb12.1"),
        ("6.12.90+deb12", "6.12.90+deb12.1"),
        ("6.12.95+deb12", "6.12.95+deb12"),
        ("6.1", "6.1.0-50"),
        ("5.10", "5.10.0-32"),
        ("5.10.0-30", "5.10.0-30"),
        ("5", "5.10.0-32"),
        ("6.18", None),
        ("6.12.9", None),
        ("", None),
    ],
)
def test_a_request_means_the_newest_that_continues_it(
    request_text: str, release: str | None
) -> None:
    assert newest_match(request_text, RELEASES) == release


def test_releases_sort_by_their_numbers() -> None:
    assert sorted(RELEASES, key=release_key)[-4:] == [
        *("6.12.90+deb12.1", "6.12.95+deb12", "6.12.107+deb13", "6.17.13+deb13")
    ]


INDEX = """\
Package: linux-image-6.12.107+deb13-cloud-arm64
Version: 6.12.107-1
Description: a kernel
 Package: not-this-one
SHA256: aaaa

Package: linux-image-6.12.107+deb13-cloud-arm64-dbg
Version: 6.12.107-1
SHA256: bbbb

Package: linux-image-6.13.1+deb13-cloud-arm64
Version: 6.13.1-1

Package: linux-binary-6.19.6+deb13-cloud-arm64
Version: 6.19.6-1
SHA256: cccc"""


def test_an_index_offers_whole_names_that_can_be_verified() -> None:
    name = re.compile(r"linux-(?:image|binary)-[\d.]+\+deb\d+-cloud-arm64")
    assert list(parse_packages(INDEX, "trixie", name)) == [
        Package("linux-image-6.12.107+deb13-cloud-arm64", "6.12.107-1", "trixie", "aaaa"),
        Package("linux-binary-6.19.6+deb13-cloud-arm64", "6.19.6-1", "trixie", "cccc"),
    ]


class _Archive(AptState):
    """An archive of packages made in the test."""

    def __init__(self, packages: dict[Package, Path]) -> None:
        self._packages = packages

    def packages(self, name: re.Pattern[str]) -> list[Package]:
        return [package for package in self._packages if name.fullmatch(package.name)]

    def download(self, package: Package) -> Path:
        return self._packages[package]


def _deb(folder: Path, name: str, version: str, files: dict[str, bytes]) -> Path:
    root = folder / name
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: arm64\n"
        "Maintainer: test <test@example.org>\nDescription: test\n"
    )
    deb = folder / f"{name}.deb"
    subprocess.run(["dpkg-deb", "-b", root, deb], check=True, capture_output=True)
    shutil.rmtree(root)
    return deb


def _module(needs: str) -> bytes:
    return b"\x7fELF\0license=GPL\0depends=" + needs.encode() + b"\0name=x\0"


def test_a_kernel_is_kept_with_its_modules_in_load_order_and_its_origin(tmp_path: Path) -> None:
    name, modules = "linux-image-5.10.0-32-cloud-arm64", "lib/modules/5.10.0-32-cloud-arm64/kernel"
    package = Package(name, "5.10.223-1", "bullseye", "00ff")
    files = {
        "boot/vmlinuz-5.10.0-32-cloud-arm64": b"image",
        f"{modules}/virtio_pci.ko": _module("virtio,virtio_ring"),
        f"{modules}/virtio_console.ko": _module("virtio,virtio_ring"),
        f"{modules}/virtio.ko": _module(""),
        f"{modules}/virtio_ring.ko": _module("virtio"),
        f"{modules}/virtio-rng.ko": _module("virtio"),
    }
    store = tmp_path / "kernels"
    store.mkdir()
    archive = _Archive({package: _deb(tmp_path, name, "5.10.223-1", files)})
    kernel = KernelStore(store, archive).get("5.10")
    assert kernel.image.read_bytes() == b"image"
    order = ["virtio.ko", "virtio_ring.ko", "virtio_pci.ko", "virtio_console.ko"]
    assert [module.name for module in kernel.modules] == order
    assert kernel.modules[1].read_bytes() == _module("virtio")
    assert json.loads((store / "5.10.0-32/kernel.json").read_text()) == {
        "release": "5.10.0-32",
        "package": name,
        "version": "5.10.223-1",
        "suite": "bullseye",
        "sha256": "00ff",
        "modules": order,
    }
    assert KernelStore(store, _Archive({})).get("5.10") == kernel
    assert KernelStore(store, _Archive({})).installed() == [kernel]


class _Rolled(_Archive):
    """An archive whose index is a day old: what it names is gone."""

    def __init__(self, old: dict[Package, Path], new: dict[Package, Path]) -> None:
        super().__init__(old)
        self._new = new
        self.updates = 0

    def download(self, package: Package) -> Path:
        if package not in self._new:
            raise AptFault(f"{package.name}: 404 Not Found")
        return super().download(package)

    def update(self) -> None:
        self.updates += 1
        self._packages = self._new


def test_what_the_archive_has_replaced_is_looked_for_once_more(tmp_path: Path) -> None:
    store = tmp_path / "kernels"
    store.mkdir()
    old = Package("linux-image-6.12.107+deb13-cloud-arm64", "6.12.107-1", "trixie", "aa")
    new = Package("linux-image-6.12.117+deb13-cloud-arm64", "6.12.117-1", "trixie", "bb")
    deb = _deb(tmp_path, new.name, new.version, {"boot/vmlinuz-6.12.117": b"image"})
    archive = _Rolled({old: tmp_path}, {new: deb})
    assert KernelStore(store, archive).get("6.12").release == "6.12.117+deb13"
    assert archive.updates == 1
    gone = _Rolled({old: tmp_path}, {})
    with pytest.raises(UnknownKernelError):
        KernelStore(store, gone).install("6.12.107")


def test_the_image_is_taken_from_linux_binary_where_there_is_one(tmp_path: Path) -> None:
    image = Package("linux-image-6.19.6+deb13-cloud-arm64", "6.19.6-1", "trixie", "aa")
    binary = Package("linux-binary-6.19.6+deb13-cloud-arm64", "6.19.6-1", "trixie", "bb")
    files = {"usr/lib/modules/6.19.6+deb13-cloud-arm64/vmlinuz": b"image"}
    debs = {
        binary: _deb(tmp_path, binary.name, "6.19.6-1", files),
        image: _deb(tmp_path, image.name, "6.19.6-1", {}),
    }
    store = tmp_path / "kernels"
    store.mkdir()
    kernel = KernelStore(store, _Archive(debs)).install("6.19")
    assert (kernel.origin.package, kernel.modules) == (binary.name, ())


def test_what_the_archive_has_not_is_said_with_the_choice(tmp_path: Path) -> None:
    packages = {
        Package(f"linux-image-{release}-cloud-arm64", "1", "trixie", "aa"): tmp_path
        for release in RELEASES
    }
    with pytest.raises(UnknownKernelError) as unknown:
        KernelStore(tmp_path, _Archive(packages)).get("4.19")
    assert str(unknown.value) == (
        "no kernel '4.19' in Debian's arm64 archive; the series there are 5.10, 6.1, 6.12, 6.17:"
        " name one of them, or a whole release of `armferry lab kernel list --available`"
    )
    assert unknown.value.exit_code == 3


def test_a_package_without_an_image_is_refused(tmp_path: Path) -> None:
    deb = _deb(tmp_path, "linux-image-6.19.6+deb13-cloud-arm64", "6.19.6-1", {})
    with pytest.raises(KernelUnpackFault) as refused:
        KernelStore(tmp_path, _Archive({})).unpack(deb)
    assert str(refused.value) == (
        "linux-image-6.19.6+deb13-cloud-arm64.deb has 0 kernel images, one was expected: give the"
        " package that has vmlinuz (from 6.19 on linux-binary-*)"
    )


def test_package_files_of_one_release_do_not_take_each_others_place(tmp_path: Path) -> None:
    name = "linux-image-6.1.0-50-cloud-arm64"
    store = KernelStore(tmp_path / "kernels", _Archive({}))
    store.folder.mkdir()
    kernels = []
    for version in ("6.1.176-1", "6.1.176-2"):
        (tmp_path / version).mkdir()
        files = {"boot/vmlinuz-6.1.0-50-cloud-arm64": version.encode()}
        kernels.append(store.unpack(_deb(tmp_path / version, name, version, files)))
    assert [kernel.release for kernel in kernels] == ["6.1.0-50", "6.1.0-50"]
    assert [kernel.image.read_bytes() for kernel in kernels] == [b"6.1.176-1", b"6.1.176-2"]
    assert store.unpack(tmp_path / "6.1.176-1" / f"{name}.deb") == kernels[0]
    # a series means a kernel of the archive, never somebody's file
    assert store.installed() == []


def test_a_file_that_is_no_package_is_bad_input(tmp_path: Path) -> None:
    deb = tmp_path / "kernel.deb"
    for content in (None, b"not a package"):
        if content is not None:
            deb.write_bytes(content)
        with pytest.raises(BadPackage) as refused:
            KernelStore(tmp_path, _Archive({})).unpack(deb)
        assert str(refused.value).startswith(f"{deb}: not a package that can be read: ")
        assert refused.value.exit_code == 3


def test_another_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KernelUnpackFault) as refused:
        KernelStore(tmp_path, _Archive({})).unpack(_deb(tmp_path, "hello", "1", {}))
    assert str(refused.value) == (
        "hello is not a cloud kernel of Debian for arm64: give a linux-image-*-cloud-arm64 or"
        " linux-binary-*-cloud-arm64 package"
    )


def test_a_machine_without_apt_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AptFault) as fault:
        AptState(tmp_path).update()
    assert str(fault.value) == (
        "apt-get is not installed: the lab takes its kernels and QEMUs from Debian's archive and"
        " needs apt (run it on Debian or Ubuntu)"
    )
    assert fault.value.exit_code == 4
