"""Runs in a lab host: vCPUs with all that its kernel offers, every register read and written back.

Prints, for a plain vCPU and for one with EL2, what came as JSON.
"""

import json
import sys

from armferry.hosts.fingerprints.kvm import KvmFault, RegisterRefused, Vcpu, ask
from armferry.hosts.fingerprints.kvm.abi import register_bytes

PATTERN = int.from_bytes(bytes(range(1, 256)) + b"\x01", "little")


def tried(*, nested: bool) -> dict[str, object]:
    with Vcpu(nested=nested) as vcpu:
        sizes: dict[int, int] = {}
        refused: dict[str, int] = {}
        for index in vcpu.indexes:
            size = register_bytes(index)
            sizes[size] = sizes.get(size, 0) + 1
            try:
                vcpu.set(index, vcpu.get(index))
            except RegisterRefused as answer:
                refused[f"{index:#018x}"] = answer.errno
        written = {}
        for index in (int(word, 16) for word in sys.argv[1:]):
            if index in vcpu.indexes:
                value = PATTERN & (1 << 8 * register_bytes(index)) - 1
                vcpu.set(index, value)
                written[f"{index:#018x}"] = vcpu.get(index) == value
    host = ask(nested=nested)
    return {
        "features": sorted(feature.name for feature in host.features),
        "listed": len(host.registers),
        "el2": sum(index >> 11 & 7 == 4 for index in host.registers if index >> 16 & 0xFFF == 0x13),
        "apart": len(host.apart),
        "sizes": sizes,
        "refused": refused,
        "written": written,
    }


def main() -> None:
    answers: list[object] = [tried(nested=False)]
    try:
        answers.append(tried(nested=True))
    except KvmFault as fault:
        answers.append(str(fault))
    json.dump(answers, sys.stdout)


main()
