"""The JSON of each command has the keys that docs/json.md says, no more and no fewer."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from armferry.hosts.files.journal import Journal, write_journal
from armferry.lab.releases import RELEASES

pytestmark = pytest.mark.qemu

DOCS = Path(__file__).parents[2] / "docs" / "json.md"


def _documented(heading: str) -> set[str]:
    """Keys in the table under a heading."""
    part = DOCS.read_text().split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return set(re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE))


def _inner(heading: str, key: str) -> set[str]:
    """Names in backticks in the row of `key`."""
    part = DOCS.read_text().split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    row = re.search(rf"^\| `{key}` \| (.*) \|$", part, re.MULTILINE)
    assert row is not None
    return set(re.findall(r"`(\w+)`", row[1]))


@pytest.fixture
def here(fresh_state: Callable[..., Path]) -> Path:
    """A saved state of QEMU 10.0.2."""
    return fresh_state("bookworm-backports")


@pytest.fixture
def there(fresh_state: Callable[..., Path]) -> Path:
    """A saved state of QEMU 10.0.13."""
    return fresh_state("trixie")


def _json(ran: Any, code: int) -> dict[str, Any]:
    assert (ran.code, ran.err) == (code, "")
    document: dict[str, Any] = json.loads(ran.out)
    return document


def test_inspect(here: Path, armferry: Any) -> None:
    document = _json(armferry("inspect", here, "--json"), 0)
    assert set(document) == _documented("inspect")
    assert document["schema"] == 1
    assert set(document["sections"][0]) == _inner("inspect", "sections")
    assert set(document["memory"][0]) == _inner("inspect", "memory")
    register = document["cpus"][0]["registers"][0]
    assert {"registers", *register} == _inner("inspect", "cpus")
    assert re.fullmatch("0x[0-9a-f]{16}", register["index"])


def test_diff(here: Path, there: Path, armferry: Any) -> None:
    document = _json(armferry("diff", here, there, "--json"), 0)
    assert set(document) == _documented("diff")
    assert set(document["a"]) == set(document["b"]) == _inner("diff", "a")
    assert set(document["differences"][0]) == _inner("diff", "differences")
    assert [one["name"] for one in document["differences"]] == [
        "DBGDTRTXINT",
        "DBGDTRTX",
        "DBGDTR_EL0",
    ]


def test_check_ferry_and_trace(here: Path, there: Path, tmp_path: Path, armferry: Any) -> None:
    document = _json(armferry("check", here, "--to", there, "--json", "--trace", "trace"), 1)
    assert set(document) == _documented("check and ferry")
    assert set(document["stock"]) == _inner("check and ferry", "stock") - {
        "works",
        "fails",
        "unknown",
    }
    register = document["registers"][0]
    assert set(register) == _inner("check and ferry", "registers")
    origin = document["registers"][1]["origin"][0]
    assert set(origin) == {"source", "where", "reason"}
    lines = [json.loads(line) for line in (tmp_path / "trace").read_text().splitlines()]
    assert lines == [{"event": "register", **one} for one in document["registers"]]

    ferried = _json(armferry("ferry", here, "out", "--to", there, "--json"), 0)
    assert ferried == {**document, "written": "out", "left_out": []}
    again = _json(armferry("check", "out", "--to", there, "--json"), 0)
    assert (again["verdict"], again["registers"]) == ("works", [])
    refused = _json(armferry("ferry", here, "no", "--to", there, "--no-builtin", "--json"), 2)
    assert refused["written"] is None
    assert not (tmp_path / "no").exists()


def test_document_goes_to_standard_error_beside_a_stream(
    here: Path, there: Path, armferry: Any
) -> None:
    done = armferry("ferry", here, "-", "--to", there, "--json")
    assert done.code == 0
    assert json.loads(done.err)["written"] == "-"
    assert done.out.startswith("QEVM")
    refused = armferry("ferry", here, "-", "--to", there, "--no-builtin")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == (
        f"armferry: refused: DBGDTRTX; see armferry check {here} --to {there} --no-builtin\n"
    )


def test_fingerprint(here: Path, tmp_path: Path, armferry: Any) -> None:
    document = _json(armferry("fingerprint", "stream", here), 0)
    assert set(document) == _documented("fingerprint")
    words = {"probe", "stream", "kvm", "atlas", "firecracker", "list", "guest", "kind"}
    assert {*document["provenance"], *words} == (_inner("fingerprint", "provenance") | {"how"})
    assert set(document["devices"][0]) == _inner("fingerprint", "devices")
    (tmp_path / "one").write_text(json.dumps(document))
    # a fingerprint of a fingerprint is the same document
    assert _json(armferry("fingerprint", "stream", "one"), 0) == document
    assert _json(armferry("check", here, "--to", "one", "--json"), 0)["verdict"] == "works"


def test_fingerprint_that_is_written(here: Path, armferry: Any) -> None:
    document = _json(armferry("fingerprint", "stream", here, "-o", "one", "--json"), 0)
    assert set(document) == _documented("fingerprint -o")
    assert (document["written"], document["machine"], document["vcpus"]) == ("one", "virt-10.0", 1)
    shown = _json(armferry("inspect", "one", "--json"), 0)
    assert document["registers"] == len(shown["cpus"][0]["registers"])
    # without -o it is the document, with the option or without
    assert _json(armferry("fingerprint", "stream", here, "--json"), 0) == _json(
        armferry("fingerprint", "stream", here), 0
    )


def test_interrupted_rewrite_that_is_settled(here: Path, tmp_path: Path, armferry: Any) -> None:
    guest = tmp_path / "guest"
    state = here.read_bytes()
    guest.write_bytes(state)
    document = _json(armferry("ferry", "guest", "--undo", "--json"), 0)
    assert set(document) == _documented("ferry --undo and --finish")
    assert (document["file"], document["settled"]) == ("guest", None)
    for option, settled, end in (
        ("--undo", "undone", b"end"),
        ("--finish", "finished", b"new end"),
    ):
        guest.write_bytes(state + b"end")
        write_journal(guest, Journal.of_end(len(state), b"end", b"new end"))
        refused = armferry("inspect", "guest")
        assert (refused.code, refused.out) == (3, "")
        assert _json(armferry("ferry", "guest", option, "--json"), 0)["settled"] == settled
        assert guest.read_bytes() == state + end


def test_lab_list(armferry: Any) -> None:
    document = _json(armferry("lab", "qemu", "list", "--json"), 0)
    assert set(document) == _documented("lab qemu list")
    assert set(document["releases"][0]) == _inner("lab qemu list", "releases")
    assert [one["suite"] for one in document["releases"]] == [one.suite for one in RELEASES]


def test_host_and_hook(tmp_path: Path, armferry: Any) -> None:
    checked = armferry("host", "check", "--state", "state", "--json")
    assert checked.code in (0, 4)
    document = json.loads(checked.out)
    assert set(document) == _documented("host check")
    states = {"ok", "warning", "missing"}
    assert set(document["findings"][0]) == _inner("host check", "findings") - states

    document = _json(armferry("host", "fingerprint", "--state", "state", "--json"), 0)
    assert set(document) == _documented("host fingerprint")

    (tmp_path / "guest.xml").write_text("<domain/>")
    assert armferry("hook", "install", "--hooks", "hooks").code == 0
    document = _json(armferry("hook", "test", "guest.xml", "--hooks", "hooks", "--json"), 0)
    assert set(document) == _documented("hook test")
    assert (document["stopped"], document["moves"], document["said"]) == (False, "stock", "")


def test_baseline(tmp_path: Path, armferry: Any) -> None:
    hosts = ("atlas:6.12/neoverse-n1", "atlas:7.3/neoverse-n1")
    document = _json(armferry("baseline", *hosts, "--json"), 0)
    assert set(document) == _documented("baseline")
    assert {*document["hosts"][0], *document["hosts"][1]["changed"][0]} == _inner(
        "baseline", "hosts"
    )
    impossible = _json(armferry("baseline", hosts[0], "atlas:6.12/neoverse-v1", "--json"), 2)
    assert set(impossible["impossible"][0]) == _inner("baseline", "impossible")


def test_baseline_is_written_for_each_host(tmp_path: Path, armferry: Any) -> None:
    hosts = ("atlas:6.12/neoverse-n1", "atlas:7.3/neoverse-n1")
    assert armferry("baseline", *hosts, "-o", "made").code == 0
    made = tmp_path / "made"
    assert sorted(path.name for path in made.iterdir()) == [
        "atlas-6.12-neoverse-n1.args",
        "atlas-7.3-neoverse-n1.args",
        "baseline.json",
        "baseline.toml",
        "baseline.xml",
    ]
    words = "armferry-qemu -accel kvm -cpu host,x-armferry-as=made/baseline.json\n"
    assert (made / "atlas-7.3-neoverse-n1.args").read_text() == words
    shown = json.loads(armferry("inspect", "made/baseline.json", "--json").out)
    assert shown["kernel"].startswith("6.12")
    checked = armferry(
        "check", hosts[0], "--to", "made/baseline.json", "--policy", "made/baseline.toml"
    )
    assert checked.code in (0, 1), checked.out
