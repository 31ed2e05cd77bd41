"""Every JSON document against its schema in docs/schemas, real output and nothing else.

The schemas allow keys that a newer armferry adds; a key that no schema names fails here.
"""

import json
import lzma
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from armferry.cli.main import main
from armferry.hosts.fingerprints.atlas import read_atlas
from armferry.hosts.fingerprints.fingerprint import dump

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT / "docs" / "schemas"
DATA = ROOT / "tests" / "stream" / "data"
OLDER, NEWER = "atlas:6.12/neoverse-n1", "atlas:6.17/neoverse-n1"
KVM = "guest.state"

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def schema(name: str) -> dict[str, Any]:
    """The schema of a document."""
    loaded: dict[str, Any] = json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


def faults(value: Any, told: dict[str, Any], whole: dict[str, Any], at: str = "") -> Iterator[str]:
    """Where a value is not as its schema says; of JSON Schema what the files use, and no more."""
    known = {"$schema", "$defs", "$ref", "title", "type", "properties", "required", "items"}
    known |= {"enum", "const", "pattern", "anyOf", "additionalProperties", "minItems", "maxItems"}
    assert told.keys() <= known, told.keys() - known
    if "$ref" in told:
        yield from faults(value, whole["$defs"][told["$ref"].removeprefix("#/$defs/")], whole, at)
        return
    if "anyOf" in told and all(list(faults(value, one, whole, at)) for one in told["anyOf"]):
        yield f"{at}: {value!r} fits nothing"
    if "enum" in told and value not in told["enum"]:
        yield f"{at}: {value!r} is none of {told['enum']}"
    if "const" in told and value != told["const"]:
        yield f"{at}: {value!r} is not {told['const']!r}"
    if "type" in told:
        names = told["type"] if isinstance(told["type"], list) else [told["type"]]
        fitting = tuple(kind for name in names for kind in TYPES[name])
        if not isinstance(value, fitting) or (isinstance(value, bool) and bool not in fitting):
            yield f"{at}: {value!r} is no {told['type']}"
            return
    if isinstance(value, str) and "pattern" in told and not re.search(told["pattern"], value):
        yield f"{at}: {value!r} is not like {told['pattern']}"
    if isinstance(value, list):
        if not told.get("minItems", 0) <= len(value) <= told.get("maxItems", len(value)):
            yield f"{at}: {len(value)} items"
        for number, one in enumerate(value):
            yield from faults(one, told.get("items", {}), whole, f"{at}[{number}]")
    if isinstance(value, dict):
        yield from (f"{at}: no {key}" for key in told.get("required", ()) if key not in value)
        for key, one in value.items():
            part = told.get("properties", {}).get(key, told.get("additionalProperties"))
            if part is None:
                if "properties" in told:
                    yield f"{at}: {key} is told of nowhere"
            elif part is not True:
                yield from faults(one, part, whole, f"{at}.{key}")


def hold(document: Any, name: str) -> None:
    """The document is as its schema says."""
    told = schema(name)
    assert list(faults(document, told, told)) == []


@pytest.fixture
def said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    """From a command's words to the document it prints, run where `guest.state` is."""
    monkeypatch.chdir(tmp_path)
    recorded = (DATA / "kvm_6.12_neoverse-n1_10.0.13.mig.xz").read_bytes()
    (tmp_path / KVM).write_bytes(lzma.decompress(recorded))
    (tmp_path / "newer.json").write_text(dump(read_atlas().find(NEWER).fingerprint))

    def run(*words: str) -> Any:
        main([*words, "--json"])
        return json.loads(capsys.readouterr().out)

    return run


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("check", ("check", KVM, "--to", NEWER, "--destination-qemu", "10.0.13")),
        ("check", ("check", KVM, "--to", NEWER, "--no-builtin")),
        ("check", ("check", NEWER, "--to", OLDER)),
        ("check", ("check", KVM, "--to", "atlas:6.12/neoverse-v1")),
        ("ferry", ("ferry", KVM, "out", "--to", NEWER)),
        ("ferry", ("ferry", KVM, "out", "--to", NEWER, "--no-builtin")),
        ("ferry-settled", ("ferry", KVM, "--undo")),
        ("plan", ("plan", NEWER, "--to", OLDER, "--both-ways")),
        ("plan", ("plan", KVM, "--to", NEWER)),
        ("inspect", ("inspect", KVM)),
        ("inspect", ("inspect", OLDER)),
        ("diff", ("diff", KVM, NEWER)),
        ("fingerprint-written", ("fingerprint", "stream", KVM, "-o", "made.json")),
        ("baseline", ("baseline", OLDER, "atlas:7.3/neoverse-n1")),
        ("baseline", ("baseline", OLDER, "atlas:6.12/neoverse-v1")),
        ("host-check", ("host", "check", "--state", "state")),
        ("host-fingerprint", ("host", "fingerprint", "--state", "state")),
        ("atlas-list", ("atlas", "list")),
        ("atlas-show", ("atlas", "show", OLDER)),
        ("atlas-why", ("atlas", "why", "TCR2_EL1")),
        ("atlas-why", ("atlas", "why", "DBGDTRTX")),
        ("explain", ("explain", "Could not set register fw reg 0 to 10003 (is 10001)")),
        ("lab-qemu-list", ("lab", "qemu", "list")),
    ],
    ids=lambda one: one if isinstance(one, str) else " ".join(one),
)
def test_document_of_a_command(name: str, words: tuple[str, ...], said: Callable[..., Any]) -> None:
    hold(said(*words), name)


def test_fingerprints(said: Callable[..., Any], tmp_path: Path) -> None:
    said("fingerprint", "stream", KVM, "-o", "made.json")
    for file in ("made.json", "newer.json"):
        hold(json.loads((tmp_path / file).read_text()), "fingerprint")


def test_trace_lines(said: Callable[..., Any], tmp_path: Path) -> None:
    said("check", KVM, "--to", NEWER, "--trace", "trace")
    lines = (tmp_path / "trace").read_text().splitlines()
    assert lines
    for line in lines:
        hold(json.loads(line), "trace")


def test_hook(said: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "guest.xml").write_text("<domain/>")
    assert main(["hook", "install", "--hooks", "hooks"]) == 0
    tested = [sys.executable, "-m", "armferry", "hook", "test", "guest.xml", "--hooks", "hooks"]
    done = subprocess.run([*tested, "--json"], cwd=tmp_path, capture_output=True, check=True)
    hold(json.loads(done.stdout), "hook-test")


@pytest.mark.usefixtures("said")
def test_moves_through_the_gateway(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "armferry", "gateway", "--to", "newer.json", "--json"]
    ends = ["--listen", f"exec:cat {KVM}", "--connect", "exec:cat > out"]
    done = subprocess.run([*command, *ends], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode in (0, 2), done.stderr
    hold(json.loads(done.stdout), "gateway")


def test_every_schema_is_held_by_something() -> None:
    tests = (Path(__file__), Path(__file__).with_name("test_snapshot_commands.py"))
    here = "".join(one.read_text(encoding="utf-8") for one in tests)
    for file in SCHEMAS.glob("*.json"):
        assert f'"{file.stem}"' in here, file
        assert f"schemas/{file.name}" in (ROOT / "docs" / "json.md").read_text(encoding="utf-8")
