"""The destination host's own kernel, asked before the move: for verdicts, for people, as JSON.

Runs when the destination is `kvm:`. What the kernel refuses of the list that armferry would send
stands in the way of the move; what it refuses of the unchanged list is what stops QEMU alone.
"""

import errno
from collections.abc import Iterator, Mapping
from typing import Any

from armferry.cli import render, words
from armferry.cli.render import Cell, Table
from armferry.decide import Verdict, differences
from armferry.ends import Destination, Move
from armferry.facts import qemu_rules
from armferry.hosts.fingerprints.kvm import NotKept, Preflight, Refusal, VcpuLists, preflight
from armferry.policy import Policy
from armferry.registers import Accelerator, name

__all__ = ["ask_kernel", "document", "obstacles", "show"]


def ask_kernel(move: Move, verdict: Verdict, policy: Policy, *, nested: bool) -> Preflight:
    """Loads the guest's lists, as they come and as they would be sent, into scratch vCPUs.

    Where the version of the destination's QEMU is known, what it leaves out by itself is not tried.
    """
    pinned = policy.psci_version
    qemu = move.qemu

    def considered(incoming: Mapping[int, int], own: Destination) -> Mapping[int, int]:
        if not qemu:
            return incoming
        return qemu_rules(qemu).considered(incoming, own.registers, own.accelerator)

    return preflight(
        [
            VcpuLists(considered(incoming, own), outgoing)
            for incoming, own, outgoing in zip(
                move.lists, move.destinations, verdict.lists, strict=True
            )
        ],
        hidden=policy.hidden,
        psci_version=None if pinned is None else pinned.value,
        nested=nested,
    )


def obstacles(answer: Preflight, policy: Policy) -> Iterator[str]:
    """What the kernel refused that armferry would do, in words."""
    if answer.psci_refused:
        yield (
            f"kvm-psci-version: KVM in this kernel does not support PSCI version"
            f" {policy.psci_version}"
        )
    for vcpu, loads in enumerate(answer.vcpus):
        for refusal in loads.outgoing.refused:
            yield (
                f"vCPU {vcpu}: this kernel does not take {_name(refusal)} ({refusal.index:#018x})"
                f" = {refusal.incoming:#x}: {_error(refusal)}"
            )


def show(answer: Preflight) -> None:
    """For a person: every register of the unchanged list that this kernel does not take."""
    render.heading(f"Asked of this kernel, Linux {answer.kernel}")
    rows = [
        _row(vcpu, refusal)
        for vcpu, loads in enumerate(answer.vcpus)
        for refusal in loads.incoming.refused
    ]
    if rows:
        render.line("does not take as they come:")
        render.table(
            Table(
                ("register", "index", "vCPU", "error", "value", "host has", "why or fields"), rows
            )
        )
    else:
        render.line("takes every register unchanged", "good")
    changes = [
        _change_row(vcpu, change)
        for vcpu, loads in enumerate(answer.vcpus)
        for change in loads.incoming.not_kept
    ]
    if changes:
        render.line("takes and does not keep:")
        render.table(Table(("register", "index", "vCPU", "value", "then reads", "fields"), changes))


def document(answer: Preflight) -> dict[str, Any]:
    """The JSON object `preflight`."""
    return {
        "kernel": answer.kernel,
        "psci_refused": answer.psci_refused,
        "refusals": [
            {
                "vcpu": vcpu,
                "list": which,
                "index": f"{refusal.index:#018x}",
                "name": _name(refusal),
                "errno": errno.errorcode.get(refusal.errno, str(refusal.errno)),
                "value": f"{refusal.incoming:#x}",
                "host_value": None if refusal.host is None else f"{refusal.host:#x}",
                "fields": _fields(refusal),
            }
            for vcpu, loads in enumerate(answer.vcpus)
            for which, found in (("incoming", loads.incoming), ("outgoing", loads.outgoing))
            for refusal in found.refused
        ],
        "not_kept": [
            {
                "vcpu": vcpu,
                "list": which,
                "index": f"{change.index:#018x}",
                "name": _name(change),
                "value": f"{change.incoming:#x}",
                "host_value": f"{change.host:#x}",
                "fields": _fields(change),
            }
            for vcpu, loads in enumerate(answer.vcpus)
            for which, found in (("incoming", loads.incoming), ("outgoing", loads.outgoing))
            for change in found.not_kept
        ],
    }


def _row(vcpu: int, refusal: Refusal) -> tuple[Cell, ...]:
    return (
        Cell(_name(refusal), "bad"),
        Cell(f"{refusal.index:#018x}", "faint"),
        Cell(str(vcpu)),
        Cell(errno.errorcode.get(refusal.errno, str(refusal.errno))),
        Cell(words.value(refusal.incoming)),
        Cell(words.value(refusal.host)),
        Cell(_fields(refusal) or "this kernel has no such register"),
    )


def _change_row(vcpu: int, change: NotKept) -> tuple[Cell, ...]:
    return (
        Cell(_name(change), "warn"),
        Cell(f"{change.index:#018x}", "faint"),
        Cell(str(vcpu)),
        Cell(words.value(change.incoming)),
        Cell(words.value(change.host)),
        Cell(_fields(change)),
    )


def _name(refusal: Refusal | NotKept) -> str:
    return name(refusal.index, Accelerator.KVM)


def _error(refusal: Refusal) -> str:
    symbol = errno.errorcode.get(refusal.errno, str(refusal.errno))
    if refusal.host is None:
        return f"{symbol}, it has no such register"
    fields = _fields(refusal)
    return f"{symbol}, it has {refusal.host:#x}" + (f" ({fields})" if fields else "")


def _fields(refusal: Refusal | NotKept) -> str:
    if refusal.host is None:
        return ""
    return differences(refusal.index, refusal.incoming, refusal.host)
