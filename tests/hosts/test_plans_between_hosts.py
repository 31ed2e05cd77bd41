"""Every pair of recorded hosts of one CPU: a plan for both ways, in one file, keeps its promise."""

from collections import defaultdict
from itertools import combinations

from armferry.decide import (
    Answer,
    Plan,
    Risk,
    judge,
    make_plan,
)
from armferry.ends import Move
from armferry.hosts.fingerprints.atlas import read_atlas
from armferry.hosts.fingerprints.subject import Subject
from armferry.policy import (
    Document,
    OriginKind,
    Policy,
    aggregate,
    parse_document,
    problems,
    to_toml,
)


def policy_of(move: Move, *files: Document) -> Policy:
    return aggregate(
        str(move.source.machine or "virt"), move.destinations[0].accelerator, files=files
    )


def both_ways(one: Subject, other: Subject) -> list[tuple[Move, Plan]]:
    moves = Move.between(one.end, other.end), Move.between(other.end, one.end)
    return [(move, make_plan(move, policy_of(move))) for move in moves]


def test_plan_for_both_ways_keeps_its_promise_in_every_pair() -> None:
    hosts = defaultdict(list)
    for entry in read_atlas().entries:
        key = entry.fingerprint.provenance.machine, entry.name.rpartition("/")[2]
        hosts[key].append(Subject(entry.name, entry.fingerprint, None))
    pairs = [pair for same in hosts.values() for pair in combinations(same, 2)]
    risks, lost = set(), set()
    for one, other in pairs:
        plans = both_ways(one, other)
        united = plans[0][1].policy.union(plans[1][1].policy)
        file = parse_document(to_toml(united), "policy.toml")
        assert file.source is OriginKind.FILE
        for move, plan in plans:
            policy = policy_of(move, file)
            assert problems(policy) == (), (one.text, other.text)
            again = judge(move, policy)
            assert plan.works, (one.text, other.text, plan.obstacles)
            assert (again.answer, again.risk) == (plan.verdict.answer, plan.verdict.risk)
            if plan.entries:
                assert judge(move, policy_of(move)).answer is Answer.FAILS
            risks.add(again.risk)
            lost |= {
                event.outcome.name for event in again.events if event.outcome.risk is Risk.LOSSY
            }
    assert len(pairs) > 300
    assert risks == set(Risk) - {Risk.LOSSY}
    # nothing of a guest is on a host that only was started
    assert lost == set()
