"""Fixtures for every room: real QEMUs, installed on demand."""

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from armferry.hosts.qmp.process import MachineSpec, QemuProcess
from armferry.lab.guest import build
from armferry.lab.qemu_install import InstalledQemu, install, resolve

# how long an example takes says more of the machine's load than of the code
settings.register_profile("armferry", deadline=None)
# the same examples each time and few of them: for tools/mutate.py, which runs a test many times
settings.register_profile("few", deadline=None, max_examples=12, derandomize=True, database=None)
settings.load_profile("armferry")

# a runner in the background, or without a terminal, has these ignored, and what it starts
# inherits that
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def qemu_release() -> Callable[[str], InstalledQemu]:
    """A function from a release's name (version or Debian suite) to the installed QEMU."""

    def named(name: str) -> InstalledQemu:
        return install(resolve(name))

    return named


@pytest.fixture(scope="session")
def guest_kernel() -> Path:
    """The test guest, for QEMU's `-kernel`."""
    return build()


@pytest.fixture(scope="session")
def fresh_state(
    qemu_release: Callable[[str], InstalledQemu], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """A function from a release's name to a guest it saved before it ran; copy it to change it."""
    folder = tmp_path_factory.mktemp("states")

    def saved(release: str, machine: str = "virt-10.0", smp: int = 1) -> Path:
        path = folder / f"{release}-{machine}-{smp}.state"
        if not path.exists():
            spec = MachineSpec(machine=machine, smp=smp)
            with QemuProcess(qemu_release(release), spec, paused=True) as running:
                running.save(path)
        return path

    return saved


_EXTENSIONS = """\
subjectAltName=DNS:localhost,DNS:{name},IP:127.0.0.1,IP:::1
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature,keyEncipherment
extendedKeyUsage={usage}
authorityKeyIdentifier=keyid
"""


@pytest.fixture(scope="session")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function from an authority's name to a folder with its tls-creds-x509 files."""

    def made(authority: str) -> Path:
        folder = tmp_path_factory.getbasetemp() / f"tls-{authority}"
        if not folder.exists():
            folder.mkdir()
            _make_authority(folder, authority)
            _make_certificate(folder, "server", "serverAuth")
            _make_certificate(folder, "client", "clientAuth")
        return folder

    return made


def _openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True, timeout=30)


_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _make_authority(folder: Path, name: str) -> None:
    files = ("-keyout", "ca-key.pem", "-out", "ca-cert.pem")
    _openssl(folder, "req", "-x509", *_KEY, "-subj", f"/CN={name}", "-days", "2", *files)


def _make_certificate(folder: Path, end: str, usage: str) -> None:
    (folder / f"{end}.ext").write_text(_EXTENSIONS.format(name=end, usage=usage))
    request = ("-keyout", f"{end}-key.pem", "-out", f"{end}.csr")
    _openssl(folder, "req", *_KEY, "-subj", f"/CN={end}", *request)
    signing = ("-CA", "ca-cert.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-days", "2")
    result = ("-in", f"{end}.csr", "-extfile", f"{end}.ext", "-out", f"{end}-cert.pem")
    _openssl(folder, "x509", "-req", *signing, *result)
