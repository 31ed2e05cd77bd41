"""Real libvirt hosts, started once for all tests of a process."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import armferry
from armferry.lab.libvirt_host import LibvirtHost
from armferry.lab.libvirt_install import install
from armferry.lab.releases import release_named

_PORTS = {"bookworm-backports": 49300, "trixie": 49320}
_WORKER_PORTS = 100


@pytest.fixture(scope="session")
def libvirt_shared(guest_kernel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that every libvirt host sees as /shared, with the guest in it."""
    folder = tmp_path_factory.mktemp("shared")
    shutil.copy(guest_kernel, folder / "guest.elf")
    return folder


@pytest.fixture(scope="session")
def libvirt_host(
    libvirt_shared: Path, tmp_path_factory: pytest.TempPathFactory, worker_number: int
) -> Iterator[Callable[[str], LibvirtHost]]:
    """A function from a Debian suite to the running libvirt host of that suite."""
    hosts: dict[str, LibvirtHost] = {}
    with ExitStack() as stack:

        def named(suite: str) -> LibvirtHost:
            if suite not in hosts:
                hosts[suite] = stack.enter_context(
                    LibvirtHost(
                        install(release_named(suite)),
                        suite,
                        folder=tmp_path_factory.mktemp(f"host-{suite}-"),
                        shared=libvirt_shared,
                        port=_PORTS[suite] + worker_number * _WORKER_PORTS,
                        packages=[Path(armferry.__file__).parent],
                    )
                )
            return hosts[suite]

        yield named


@pytest.fixture(scope="session")
def worker_number(request: pytest.FixtureRequest) -> int:
    """0 for the first of pytest-xdist's workers, or without it."""
    name: str = getattr(request.config, "workerinput", {}).get("workerid", "gw0")
    return int(name.removeprefix("gw"))
