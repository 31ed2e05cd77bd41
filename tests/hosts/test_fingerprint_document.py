"""A fingerprint as a value and as a document: one and the same."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armferry.errors import ArmferryError
from armferry.hosts.fingerprints.as_end import end_of
from armferry.hosts.fingerprints.fingerprint import (
    Fingerprint,
    FingerprintError,
    Provenance,
    Scope,
    dump,
    parse,
)
from armferry.hosts.fingerprints.host_record import HostRecord
from armferry.hosts.fingerprints.open_subject import open_subject
from armferry.hosts.fingerprints.probe import ProbeError, fingerprint_of_qemu, qemu_version
from armferry.hosts.qmp.process import MachineSpec, QemuProcessError
from armferry.lab.qemu_install import InstalledQemu
from armferry.registers import Accelerator
from armferry.stream.description import DeviceLayout, FieldLayout, StructLayout
from armferry.stream.events import Configuration, RamBlock

WORDS = st.integers(0, 2**64 - 1)
LISTS = st.dictionaries(WORDS, WORDS, min_size=1, max_size=5).map(lambda d: dict(sorted(d.items())))
TEXTS = st.text(max_size=8)
STRUCTS = st.recursive(
    st.builds(StructLayout, TEXTS, st.integers(0, 99), st.just(()), st.just(())),
    lambda inner: st.builds(
        StructLayout,
        TEXTS,
        st.integers(0, 99),
        st.lists(
            st.builds(
                FieldLayout,
                TEXTS,
                TEXTS,
                st.integers(0, 9),
                st.integers(0, 9),
                st.none() | inner,
            ),
            max_size=3,
        ).map(tuple),
        st.lists(inner, max_size=2).map(tuple),
    ),
    max_leaves=6,
)
DEVICES = st.tuples(TEXTS, st.integers(0, 9), STRUCTS).map(
    lambda parts: DeviceLayout(parts[0], parts[1], parts[2].version, parts[2])
)
BLOCKS = st.builds(RamBlock, TEXTS, st.integers(1, 2**64 - 1), st.none() | st.integers(1, 2**40))
CONFIGURATIONS = st.builds(
    Configuration,
    st.just(0),
    TEXTS,
    st.integers(1, 2**40),
    st.lists(TEXTS, max_size=2).map(tuple),
    st.just(()),
)
COUNTS = st.integers(1, 2**40)
SIZES = st.none() | st.lists(COUNTS, max_size=3, unique=True).map(sorted).map(tuple)
HOSTS = st.builds(
    HostRecord,
    st.none() | COUNTS,
    st.none() | COUNTS,
    SIZES,
    SIZES,
    SIZES,
    st.none() | st.booleans(),
    st.none() | st.dictionaries(WORDS, st.lists(st.integers(0, 99)).map(tuple), max_size=3),
)
FINGERPRINTS = st.builds(
    Fingerprint,
    st.builds(
        Provenance,
        st.sampled_from(["probe", "stream", "kvm", "atlas"]),
        *[TEXTS] * 2,
        st.sampled_from([None, *Accelerator]),
        *[TEXTS] * 4,
        scope=st.sampled_from(Scope),
        more=st.dictionaries(st.text(min_size=9, max_size=12), TEXTS, max_size=2),
    ),
    st.lists(LISTS, min_size=1, max_size=3).map(tuple),
    st.booleans(),
    devices=st.lists(DEVICES, max_size=3).map(tuple),
    writable=st.none() | LISTS,
    hardware=st.none() | LISTS,
    capabilities=st.dictionaries(TEXTS, st.integers(0, 99), max_size=3),
    memory=st.none() | st.lists(BLOCKS, max_size=3).map(tuple),
    configuration=st.none() | CONFIGURATIONS,
    host=HOSTS,
)


@given(FINGERPRINTS)
def test_document_and_value_are_the_same(fingerprint: Fingerprint) -> None:
    assert parse(dump(fingerprint).encode(), "here") == fingerprint


@given(FINGERPRINTS, st.data())
def test_cut_document_is_refused(fingerprint: Fingerprint, data: st.DataObject) -> None:
    document = dump(fingerprint).encode()
    cut = data.draw(st.integers(0, len(document) - 2))
    with pytest.raises(FingerprintError) as told:
        parse(document[:cut], "here")
    assert str(told.value).startswith("here: not a fingerprint: it is not ")


@given(FINGERPRINTS, st.data())
def test_any_other_value_is_read_or_refused_by_name(
    fingerprint: Fingerprint, data: st.DataObject
) -> None:
    document = json.loads(dump(fingerprint))
    key = data.draw(st.sampled_from(sorted(document)))
    document[key] = data.draw(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text()
        | st.lists(st.integers() | st.text() | st.lists(st.none()), max_size=3)
        | st.dictionaries(st.text(), st.none() | st.text() | st.integers(), max_size=3)
    )
    try:
        parse(json.dumps(document).encode(), "here")
    except FingerprintError as told:
        assert str(told).startswith("here: ")  # noqa: PT017 - most values are refused, not all


def test_vcpu_that_was_not_recorded_is_like_the_first() -> None:
    fingerprint = Fingerprint(
        Provenance("probe", accelerator=Accelerator.TCG), ({1: 10}, {1: 11}), at_reset=True
    )
    lists = [destination.registers for destination in end_of(fingerprint).destinations(4)]
    assert lists == [{1: 10}, {1: 11}, {1: 10}, {1: 10}]
    assert [one.same_vcpus for one in end_of(fingerprint).destinations(2)] == [True, True]
    assert not any(one.same_vcpus for one in end_of(fingerprint).destinations(3))


@pytest.mark.qemu
def test_probe_leaves_nothing_and_names_what_fails(
    qemu_release: Callable[[str], InstalledQemu],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    qemu = qemu_release("trixie").launcher
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = fingerprint_of_qemu(qemu, MachineSpec(machine="virt-10.0", smp=2))
    assert len(found.cpus) == 2
    assert found.at_reset
    assert (found.provenance.how, found.provenance.qemu) == ("probe", qemu_version(qemu).version)
    assert found.provenance.kernel == ""
    for spec in (MachineSpec(machine="virt-1.0"), MachineSpec(cpu="none-such"), MachineSpec(smp=0)):
        with pytest.raises(QemuProcessError) as told:
            fingerprint_of_qemu(qemu, spec)
        assert str(told.value).startswith("QEMU did not start (exit status 1); QEMU said:\n")
    assert list(tmp_path.iterdir()) == []


def test_qemu_that_never_answers(tmp_path: Path) -> None:
    program, pids = tmp_path / "qemu", tmp_path / "pids"
    program.write_text(
        "#!/bin/sh\n"
        '[ "$1" = --version ] && { echo QEMU emulator version 10.0.13; exit; }\n'
        f"echo $$ >> {pids}; echo still thinking >&2; exec sleep 600\n"
    )
    program.chmod(0o755)
    with pytest.raises(QemuProcessError) as told:
        fingerprint_of_qemu(program, MachineSpec(), time_limit=0.5)
    assert str(told.value).startswith(
        "QEMU did not answer in 0.5 s; QEMU said:\n    still thinking\n"
        f"  It was: {program} -nodefaults "
    )
    for pid in map(int, pids.read_text().split()):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_program_that_is_no_qemu(tmp_path: Path) -> None:
    program = tmp_path / "qemu"
    program.write_text("#!/bin/sh\necho hello\n")
    program.chmod(0o755)
    with pytest.raises(ProbeError) as told:
        qemu_version(program)
    assert str(told.value) == f"{program} is no QEMU: --version says 'hello\\n'"
    program.write_text("#!/bin/sh\necho broken >&2\nexit 7\n")
    with pytest.raises(ProbeError) as told:
        qemu_version(program)
    assert str(told.value) == f"{program} --version ended with 7: broken"
    program.chmod(0o644)
    with pytest.raises(ProbeError) as told:
        qemu_version(program)
    assert str(told.value) == f"{program}: cannot be run: Permission denied"
    assert told.value.exit_code == 4


def test_save_image_of_libvirt_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"LibvirtQemudSave" + bytes(10))
    with pytest.raises(ArmferryError) as told:
        open_subject(str(path))
    assert str(path) in str(told.value)
