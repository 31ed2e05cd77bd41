"""One move has one verdict, from every caller: check and ferry, the gateway, libvirt's hook, and
what runs beside a wrapped QEMU on its way in."""

from collections.abc import Callable
from dataclasses import replace
from itertools import permutations

import pytest

from armferry.decide import Answer, judge
from armferry.ends import Move
from armferry.gateway import Judge
from armferry.hosts.fingerprints.as_end import end_of
from armferry.hosts.fingerprints.open_subject import open_subject
from armferry.hosts.fingerprints.subject import Subject
from armferry.hosts.libvirt.hook_table import answers
from armferry.policy import Policy, aggregate
from armferry.registers import Accelerator
from armferry.rewriting.edits import edit_of
from armferry.stream import rewrite_tail
from armferry.wrapper.beside.judges import LoggingJudge
from armferry.wrapper.beside.mapped import changed_end
from armferry.wrapper.errors import UriFault

NAMES = (
    "tcg_10.0.13_virt-10.0_cortex-a57_8",
    "tcg_10.0.2_virt-10.0_cortex-a57_1",
    "tcg_11.1.3_virt-10.0_cortex-a57_1",
    "tcg_5.2.0_virt-5.2_cortex-a57_2",
    "kvm_6.12_neoverse-n1_10.0.13",
    "kvm_6.17_neoverse-n1_10.0.13",
    "suppress-vmdesc",
    "postcopy",
)


def policy_for(machine: str, accelerator: Accelerator) -> Policy:
    return aggregate(machine, accelerator)


@pytest.fixture(scope="module")
def guests(
    recorded: Callable[[str], bytes], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Subject]:
    folder = tmp_path_factory.mktemp("guests")
    found = {}
    for name in NAMES:
        path = folder / name
        path.write_bytes(recorded(name))
        found[name] = open_subject(str(path))
    return found


@pytest.mark.parametrize(("source", "there"), list(permutations(NAMES, 2)))
def test_check_gateway_hook_and_wrapper_agree(
    guests: dict[str, Subject], source: str, there: str
) -> None:
    guest, host = guests[source], guests[there].fingerprint
    assert guest.saved is not None
    move = Move.between(guest.end, end_of(host))
    checked = judge(move, policy_for(guest.machine, move.destination.accelerator))

    carried = Judge(end_of(host), policy_for)(guest.machine, guest.saved.sections).verdict
    assert carried.decisions == checked.decisions
    assert carried.findings == checked.findings
    assert (carried.answer, carried.changed) == (checked.answer, checked.changed)

    said = answers(guest.end, host)
    assert (said["ferried"] is None) is (checked.answer is not Answer.FAILS)

    printed: list[str] = []
    beside = LoggingJudge(Judge(end_of(host), policy_for), printed.append)
    if checked.answer is Answer.FAILS:
        with pytest.raises(UriFault):
            changed_end(guest.saved, beside)
    elif guest.saved.postcopy:  # never in a file, which is what `changed_end` is for
        assert beside(guest.machine, guest.saved.sections).verdict.lists == checked.lists
    else:
        assert changed_end(guest.saved, beside) == rewrite_tail(guest.saved, edit_of(checked))
    assert bool(printed) is (checked.answer is Answer.FAILS)


def test_check_and_gateway_note_a_fingerprint_that_is_not_used(guests: dict[str, Subject]) -> None:
    guest = guests["kvm_6.12_neoverse-n1_10.0.13"]
    there = end_of(guests["kvm_6.17_neoverse-n1_10.0.13"].fingerprint)
    stranger = replace(guest.end, guest=False, at_reset=True, machine="virt-9.2")
    assert guest.saved is not None
    carried = Judge(there, policy_for, stranger)(guest.machine, guest.saved.sections)
    assert carried.notes == Move.between(guest.end, there, host=stranger).notes
    (note,) = carried.notes
    assert "machine type virt-9.2" in note
    assert Judge(there, policy_for)(guest.machine, guest.saved.sections).notes == ()
