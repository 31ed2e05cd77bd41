"""How an outcome is told: in a word, in a line of a trace, in JSON, in a plan's options."""

import json

import pytest

from armferry.decide import (
    Answer,
    Risk,
    TraceEvent,
    decide,
    judge,
    make_plan,
    plan_compat,
    plan_globals,
    plan_starts,
    trace_line,
    verdict_document,
)
from armferry.ends import Destination, SourceFacts
from armferry.policy import EMPTY, aggregate, from_options, parse_document
from armferry.registers import Accelerator, parse_register

from .moves import move_of

KVM, TCG = Accelerator.KVM, Accelerator.TCG
TTBR, TCR2, PSCI, MIDR = map(parse_register, ("TTBR0_EL1", "TCR2_EL1", "PSCI_VERSION", "MIDR_EL1"))


@pytest.mark.parametrize(
    ("incoming", "there", "options", "fate"),
    [
        (
            {TCR2: 1},
            Destination({}, KVM),
            ["TCR2_EL1: not-on-both-ends"],
            "only in source: dropped",
        ),
        ({TCR2: 1}, Destination({}, KVM), [], "only in source: refused"),
        ({}, Destination({TCR2: 1}, KVM), [], "only on destination: kept"),
        ({}, Destination({TCR2: 1}, TCG), [], "only on destination: sent"),
        (
            {},
            Destination({TCR2: 1}, TCG),
            ["TCR2_EL1: not-on-both-ends"],
            "only on destination: sent",
        ),
        (
            {PSCI: 0x10003},
            Destination({PSCI: 0x10001}, KVM),
            ["PSCI_VERSION: cap at destination"],
            "value rewritten",
        ),
        ({PSCI: 0x10003}, Destination({PSCI: 0x10001}, KVM), [], "value refused"),
        ({TTBR: 1}, Destination({TTBR: 2}, KVM), [], "matched"),
    ],
)
def test_what_becomes_of_a_register_in_a_word(
    incoming: dict[int, int], there: Destination, options: list[str], fate: str
) -> None:
    policy = from_options(tolerate=options)
    (outcome,) = decide(incoming, there, policy, SourceFacts()).outcomes
    assert outcome.fate == fate


def test_a_trace_is_a_line_of_text_or_json() -> None:
    (outcome,) = decide({TCR2: 0x12}, Destination({}, KVM), EMPTY).outcomes
    event = TraceEvent(1, outcome)
    assert str(event).startswith(
        "vcpu 1 TCR2_EL1 0x603000000013c103 only in source: refused: source 0x12 destination - "
        "sent -"
    )
    read = json.loads(trace_line(event))
    assert (read["event"], read["vcpu"], read["name"]) == ("register", 1, "TCR2_EL1")
    assert (read["source_value"], read["destination_value"], read["origin"]) == ("0x12", None, [])
    assert read["risk"] == str(Risk.LOSSY)
    (ruled,) = decide(
        {TCR2: 0x12}, Destination({}, KVM), from_options(safe_missing=["TCR2_EL1"])
    ).outcomes
    (origin,) = json.loads(trace_line(TraceEvent(0, ruled)))["origin"]
    assert origin["where"] == "--safe-missing-regs"


def test_every_event_is_traced_and_the_document_counts_the_rest() -> None:
    told: list[TraceEvent] = []
    move = move_of([{TTBR: 1, TCR2: 0}] * 2, Destination({TTBR: 2}, KVM))
    verdict = judge(move, EMPTY, told.append)
    assert [(event.vcpu, event.outcome.index) for event in told] == [(0, TCR2), (1, TCR2)]
    document = verdict_document(verdict)
    empty = {"message": "", "class": "", "registers": [], "rules": ""}
    assert document["stock"] == {"verdict": "unknown", **empty}
    assert (document["matched"], len(document["registers"])) == (2, 2)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer.WORKS, "works"),
        (Answer.WORKS_WITH_POLICY, "works with armferry"),
        (Answer.FAILS, "fails"),
    ],
)
def test_an_answer_in_words(answer: Answer, words: str) -> None:
    assert answer.words == words


def test_options_of_a_plan_go_to_the_qemu_they_are_for() -> None:
    move = move_of([{TCR2: 5, PSCI: 0x10003}], Destination({PSCI: 0x10001}, KVM))
    plan = make_plan(move, EMPTY)
    assert plan_globals(plan) == (
        "-global arm-cpu.kvm-psci-version=1.1",
        f"-global arm-cpu.x-mig-safe-missing-regs={TCR2:#x}",
    )
    assert plan_starts(plan) == {
        "the destination": (f"-global arm-cpu.x-mig-safe-missing-regs={TCR2:#x}",),
        "the source, from the guest's start": ("-global arm-cpu.kvm-psci-version=1.1",),
    }
    assert plan_compat(plan) == (
        '{ "arm-cpu", "kvm-psci-version",\n  "1.1" },\n'
        f'{{ "arm-cpu", "x-mig-safe-missing-regs",\n  "{TCR2:#x}" }},'
    )
    nothing = make_plan(move_of([{TTBR: 1}], Destination({TTBR: 1}, KVM)), EMPTY)
    assert (plan_globals(nothing), plan_starts(nothing), plan_compat(nothing)) == ((), {}, "")


def test_a_reset_value_that_a_document_states_is_evidence() -> None:
    rule = 'register = "TCR2_EL1"\naction = "only-source-if-reset"\nreset = [7]\n'
    policy = aggregate("none", KVM, files=[parse_document(f"[[entry]]\n{rule}", "site")])
    kept, used = (decide({TCR2: value}, Destination({}, KVM), policy) for value in (7, 6))
    assert kept.outcomes[0].why == (
        "may be dropped while it holds its reset value; 0x7 is its known reset value, so nothing "
        "is lost"
    )
    assert not used.accepted


def test_what_the_destination_has_outside_its_list_may_stay_behind() -> None:
    there = Destination({}, TCG, unlisted={MIDR: 0x410FD034})
    same, other = (decide({MIDR: value}, there, EMPTY) for value in (0x410FD034, 0x410FD070))
    assert same.outcomes[0].why == (
        "the destination has it, though not in its list; the destination holds the same value, so "
        "nothing is lost"
    )
    assert not other.accepted
