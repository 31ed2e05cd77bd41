"""A guest as its state says it is: born on one class of hosts, now on another.

What a guest was told at its birth (identification registers, firmware versions and services, the
counter's frequency, vector lengths) it keeps wherever it goes; all else is what the present host
would give a guest at reset. Knows no guest's own values: what those may change is for `conditions`.
"""

from dataclasses import replace

from armferry.decide import judge
from armferry.decide.causes import KeepsOther
from armferry.decide.reset import read_only
from armferry.ends import End, Move
from armferry.policy import Policy

__all__ = ["state_end"]


def state_end(birth: End, present: End, policy: Policy) -> End:
    """The guest that was born on `birth` and came to `present`, as far as its state tells.

    A value of birth that does not travel by `policy` is taken to have become the present host's.
    """
    if birth is present:
        return present
    decision = judge(Move.between(birth, present), policy).decisions[0]
    told = {}
    for outcome in decision.outcomes:
        index, value = outcome.index, outcome.outgoing
        if value is not None and read_only(index) and index in present.cpus[0]:
            told[index] = outcome.cause.after if isinstance(outcome.cause, KeepsOther) else value
    first = {index: told.get(index, value) for index, value in present.cpus[0].items()}
    others = tuple(
        {
            # a vCPU's own values, such as its affinity, are its host's
            index: first[index] if value == present.cpus[0].get(index) else value
            for index, value in registers.items()
        }
        for registers in present.cpus[1:]
    )
    host = replace(
        birth.host.completed_by(present.host),
        gic=present.host.gic,
        its=present.host.its,
        cores=present.host.cores,
        page_bytes=present.host.page_bytes,
    )
    return replace(present, cpus=(first, *others), host=host)
