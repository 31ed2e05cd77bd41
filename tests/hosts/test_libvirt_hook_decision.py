"""The hook's decisions without a libvirt: what it is told, what is stored, what it answers."""

import io
import json
import lzma
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from armferry.cli.main import main as program
from armferry.hosts.files.journal import Journal, journal_path, write_journal
from armferry.hosts.fingerprints.fingerprint import Fingerprint, Provenance
from armferry.hosts.fingerprints.open_subject import open_subject
from armferry.hosts.libvirt import hook, hook_install
from armferry.hosts.libvirt.domain import UnreadableDomain, read_domain
from armferry.hosts.libvirt.hook import decide, main
from armferry.hosts.libvirt.hook_install import (
    ForeignHook,
    hook_path,
    install,
    installed_carrier,
    remove,
)
from armferry.hosts.libvirt.hook_table import write_table
from armferry.hosts.libvirt.state_folder import (
    DomainKinds,
    GuestKind,
    StateFault,
    kinds_of_domains,
    kinds_of_hosts,
    other_hosts,
    store,
    stored,
)
from armferry.lab.libvirt_host import Domain
from armferry.registers import Accelerator
from armferry.stream.cpu import CPU_SECTION
from armferry.stream.save_image import (
    HEADER_BYTES,
    IMAGE_MAGIC_BYTES,
    Compression,
    SaveImageHeader,
)
from armferry.stream.wire import SectionType

MACHINE = "virt-10.0,gic-version=2"
TCR_EL1, MIDR_EL1 = 0x603000000013C102, 0x603000000013C000
ID_AA64PFR0_EL1 = 0x603000000013C020
DBGDTRTX = 0x40200000200E0298
LIST = {MIDR_EL1: 0x411FD070, TCR_EL1: 0}


def _fingerprint(registers: Mapping[int, int], qemu: str) -> Fingerprint:
    about = Provenance(
        how="probe",
        machine="virt-10.0",
        cpu="cortex-a57",
        accelerator=Accelerator.TCG,
        qemu=qemu,
    )
    return Fingerprint(about, (dict(sorted(registers.items())),), at_reset=True)


@pytest.fixture
def emulator(tmp_path: Path) -> Path:
    path = tmp_path / "qemu-system-aarch64"
    path.write_bytes(b"a QEMU")
    return path


@pytest.fixture
def state(tmp_path: Path, emulator: Path) -> Path:
    """This host has QEMU 10.0.13 and no DBGDTRTX; `alpha` has it, with 10.0.2."""
    folder = tmp_path / "state"
    kind = GuestKind(MACHINE, "cortex-a57", "tcg", str(emulator))
    store(folder, kind, _fingerprint(LIST, "10.0.13"), before=())
    _other(folder, "alpha", {**LIST, DBGDTRTX: 0})
    return folder


def _other(state: Path, name: str, registers: Mapping[int, int]) -> None:
    theirs = state.parent / name
    kind = GuestKind(MACHINE, "cortex-a57", "tcg", "/bin/sh")
    store(theirs, kind, _fingerprint(registers, "10.0.2"), before=())
    (state / "hosts").mkdir(exist_ok=True)
    (theirs / "host").rename(state / "hosts" / name)
    write_table(state)


