"""What comes before any section, in a fingerprint: the memory blocks and the configuration."""

import json
import lzma
from pathlib import Path

import pytest

from armferry.hosts.fingerprints.fingerprint import Scope, dump, parse
from armferry.hosts.fingerprints.open_subject import open_subject
from armferry.stream.events import Configuration, RamBlock

DATA = Path(__file__).parents[1] / "stream" / "data"
FLASH = 64 << 20


def recorded(path: Path, tmp_path: Path) -> Path:
    target = tmp_path / path.stem
    target.write_bytes(lzma.decompress(path.read_bytes()))
    return target


def test_a_stream_tells_its_blocks_in_order(tmp_path: Path) -> None:
    stream = next(iter(sorted(DATA.glob("kvm_6.12_*.xz"))))
    found = open_subject(str(recorded(stream, tmp_path))).fingerprint
    assert found.memory == (
        RamBlock("mach-virt.ram", 64 << 20),
        RamBlock("virt.flash0", FLASH),
        RamBlock("virt.flash1", FLASH),
        RamBlock("/rom@etc/acpi/tables", 128 << 10),
        RamBlock("/rom@etc/table-loader", 4096),
        RamBlock("pvtime", 4096),
        RamBlock("/rom@etc/acpi/rsdp", 4096),
    )
    assert found.configuration == Configuration(0, "virt-10.0", 4096, (), ())
    assert found.provenance.scope is Scope.GUEST
    assert parse(dump(found).encode(), "here") == found


@pytest.mark.parametrize(("how", "scope"), [("stream", Scope.GUEST), ("probe", Scope.KIND)])
def test_document_from_before_there_were_any(how: str, scope: Scope, tmp_path: Path) -> None:
    stream = next(iter(sorted(DATA.glob("kvm_6.12_*.xz"))))
    old = json.loads(dump(open_subject(str(recorded(stream, tmp_path))).fingerprint))
    del old["memory"], old["configuration"], old["provenance"]["scope"]
    old["provenance"]["how"] = how
    read = parse(json.dumps(old).encode(), "here")
    assert read.memory is None
    assert read.configuration is None
    assert read.provenance.scope is scope


def test_keys_of_a_newer_armferry_are_kept(tmp_path: Path) -> None:
    stream = next(iter(sorted(DATA.glob("kvm_6.12_*.xz"))))
    new = json.loads(dump(open_subject(str(recorded(stream, tmp_path))).fingerprint))
    new["provenance"]["firmware"] = {"vendor": "somebody", "since": [1, 2]}
    read = parse(json.dumps(new).encode(), "here")
    assert read.provenance.more == {"firmware": {"vendor": "somebody", "since": [1, 2]}}
    assert json.loads(dump(read)) == new


@pytest.mark.parametrize("stream", sorted(DATA.glob("*.xz")), ids=lambda path: path.name)
def test_every_kind_of_stream_tells_them(stream: Path, tmp_path: Path) -> None:
    found = open_subject(str(recorded(stream, tmp_path))).fingerprint
    assert found.memory is not None
    assert {"virt.flash0", "virt.flash1"} < {block.name for block in found.memory}
    assert found.configuration is not None
    assert found.configuration.machine == found.provenance.machine
    assert all(block.pages_offset is None for block in found.memory)
    assert parse(dump(found).encode(), "here") == found
