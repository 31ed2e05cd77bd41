"""What files say is shown, never obeyed by the terminal or by a shell."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from armferry.hosts.libvirt.domain import UnreadableDomain, read_domain
from armferry.hosts.qmp.messages import read_message
from armferry.printable import printable
from armferry.wrapper.beside import property_support

DATA = Path(__file__).parent.parent / "stream" / "data"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, \u00e4 and \u2026", "plain, \u00e4 and \u2026"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("a\rb\x08\x7f\x9b31m", r"a\x0db\x08\x7f\x9b31m"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        (os.fsdecode(b"name\xff"), r"name\xff"),
    ],
)
def test_a_terminal_obeys_nothing_of_it(text: str, shown: str) -> None:
    assert printable(text) == shown


def armferry(*words: str | bytes) -> "subprocess.CompletedProcess[bytes]":
    command: list[str | bytes] = [sys.executable, "-m", "armferry", *words]
    return subprocess.run(command, capture_output=True, check=False)


def test_escape_sequences_of_a_fingerprint(tmp_path: Path) -> None:
    made = armferry("fingerprint", "stream", str(saved(tmp_path)))
    document = json.loads(made.stdout)
    evil = "\x1b]0;owned\x07\x1b[31m"
    document["provenance"]["qemu"] = document["provenance"]["kernel"] = f"10.0{evil}"
    path = tmp_path / "evil.json"
    path.write_text(json.dumps(document))
    for words in (("inspect", str(path)), ("check", str(path), "--to", str(path))):
        done = armferry(*words)
        assert b"\x1b" not in done.stdout + done.stderr
        assert b"\x07" not in done.stdout + done.stderr
        assert done.returncode in (0, 1, 2, 3)


def test_name_of_a_file_that_is_no_text() -> None:
    done = armferry("inspect", b"/nowhere/\xff\x1b[31m")
    assert done.returncode in (3, 4)
    assert rb"/nowhere/\xff\x1b[31m" in done.stderr
    assert b"\x1b" not in done.stderr


def saved(folder: Path) -> Path:
    import lzma

    path = folder / "x;touch INJECTED;y"
    path.write_bytes(lzma.decompress((DATA / "suppress-vmdesc.mig.xz").read_bytes()))
    return path


def test_advice_does_what_it_says_and_nothing_else(tmp_path: Path) -> None:
    path = saved(tmp_path)
    done = armferry("inspect", str(path))
    (advice,) = [line for line in done.stdout.decode().splitlines() if line.startswith("next: ")]
    command = advice.removeprefix("next: ").replace("armferry ", "echo ").replace(" DEST", "")
    shell = subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert shell.stdout == f"check {path} --to\n"
    assert not (tmp_path / "INJECTED").exists()


DOMAIN = (
    '<domain type="kvm"><name>{name}</name><os><type arch="aarch64" machine="virt">hvm</type></os>'
    "<devices><emulator>/q</emulator></devices></domain>"
)
DEEP = "not the XML of a domain: more than 32 elements deep, or a name of more than 4096 letters"
ENTITIES = "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(9))


@pytest.mark.parametrize(
    ("xml", "why"),
    [
        (
            f'<!DOCTYPE d [<!ENTITY e0 "x">{ENTITIES}]>{DOMAIN.format(name="&e9;")}',
            "not the XML of a domain: it declares a document type",
        ),
        (DOMAIN.format(name="n" * 200_000), "its name is longer than 4096 letters"),
        (
            "<domain>" + "<a>" * 100_000,
            DEEP,
        ),
    ],
)
def test_xml_that_is_no_domains(xml: str, why: str) -> None:
    with pytest.raises(UnreadableDomain) as error:
        read_domain(xml)
    assert str(error.value) == why


@pytest.mark.parametrize("depth", [1_500, 100_000])
def test_monitor_message_of_brackets_alone(depth: int) -> None:
    message = read_message(b'{"a":' + b"[" * depth + b"]" * depth + b"}")
    assert message is None or depth < 2_000  # how deep a Python reads depends on its version


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff", b"0" * 64 + b"\n[]"])
def test_cache_file_that_is_damaged_is_a_miss(
    damage: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARMFERRY_CACHE", str(tmp_path))
    property_support.remember("properties", "key", '["a"]')
    assert property_support.cached("properties", "key") == '["a"]'
    (kept,) = (tmp_path / "wrapper").iterdir()
    kept.write_bytes(damage)
    assert property_support.cached("properties", "key") is None
    property_support.remember("properties", "key", '["b"]')
    assert property_support.cached("properties", "key") == '["b"]'