@pytest.fixture
def answer(
    state: Path, emulator: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> "Answer":
    return Answer(state, emulator, monkeypatch, capsys)


class Answer:
    """Calls the hook as libvirt does: its exit status and what it says."""

    def __init__(
        self,
        state: Path,
        emulator: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        self.state, self.domain = state, Domain(emulator=str(emulator))
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(
        self, operation: str, domain: Domain | None = None, *, ferried: bool = False
    ) -> tuple[int, str]:
        xml = (domain or self.domain).xml
        self._monkeypatch.setattr(sys, "stdin", io.StringIO(xml))
        status = main(
            ["carried", operation, "begin", "-"],
            "ferried" if ferried else "stock",
            str(self.state),
        )
        return status, self._capsys.readouterr().err


REFUSAL = (
    "armferry: carried cannot come here from alpha: QEMU 10.0.13 would refuse registers DBGDTRTX; "
    "armferry can carry it: armferry ferry for an image, armferry gateway live\n"
)


def test_migration_from_the_only_known_host(answer: Answer) -> None:
    assert answer("migrate") == (1, REFUSAL)


def test_one_host_that_could_send_it_is_enough(answer: Answer) -> None:
    _other(answer.state, "beta", LIST)
    assert answer("migrate") == (0, "")


@pytest.mark.parametrize("operation", ["prepare", "start", "started", "reconnect", "no-such"])
def test_other_operations_are_none_of_its_business(operation: str, answer: Answer) -> None:
    (answer.state / "hook.json").write_text("not even looked at")
    assert answer(operation) == (0, "")


def test_what_no_rule_allows_names_the_whole_command(answer: Answer) -> None:
    _other(answer.state, "alpha2", {**LIST, ID_AA64PFR0_EL1: 0x11})
    shutil.rmtree(answer.state / "hosts" / "alpha")
    status, said = answer("migrate", ferried=True)
    assert status == 1
    file = "virt-10.0-cortex-a57-tcg.json"
    assert said == (
        "armferry: carried cannot come here from alpha2: no rule of the policy allows "
        f"ID_AA64PFR0_EL1; see: armferry check {answer.state}/hosts/alpha2/{file} --to "
        f"{answer.state}/host/{file}\n"
    )


def test_other_guests_are_not_judged(answer: Answer) -> None:
    assert answer("migrate", replace(answer.domain, cpu="max")) == (0, "")
    assert answer("migrate", replace(answer.domain, machine="virt-9.2")) == (0, "")
    assert answer("migrate", replace(answer.domain, emulator="/bin/sh")) == (0, "")


def test_nothing_stored_is_no_opinion(answer: Answer) -> None:
    (answer.state / "hook.json").unlink()
    assert answer("migrate") == (0, "")


def test_a_new_qemu_ends_the_old_answers(answer: Answer) -> None:
    Path(answer.domain.emulator).write_bytes(b"another QEMU")
    assert answer("migrate") == (
        0,
        (
            "armferry: hook: not decided: kernel or QEMU are not those that were fingerprinted; "
            "run armferry host fingerprint\n"
        ),
    )


def test_a_broken_table_stops_nothing(answer: Answer) -> None:
    (answer.state / "hook.json").write_text('{"format": "armferry-hook", "version": 2}')
    assert answer("migrate") == (0, "armferry: hook: not decided: KeyError('guests')\n")
    (answer.state / "hook.json").write_text("{}")
    assert answer("migrate") == (
        0,
        "armferry: hook: not decided: run armferry host fingerprint\n",
    )


def test_ferried_moves_are_judged_by_what_armferry_can_do(answer: Answer) -> None:
    assert answer("migrate", ferried=True) == (0, "")
    table = json.loads((answer.state / "hook.json").read_text())
    (here,) = table["guests"][f"{MACHINE} cortex-a57 tcg"].values()
    here["answers"][here["hosts"]["alpha"]]["ferried"] = (
        "no rule of the policy allows X; see armferry check"
    )
    (answer.state / "hook.json").write_text(json.dumps(table))
    status, said = answer("migrate", ferried=True)
    assert status == 1
    assert said == (
        "armferry: carried cannot come here from alpha: no rule of the policy allows X; see "
        "armferry check\n"
    )


STREAMS = Path(__file__).parent.parent / "stream" / "data"


@pytest.fixture
def image(answer: Answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A save image of QEMU 10.0.2's, open in what the hook takes for libvirtd: this process."""
    stream = lzma.decompress((STREAMS / "tcg_10.0.2_virt-10.0_cortex-a57_1.mig.xz").read_bytes())
    body = answer.domain.xml.encode() + bytes(100)
    header = SaveImageHeader(True, 2, len(body), 1, Compression.RAW, 0, (0,) * 14, "little")
    path = tmp_path / "image"
    path.write_bytes(header.encode(complete=True) + body + stream)
    monkeypatch.setattr(os, "getppid", os.getpid)
    with path.open("rb"):
        yield path


def _fingerprint_here(answer: Answer, image: Path, *without: int) -> None:
    """Makes this host one that has the registers of the image, some left out."""
    (one,) = stored(answer.state)
    there = open_subject(str(image)).fingerprint
    registers = {index: value for index, value in there.cpus[0].items() if index not in without}
    found = replace(_fingerprint(registers, "10.0.13"), devices=there.devices)
    store(answer.state, one.kind, found, before=(one,))
    write_table(answer.state)


def test_restore_of_an_image_that_fits(answer: Answer, image: Path) -> None:
    _fingerprint_here(answer, image)
    assert answer("restore") == (0, "")


def test_restore_of_an_image_that_does_not_fit(answer: Answer, image: Path) -> None:
    _fingerprint_here(answer, image, DBGDTRTX)
    assert answer("restore") == (1, REFUSAL.replace("come here from alpha", "be restored here"))
    assert answer("restore", ferried=True) == (0, "")


def test_restore_of_an_image_whose_constants_differ(answer: Answer, image: Path) -> None:
    _fingerprint_here(answer, image)
    saved = bytearray(image.read_bytes())
    index = 0x603000000013C011  # ID_ISAR1_EL1
    at = saved.rindex(open_subject(str(image)).lists[0][index].to_bytes(8, "big"))
    saved[at + 7] ^= 1
    image.write_bytes(saved)
    status, said = answer("restore")
    assert status == 1
    assert said.startswith(
        "armferry: carried cannot be restored here: QEMU 10.0.13 would refuse registers "
        "ID_ISAR1_EL1"
    )


def test_restore_of_a_half_rewritten_image(answer: Answer, image: Path) -> None:
    _fingerprint_here(answer, image)
    write_journal(image, Journal.of_end(0, b"old", b"new"))
    assert answer("restore") == (
        1,
        (
            f"armferry: carried cannot be restored here: a rewrite of {image} was interrupted; "
            f"armferry ferry {image} --undo puts it back as it was, --finish completes it\n"
        ),
    )


def test_restore_beside_a_journal_that_was_never_acted_upon(answer: Answer, image: Path) -> None:
    _fingerprint_here(answer, image)
    write_journal(image, Journal.of_end(0, b"old", b"new"))
    whole = journal_path(image).read_bytes()
    for length in (0, 10, len(whole) - 1):
        journal_path(image).write_bytes(whole[:length])
        assert answer("restore") == (0, "")


def test_managed_save_is_not_stopped(answer: Answer, image: Path) -> None:
    _fingerprint_here(answer, image, DBGDTRTX)
    (image.parent / "save").mkdir()
    image.rename(image.parent / "save" / "carried.save")
    assert answer("restore") == (0, "")


def test_restore_without_an_image_in_sight_is_left_to_qemu(answer: Answer) -> None:
    assert answer("restore") == (0, "")


def test_script_is_installed_once_and_foreign_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "qemu").write_text("#!/bin/sh\n")
    path = install("stock", tmp_path)
    assert path == hook_path(tmp_path) == tmp_path / "qemu.d" / "armferry"
    assert os.access(path, os.X_OK)
    assert installed_carrier(tmp_path) == "stock"
    install("ferried", tmp_path)
    assert installed_carrier(tmp_path) == "ferried"
    assert sorted(one.name for one in tmp_path.rglob("*")) == ["armferry", "qemu", "qemu.d"]
    assert remove(tmp_path)
    assert not remove(tmp_path)
    path.write_text("#!/bin/sh\n")
    for change in (lambda: install("stock", tmp_path), lambda: remove(tmp_path)):
        with pytest.raises(ForeignHook) as foreign:
            change()
        assert str(foreign.value) == f"{path}: not made by armferry; rename it or remove it first"
    assert (tmp_path / "qemu").read_text() == path.read_text() == "#!/bin/sh\n"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["g", "start", "begin", "-"], 0, ""),
        ([], 0, ""),
        (["g", "migrate", "begin", "-"], 0, "armferry: hook: not decided: not the XML of a domain"),
    ],
)
def test_installed_script_runs(words: list[str], code: int, said: str, tmp_path: Path) -> None:
    path = install("stock", tmp_path)
    done = subprocess.run(
        [path, *words], input="<domain", capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert done.stderr.startswith(said)


def test_script_without_armferry_stops_nothing(tmp_path: Path) -> None:
    path = install("stock", tmp_path, package=tmp_path)
    done = subprocess.run(
        [path, "g", "migrate", "begin", "-"], input="", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stderr == "armferry: hook: not decided: No module named 'armferry'\n"


def test_hook_imports_next_to_nothing() -> None:
    code = "import sys, armferry.hosts.libvirt.hook; print(*sorted(sys.modules))"
    root = Path(hook_install.__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-IS", "-c", f"import sys; sys.path.insert(0, {str(root)!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    heavy = {"dataclasses", "inspect", "pathlib", "typing", "argparse", "subprocess", "tomllib"}
    assert heavy.isdisjoint(done.stdout.split())
    assert [name for name in done.stdout.split() if name.startswith("armferry")] == [
        "armferry",
        "armferry.hosts",
        "armferry.hosts.libvirt",
        "armferry.hosts.libvirt.domain",
        "armferry.hosts.libvirt.hook",
        "armferry.hosts.program_identity",
        "armferry.printable",
    ]


def test_domains_of_every_form() -> None:
    facts = read_domain(Domain().xml)
    assert facts is not None
    assert (facts.kind, facts.name) == (f"{MACHINE} cortex-a57 tcg", "carried")
    live = Domain().xml.replace("type='qemu'", "type='kvm'")
    live = live[: live.index("<cpu")] + (
        "<cpu mode='host-passthrough'><feature policy='disable' name='pmu'/>"
        "<feature policy='require' name='sve'/></cpu>" + live[live.index("</cpu>") + 6 :]
    )
    facts = read_domain(f"<domstatus state='running'><monitor/>{live}</domstatus>")
    assert facts is not None
    assert facts.kind == f"{MACHINE} host,pmu=off,sve=on kvm"
    assert read_domain(Domain().xml.replace("aarch64'", "x86_64'")) is None
    facts = read_domain(Domain().xml.replace("mode='custom'", "mode='maximum'"))
    assert facts is not None
    assert facts.cpu == "max"
    with pytest.raises(UnreadableDomain) as fault:
        read_domain("<domain>")
    assert str(fault.value) == "not the XML of a domain: no element found: line 1, column 8"


def test_state_folder_keeps_what_it_is_given(state: Path, emulator: Path) -> None:
    (one,) = stored(state)
    assert one.fresh
    assert one.fingerprint.cpus == (LIST,)
    again = store(state, one.kind, _fingerprint({MIDR_EL1: 1}, "10.0.14"), before=(one,))
    assert stored(state) == again
    kinds = kinds_of_hosts(other_hosts(state).guests, "/q")
    assert [(kind.machine, kind.emulator) for kind in kinds] == [(MACHINE, "/q")]
    emulator.unlink()
    assert not stored(state)[0].fresh
    with pytest.raises(StateFault) as fault:
        store(state, one.kind, one.fingerprint, before=())
    assert str(fault.value) == f"{emulator}: is not there any more"
    (state / "host" / "index.json").write_text('{"format": "other", "version": 1}')
    with pytest.raises(StateFault) as fault:
        stored(state)
    assert str(fault.value) == (
        f"{state}/host/index.json: not an index of this armferry: "
        f"ValueError(\"format 'other' version 1\"); remove {state}/host and run armferry host "
        "fingerprint"
    )


def test_kinds_of_libvirts_domains(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(Domain().xml)
    (tmp_path / "b.xml").write_text(Domain(name="b").xml)
    (tmp_path / "c.xml").write_text(Domain().xml.replace("aarch64'", "x86_64'"))
    kinds = (GuestKind(MACHINE, "cortex-a57", "tcg", "/usr/bin/qemu-system-aarch64"),)
    assert kinds_of_domains([tmp_path]) == DomainKinds(kinds, {})


def test_domains_that_cannot_be_read_hide_no_other(tmp_path: Path) -> None:
    broken, binary, link = (tmp_path / f"{name}.xml" for name in ("a", "b", "c"))
    broken.write_text("<domain>")
    binary.write_bytes(b"\xff\xfe")
    link.symlink_to(link)
    (tmp_path / "d.xml").write_text(Domain().xml)
    found = kinds_of_domains([tmp_path])
    assert len(found.kinds) == 1
    assert found.unreadable[broken] == "not the XML of a domain: no element found: line 1, column 8"
    assert set(found.unreadable) == {broken, binary, link}


def test_other_hosts_that_cannot_be_read_hide_no_other_and_stop_nothing(answer: Answer) -> None:
    assert answer("migrate") == (1, REFUSAL)
    torn = answer.state / "hosts" / "beta" / "torn.json"
    torn.parent.mkdir()
    torn.write_text("{")
    found = other_hosts(answer.state)
    assert [name for name, prints in found.guests.items() if prints] == ["alpha"]
    assert list(found.unreadable) == [torn]
    write_table(answer.state)
    assert answer("migrate") == (0, "")


def test_answers_about_hosts_that_were_taken_away_stop_nothing(answer: Answer) -> None:
    assert answer("migrate") == (1, REFUSAL)
    shutil.rmtree(answer.state / "hosts" / "alpha")
    assert answer("migrate") == (0, "")


def test_why_a_move_may_begin(answer: Answer) -> None:
    def why(state: Path = answer.state) -> tuple[bool, str]:
        decision = decide("migrate", answer.domain.xml, "stock", str(state))
        return decision.stopped, decision.why

    assert why() == (True, REFUSAL.removeprefix("armferry: ").removesuffix("\n"))
    _other(answer.state, "beta", LIST)
    assert why() == (False, "beta could send it")
    shutil.rmtree(answer.state / "hosts")
    assert why() == (
        False,
        f"no other host with such a guest is known in {answer.state}/hosts",
    )
    empty = answer.state / "empty"
    assert why(empty) == (
        False,
        f"nothing is known: no fingerprint of this host in {empty}; run armferry host fingerprint",
    )
    other = replace(answer.domain, cpu="max")
    assert decide("migrate", other.xml, "stock", str(answer.state)).why == (
        f"nothing is known of {MACHINE} max tcg under {other.emulator} on this host; run armferry "
        "host fingerprint"
    )


def test_hook_test_says_what_it_rests_on(
    answer: Answer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hooks, xml = tmp_path / "hooks", tmp_path / "domain.xml"
    install("stock", hooks)
    xml.write_text(answer.domain.xml)
    words = ["hook", "test", str(xml), "--hooks", str(hooks)]
    assert program(words) == 0
    verdict, reason = capsys.readouterr().out.splitlines()
    assert verdict.startswith("migrate: may begin, decided in ")
    assert reason.startswith("nothing is known")
    assert program([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["why"] == reason
    assert program([*words, "--operation", "start"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "only migrate and restore are decided"


def test_what_the_hook_repeats_to_start_quickly_is_what_others_say() -> None:
    assert journal_path(Path("/image")).name.removeprefix("image") == hook._JOURNAL
    assert len(hook._MAGIC) == IMAGE_MAGIC_BYTES
    header = SaveImageHeader(True, 2, 5, 1, Compression.RAW, 0, (0,) * 14, "little")
    encoded = header.encode(complete=True)
    assert encoded.startswith(hook._MAGIC)
    assert len(encoded) == hook._HEADER == HEADER_BYTES
    assert hook._words(encoded)[:2] == (2, 5)
    seekable = [one for one in Compression if one.seekable]
    for one in Compression:
        there = SaveImageHeader(True, 2, 5, 1, one, 0, (0,) * 14, "little").encode(complete=True)
        assert (hook._words(there)[3] in hook._SEEKABLE) is (one in seekable)
    assert bytes([len(CPU_SECTION)]) + CPU_SECTION.encode() == hook._CPU_SECTION
    assert SectionType.FULL == hook._SECTION_BEGIN
