"""Every register list of the atlas, given to every kernel on the same CPU: what each refuses.

The long way round for `tests/decide/test_kernel_refusals.py`, whose data it writes: it boots each
kernel on each CPU model and sets the lists in scratch vCPUs, register by register.
"""

import json
import lzma
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from armferry.facts.release import release_key
from armferry.hosts.fingerprints.atlas import Entry, read_atlas
from armferry.lab.atlas_record import KvmEntry
from armferry.lab.refusals import refusals

pytestmark = [pytest.mark.kernel, pytest.mark.full]

DATA = Path(__file__).parents[1] / "decide/data/kernel-refusals.json.xz"


def test_every_kernel_refuses_what_it_refused() -> None:
    kernels = read_atlas().kernels
    before = json.loads(lzma.decompress(DATA.read_bytes()))

    def asked(there: Entry) -> dict[str, list[str]]:
        sources = [entry for entry in kernels if entry.cpu == there.cpu and entry is not there]
        # by its series: point releases leave the archive
        series = ".".join(map(str, release_key(there.release)[:2]))
        with KvmEntry(series, there.cpu).boot() as host:
            said = refusals(host, [source.fingerprint.cpus[0] for source in sources])
        return {
            source.name: [f"{one.index:#018x}" for one in refused]
            for source, refused in zip(sources, said, strict=True)
        }

    with ThreadPoolExecutor(2) as pool:
        answers = dict(
            zip((entry.name for entry in kernels), pool.map(asked, kernels), strict=True)
        )
    DATA.write_bytes(lzma.compress(json.dumps(answers).encode(), preset=9))
    assert answers == before
