"""Debian's arm64 kernels: which there are, how a person names one, and where an unpacked one lies.

Kernels come from the archive's `-cloud-arm64` packages. A kernel is named by its release without
the flavour (`6.12.107+deb13`, `5.10.0-32`); a beginning of it (`6.12`) means the newest one that
begins so. Unpacked kernels are kept under the cache with a JSON document of their origin, and a
request is answered from there when it can be, so that the lab needs no network twice.

What is kept: the image, and for kernels that have the virtio console as modules, those modules in
load order. Sources of fact: the packages themselves (contents measured), modinfo(8).
"""

import fcntl
import hashlib
import json
import lzma
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from armferry.cache import cache_folder
from armferry.errors import ArmferryError, EnvironmentFault
from armferry.facts.release import newest_match, release_key, series_of
from armferry.lab.apt import AptFault, AptState, Package
from armferry.lab.deb import package_file, unpack

__all__ = [
    "Kernel",
    "KernelOrigin",
    "KernelStore",
    "KernelUnpackFault",
    "UnknownKernelError",
    "newest_match",
    "release_key",
    "release_of",
]

# From 6.19 on the image lies in linux-binary, and linux-image only depends on it.
_PACKAGE = re.compile(r"linux-(?P<part>binary|image)-(?P<release>\d[^-]*(?:-\d+)?)-cloud-arm64")

# What the guest needs to answer on its virtio console.
_WANTED_MODULES = ("virtio_pci", "virtio_console")


_LOCAL = "local"


class UnknownKernelError(ArmferryError):
    """No kernel of the archive has the name that was asked for."""


class KernelUnpackFault(EnvironmentFault):
    """A kernel package is not made the way the lab knows."""


