"""Every register list of the atlas, given to every kernel on the same CPU: refused, or not kept.

The long way round for `tests/decide/test_kernel_refusals.py`, whose data it writes: it boots each
kernel on each CPU model and puts the lists into scratch vCPUs, each over the kernel's own whole
list as QEMU does, and reads every register back.
"""

import json
import lzma
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from armferry.decide.conditions import taken_away
from armferry.decide.kernel_values import is_of_the_host, kept
from armferry.decide.values import refusal
from armferry.facts import series_of
from armferry.hosts.fingerprints.as_end import end_of
from armferry.hosts.fingerprints.atlas import Entry, read_atlas
from armferry.hosts.fingerprints.kvm import Loaded
from armferry.lab.atlas_record import KvmEntry
from armferry.lab.kernels import KernelStore, UnknownKernelError
from armferry.lab.refusals import refusals
from armferry.registers import Accelerator, name

pytestmark = [pytest.mark.kernel, pytest.mark.full]

DATA = Path(__file__).parents[1] / "decide/data/kernel-refusals.json.xz"


def obtainable(entry: Entry) -> bool:
    """Whether the archive, or this machine, still has the kernel: point releases leave."""
    try:
        KernelStore().get(entry.release)
    except UnknownKernelError:
        return False
    return True


def test_every_kernel_refuses_and_keeps_what_is_predicted() -> None:
    before = json.loads(lzma.decompress(DATA.read_bytes()))
    kernels = read_atlas().kernels
    present = [entry for entry in kernels if obtainable(entry)]
    assert {series_of(entry.release) for entry in present} >= {"6.1", "6.12", "6.17", "7.3"}

    def asked(there: Entry) -> dict[str, list[str]]:
        sources = [entry for entry in kernels if entry.cpu == there.cpu and entry is not there]
        with KvmEntry(there.release, there.cpu).boot() as host:
            said = refusals(host, [source.fingerprint.cpus[0] for source in sources])
        for source, loaded in zip(sources, said, strict=True):
            assert wrong(source, there, loaded) == [], f"{source.name} to {there.name}"
        return {
            source.name: [
                f"{one.index:#018x}"
                for one in loaded.refused
                if one.index in source.fingerprint.cpus[0]
            ]
            for source, loaded in zip(sources, said, strict=True)
        }

    with ThreadPoolExecutor(2) as pool:
        answers = dict(
            zip((entry.name for entry in present), pool.map(asked, present), strict=True)
        )
    DATA.write_bytes(lzma.compress(json.dumps(before | answers).encode(), preset=9))
    for there, answer in answers.items():
        for source in before.get(there, {}):
            assert answer[source] == before[there][source], f"{source} to {there}"


def wrong(source: Entry, there: Entry, loaded: Loaded) -> list[str]:
    """Where a whole list, put over the kernel's own, ended otherwise than predicted."""
    incoming = source.fingerprint.cpus[0]
    (destination,) = end_of(there.fingerprint).destinations(1)
    own = destination.registers
    common = {index: value for index, value in incoming.items() if index in own}
    taken = {i: v for i, v in common.items() if refusal(i, v, destination) is None}
    refused = {*incoming} - {*taken} | taken_away(taken, own, Accelerator.KVM).keys()
    # what the guest could write is its own, and KVM keeps of its pattern what the register has
    changed = {
        index: kept(index, value, destination)
        for index, value in taken.items()
        if is_of_the_host(index) and kept(index, value, destination) != value
    }
    found = {one.index: one.host for one in loaded.not_kept if is_of_the_host(one.index)}
    differ = {one.index for one in loaded.refused} ^ refused
    return [
        *(f"{name(index)}: refused or not" for index in sorted(differ)),
        *(f"{name(index)}: kept or not" for index, _ in sorted(found.items() ^ changed.items())),
    ]
