"""Runs in a lab host: asks its real kernel through every public path, prints what came as JSON.

Arguments: an index to hide, then pairs index=value to load on top of the kernel's own list.
"""

import json
import sys
from collections.abc import Callable

from armferry.hosts.fingerprints.kvm import (
    HiddenRegister,
    Vcpu,
    VcpuLists,
    ask,
    load_list,
    preflight,
)


def attempt(path: Callable[[Vcpu], object], hidden: int) -> str:
    with Vcpu(hidden=[hidden]) as vcpu:
        try:
            return f"went through: {path(vcpu)}"
        except HiddenRegister as refused:
            return str(refused)


def main() -> None:
    hidden = int(sys.argv[1], 16)
    changes = {
        int(index, 16): int(value, 16) for index, value in (w.split("=") for w in sys.argv[2:])
    }
    host = ask()
    own = dict(host.registers)
    paths: dict[str, Callable[[Vcpu], object]] = {
        "get": lambda vcpu: vcpu.get(hidden),
        "set": lambda vcpu: vcpu.set(hidden, own[hidden]),
        "set_list": lambda vcpu: vcpu.set_list(own),
        "load_list": lambda vcpu: load_list(vcpu, own),
        "preflight": lambda _: preflight([VcpuLists(own, own)], hidden=[hidden]),
    }
    with Vcpu(hidden=[hidden]) as vcpu:
        listed = {*vcpu.indexes, *vcpu.migrated, *vcpu.get_list(), *(vcpu.writable_masks() or ())}
        kept = {index: own[index] for index in own if index != hidden}
        without = load_list(vcpu, kept).refused
    with Vcpu() as vcpu:
        refusals = load_list(vcpu, own | changes).refused
    answer = {
        "kernel": host.kernel,
        "cpu": None if host.cpu is None else host.cpu.text,
        "registers": own,
        "features": sorted(feature.name for feature in host.features),
        "writable": None if host.writable is None else sorted(host.writable),
        "paths": {name: attempt(path, hidden) for name, path in paths.items()},
        "hidden_listed": hidden in listed or hidden in ask(hidden=[hidden]).registers,
        "refused_without_hidden": len(without),
        "refusals": [[r.index, r.errno, r.incoming, r.host] for r in refusals],
    }
    json.dump(answer, sys.stdout)


main()
