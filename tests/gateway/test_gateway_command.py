"""`armferry gateway` as a person types it, without QEMU."""

import json
import lzma
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from armferry.hosts.fingerprints.fingerprint import Fingerprint, dump

OLD = "tcg_10.0.2_virt-10.0_cortex-a57_1"
NEW = "tcg_11.1.3_virt-10.0_cortex-a57_1"
DATA = Path(__file__).parent.parent / "stream" / "data"


@pytest.fixture
def hosts(
    tmp_path: Path,
    recorded: Callable[[str], bytes],
    host_of: Callable[[bytes], Fingerprint],
) -> Path:
    """A folder with a stream of the old release and fingerprints of both."""
    (tmp_path / "stream").write_bytes(lzma.decompress((DATA / f"{OLD}.mig.xz").read_bytes()))
    for name, recording in (("old", OLD), ("new", NEW)):
        (tmp_path / name).write_text(dump(host_of(recorded(recording))))
    return tmp_path


def gateway(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "armferry", "gateway", *words],
        capture_output=True,
        text=True,
        timeout=60,
    )


def through(hosts: Path, *words: str) -> subprocess.CompletedProcess[str]:
    ends = (f"--listen=exec:cat {hosts}/stream", f"--connect=exec:cat > {hosts}/out")
    return gateway(*ends, *words)


def test_move_that_nothing_stands_in_the_way_of(hosts: Path) -> None:
    done = through(hosts, "--to", f"{hosts}/old", "--json", "--log", f"{hosts}/log")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["version"], told["outcome"]) == (1, "delivered")
    assert told["verdict"]["verdict"] == "works"
    assert (hosts / "out").read_bytes() == (hosts / "stream").read_bytes()
    events = [json.loads(line)["event"] for line in (hosts / "log").read_text().splitlines()]
    assert events == ["listening", "began", "decided", "ended"]


def test_refusal_is_told_and_returned(hosts: Path) -> None:
    done = through(hosts, "--to", f"{hosts}/new")
    assert done.returncode == 2
    assert done.stdout == (
        "move 1 (precopy, 1 channel): refused: ID_AA64ISAR0_EL1: the "
        "destination does not know it and no rule allows dropping it; the guest never ran "
        "(vCPU 0)\n"
        "the destination never had the guest's state. The source holds it, but without return-path "
        "its QEMU believes that the move is complete and has stopped it: `cont` there (QMP: "
        '{"execute": "cont"}) runs it on\n'
    )


def test_connection_that_is_no_migration_is_told(hosts: Path) -> None:
    done = gateway(
        "--listen=exec:echo hello", f"--connect=exec:cat > {hosts}/out", "--to", f"{hosts}/old"
    )
    assert done.returncode == 4
    assert done.stderr.endswith(
        "\nturned away: exec:echo hello: the connection is no QEMU migration stream\n"
    )
    assert not (hosts / "out").exists()


def test_policy_options_make_it_work(hosts: Path) -> None:
    allowed = ("--safe-missing-regs", "ID_AA64ISAR0_EL1")
    done = through(hosts, "--to", f"{hosts}/new", *allowed, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["verdict"]["verdict"] == "works-with-policy"
    assert (hosts / "out").read_bytes() != (hosts / "stream").read_bytes()


IMPOSSIBLE = {
    "--listen=tcp:0.0.0.0:0 --connect=unix:/x --to=old": (
        "tcp:0.0.0.0:0: guest memory would travel here unencrypted and anybody could connect; "
        "give TLS credentials (--tls-listen), listen on 127.0.0.1 or a UNIX socket, or allow it "
        "with --allow-plain"
    ),
    "--listen=unix:a --listen=unix:b --connect=unix:/x --to=old": (
        "--listen was given 2 times, --connect 1 and --to 1 times; give each --listen its own "
        "--connect"
    ),
    "--listen=rdma:a:1 --connect=unix:/x --to=old": (
        "'rdma:a:1': RDMA writes guest memory past any gateway; migrate over tcp: or unix:"
    ),
    "--listen=unix:a --connect=unix:/x --to=old --tls-listen=nowhere": (
        "nowhere/ca-cert.pem: missing; the folder must hold ca-cert.pem, server-cert.pem and "
        "server-key.pem, as for QEMU's tls-creds-x509"
    ),
}


@pytest.mark.parametrize("words", IMPOSSIBLE)
def test_what_cannot_be_honoured_is_refused_at_once(
    words: str, hosts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(hosts)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent.parent))
    done = gateway(*words.split())
    assert (done.returncode, done.stderr) == (3, f"armferry: {IMPOSSIBLE[words]}\n")