@dataclass(frozen=True, slots=True)
class KernelOrigin:
    """Where an unpacked kernel came from: enough to get the very same one again."""

    release: str
    package: str
    version: str
    suite: str
    sha256: str
    modules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Kernel:
    """An unpacked kernel: `folder` has `vmlinuz` and the modules named by the origin."""

    origin: KernelOrigin
    folder: Path

    @property
    def release(self) -> str:
        return self.origin.release

    @property
    def image(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def modules(self) -> tuple[Path, ...]:
        """Modules to load before the virtio console exists, in load order."""
        return tuple(self.folder / name for name in self.origin.modules)


class KernelStore:
    """Kernels unpacked under `folder`, and the archive to get more from."""

    def __init__(self, folder: Path | None = None, apt: AptState | None = None) -> None:
        self.folder = folder or cache_folder("kernels")
        self._apt = apt or AptState(cache_folder("apt"))

    def installed(self) -> list[Kernel]:
        """Every unpacked kernel, oldest release first."""
        found = [self._read(document) for document in self.folder.glob("*/kernel.json")]
        return sorted(found, key=lambda kernel: release_key(kernel.release))

    def available(self) -> list[Package]:
        """Every kernel package of the archive that has an image, oldest release first.

        One per release. Raises `AptFault`.
        """
        by_release: dict[str, Package] = {}
        for package in self._apt.packages(_PACKAGE):
            release = release_of(package)
            present = by_release.get(release)
            if present is None or package.name.startswith("linux-binary-"):
                by_release[release] = package
        return sorted(by_release.values(), key=lambda package: release_key(release_of(package)))

    def get(self, request: str) -> Kernel:
        """The newest unpacked kernel that `request` names, installed first when there is none.

        Raises `UnknownKernelError`, `AptFault`, `KernelUnpackFault`.
        """
        present = {kernel.release: kernel for kernel in self.installed()}
        chosen = newest_match(request, present)
        return present[chosen] if chosen else self.install(request)

    def install(self, request: str) -> Kernel:
        """The newest kernel of the archive that `request` names, downloaded and unpacked.

        About 5 s for one that is not there yet; another that is installing is waited for. Raises
        `UnknownKernelError`, `AptFault`, `KernelUnpackFault`.
        """
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                return self._install(request)
            except AptFault:
                # the archive may have replaced what an index of this morning names
                self._apt.update()
                return self._install(request)

    def _install(self, request: str) -> Kernel:
        packages = {release_of(package): package for package in self.available()}
        release = newest_match(request, packages)
        if release is None:
            series = sorted({series_of(known) for known in packages}, key=release_key)
            raise UnknownKernelError(
                f"no kernel {request!r} in Debian's arm64 archive; the series there are "
                f"{', '.join(series)}: name one of them, or a whole release of"
                " `armferry lab kernel list --available`"
            )
        folder = self.folder / release
        if not (folder / "kernel.json").exists():
            self.unpack(self._apt.download(packages[release]), packages[release])
        return self._read(folder / "kernel.json")

    def unpack(self, deb: Path, package: Package | None = None) -> Kernel:
        """Unpack a kernel package file; `package` says where it came from, if the archive knows.

        An unknown one is kept by its content and found by its file alone: packages of one
        release may differ.

        Raises `KernelUnpackFault`, `BadPackage`.
        """
        package = package or _local_package(deb)
        release = release_of(package)
        folder = self.folder / release
        if package.suite == _LOCAL:
            folder = self.folder / f".{_LOCAL}" / package.sha256[:24]
            if folder.exists():
                return self._read(folder / "kernel.json")
        folder.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder) as temporary:
            root = Path(temporary, "root")
            unpack(deb, root)
            images = [*root.glob("boot/vmlinuz-*"), *root.glob("usr/lib/modules/*/vmlinuz")]
            if len(images) != 1:
                raise KernelUnpackFault(
                    f"{deb.name} has {len(images)} kernel images, one was expected:"
                    " give the package that has vmlinuz (from 6.19 on linux-binary-*)"
                )
            kept = Path(temporary, "kept")
            kept.mkdir()
            shutil.move(images[0], kept / "vmlinuz")
            modules: list[str] = []
            for module in _load_order(root, _WANTED_MODULES):
                name = f"{_module_name(module)}.ko"
                (kept / name).write_bytes(_module_bytes(module))
                modules.append(name)
            origin = KernelOrigin(
                release,
                package.name,
                package.version,
                package.suite,
                package.sha256,
                tuple(modules),
            )
            (kept / "kernel.json").write_text(json.dumps(asdict(origin), indent=2) + "\n")
            if folder.exists():
                shutil.rmtree(folder)
            kept.rename(folder)
        return Kernel(origin, folder)

    def _read(self, document: Path) -> Kernel:
        fields = json.loads(document.read_text())
        modules = tuple(fields.pop("modules"))
        return Kernel(KernelOrigin(modules=modules, **fields), document.parent)


def release_of(package: Package) -> str:
    """The kernel's release, from the name of its package. Raises `KernelUnpackFault`."""
    if (match := _PACKAGE.fullmatch(package.name)) is None:
        raise KernelUnpackFault(
            f"{package.name} is not a cloud kernel of Debian for arm64: give a"
            " linux-image-*-cloud-arm64 or linux-binary-*-cloud-arm64 package"
        )
    return match["release"]


def _local_package(deb: Path) -> Package:
    about = package_file(deb)
    sha256 = hashlib.sha256(deb.read_bytes()).hexdigest()
    return Package(about.name, about.version, _LOCAL, sha256)


def _load_order(root: Path, wanted: Sequence[str]) -> Iterator[Path]:
    """Module files for `wanted` with what they depend on first; built-in ones have no file."""
    files = {_module_name(path): path for path in root.glob("**/lib/modules/**/*.ko*")}
    done: set[str] = set()

    def visit(name: str) -> Iterator[Path]:
        if name in done or name not in files:
            return
        done.add(name)
        found = re.search(rb"\0depends=([^\0]*)\0", _module_bytes(files[name]))
        for needed in found[1].decode().split(",") if found else ():
            yield from visit(needed)
        yield files[name]

    for name in wanted:
        yield from visit(name)


def _module_name(path: Path) -> str:
    return path.name.split(".")[0].replace("-", "_")


def _module_bytes(path: Path) -> bytes:
    content = path.read_bytes()
    return lzma.decompress(content) if path.suffix == ".xz" else content
