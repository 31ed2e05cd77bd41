"""Folders of reports, and of what hosts keep of themselves, read; what is poisoned is named."""

import json
import os
from dataclasses import asdict
from pathlib import Path

from armferry.fleet.importing import Reader
from armferry.hosts.fingerprints.fingerprint import dump
from armferry.hosts.libvirt.state_folder import GuestKind
from armferry.hosts.report import dump_report

from .hosts_of_atlas import KIND, MACHINE, QEMU, guest, recorded, report


def test_reports_in_folders_of_any_depth(tmp_path: Path) -> None:
    for name, kernel in (("a", "6.12"), ("b/c/d", "6.17")):
        (tmp_path / name).mkdir(parents=True)
        text = dump_report(report(name[-1], kernel, guests=(guest(f"g{name[-1]}"),)))
        (tmp_path / name / "report.json").write_text(text)
    (tmp_path / "notes.txt").write_text("not looked at")
    found = [*Reader().folder(tmp_path)]
    assert [one.head.host for one in found] == ["a", "d"]
    assert found[0] == report("a", "6.12", guests=(guest("ga"),))


def write_state(folder: Path, name: str, kernel: str) -> None:
    """As `armferry host fingerprint` leaves it on a host."""
    folder.mkdir(parents=True)
    found = recorded(f"{kernel}/neoverse-n1/qemu-10.0.13", MACHINE)
    (folder / "virt.json").write_text(dump(found))
    row = {
        "kind": asdict(GuestKind(MACHINE, "host", "kvm", QEMU)),
        "file": "virt.json",
        "kernel": found.provenance.kernel,
        "emulator": [1, 2],
    }
    index = {"format": "armferry-host", "version": 1, "name": name, "fingerprints": [row]}
    (folder / "index.json").write_text(json.dumps(index))


def test_the_folder_that_a_host_keeps_of_itself(tmp_path: Path) -> None:
    write_state(tmp_path / "copied" / "host", "h1", "6.12")
    write_state(tmp_path / "of-the-operator", "", "6.17")
    found = {one.head.host: one for one in Reader().folder(tmp_path)}
    assert found.keys() == {"h1", "of-the-operator"}
    assert found["h1"].kernel.startswith("6.12")
    assert [kind.guest for kind in found["h1"].kinds] == [KIND]
    assert found["h1"].qemus == ("10.0.13",)


def test_what_is_poisoned_is_refused_by_name_and_the_rest_read(tmp_path: Path) -> None:
    good = dump_report(report("good", "6.12"))
    (tmp_path / "good.json").write_text(good)
    (tmp_path / "cut.json").write_text(good[:1000])
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "other.json").write_text('{"format": "other"}')
    (tmp_path / "qemu.json").write_text(good.replace('"qemu": "10.0.13"', '"qemu": "tomorrow"'))
    write_state(tmp_path / "state", "h1", "6.12")
    (tmp_path / "state" / "virt.json").write_text("{}")
    (tmp_path / "loop").symlink_to(tmp_path / "nowhere")
    reader = Reader()
    assert [one.head.host for one in reader.folder(tmp_path)] == ["good"]
    refused = {Path(name).name: why for name, why in reader.refused.items()}
    assert refused.keys() == {"cut.json", "deep.json", "other.json", "qemu.json", "index.json"}
    assert refused["qemu.json"].startswith("'tomorrow' is no version of QEMU")
    assert "does not say" in refused["other.json"]


def test_a_file_of_an_index_does_not_lead_out_of_its_folder(tmp_path: Path) -> None:
    write_state(tmp_path / "x" / "host", "h1", "6.12")
    index = tmp_path / "x" / "host" / "index.json"
    (tmp_path / "virt.json").write_text("outside")
    index.write_text(index.read_text().replace('"virt.json"', '"../../virt.json"'))
    (one,) = Reader().folder(tmp_path / "x")  # the one beside the index
    assert len(one.kinds) == 1


def test_a_report_that_is_no_news_is_not_looked_into(tmp_path: Path) -> None:
    text = dump_report(report("a", "6.12", time=1000)).replace('"registers"', '"poison"')
    (tmp_path / "a.json").write_text(text)
    reader = Reader({"a": 1000})
    assert [*reader.folder(tmp_path)] == []
    assert (reader.passed, reader.refused) == (["a"], {})


def test_a_stream_of_one_document_or_one_in_each_line() -> None:
    one, other = (dump_report(report(name, "6.12")) for name in "ab")
    assert [found.head.host for found in Reader().stream(one.encode(), "in")] == ["a"]
    lines = "\n".join(json.dumps(json.loads(text)) for text in (one, other)) + "\n{\n"
    reader = Reader()
    assert [found.head.host for found in reader.stream(lines.encode(), "in")] == ["a", "b"]
    assert [*reader.refused] == ["in: line 3"]


def test_equal_fingerprints_become_one(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.json").write_text(dump_report(report(name, "6.12")))
    first, second = Reader().folder(tmp_path)
    assert first.kinds[0].fingerprint is second.kinds[0].fingerprint


def test_a_report_beside_the_index_tells_more(tmp_path: Path) -> None:
    write_state(tmp_path / "host", "h1", "6.12")
    text = dump_report(report("h1", "6.12", guests=(guest("g"),)))
    (tmp_path / "host" / "report.json").write_text(text)
    reader = Reader()
    (found,) = reader.folder(tmp_path)
    assert [one.id for one in found.guests] == ["g"]
    assert reader.refused == {}


def test_what_others_put_into_the_folder_stops_nothing(tmp_path: Path) -> None:
    """A pipe nobody writes to, a link to a device without end, an index that nests too deep."""
    (tmp_path / "a.json").write_text(dump_report(report("a", "6.12")))
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "endless.json").symlink_to("/dev/zero")
    for name, index in {"deep": "[" * 100_000, "list": "[]", "piped": None}.items():
        (tmp_path / name).mkdir()
        if index is None:
            os.mkfifo(tmp_path / name / "index.json")
        else:
            (tmp_path / name / "index.json").write_text(index)
    reader = Reader()
    assert [found.head.host for found in reader.folder(tmp_path)] == ["a"]
    said = {name.removeprefix(f"{tmp_path}/"): why for name, why in reader.refused.items()}
    assert said["pipe.json"] == said["endless.json"] == "no regular file"
    assert sorted(said) == [
        "deep/index.json", "endless.json", "list/index.json", "pipe.json", "piped/index.json",
    ]  # fmt: skip
