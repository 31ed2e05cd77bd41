"""The KVM boundary on a real kernel: 64 vCPUs started and loaded, and a move beside the others.

    python -m benchmarks.boundary_lab [--kernel 7.3] [--vcpus N] [--rounds N] [--memory MIB]

One emulated host with the kernel under test; in it stock QEMU and QEMU with the rules of a guest
born as on 5.10 are started with 64 vCPUs, save, and load what they saved. Then a paused guest is
moved between two QEMUs of that host: directly, with the boundary in both, through the gateway. All
ways take turns in each round; medians. Under emulation only what is compared means something, no
figure by itself.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

from armferry.boundary import Table, birth
from armferry.hosts.fingerprints.atlas import read_atlas
from armferry.lab.host import HostSpec, Job, LabHost
from armferry.lab.kernels import KernelStore
from armferry.lab.releases import release_named

_IN_HOST = Path(__file__).with_name("in_host_boundary.py")
_LIMIT = 3000.0


def main() -> int:
    """Prints what each costs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--kernel", default="7.3")
    parser.add_argument("--vcpus", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=int, default=192, help="MiB of the moved guest (192)")
    words = parser.parse_args()
    own, other = (read_atlas().find(f"{one}/neoverse-n1") for one in (words.kernel, "5.10"))
    rules = birth(own.fingerprint.cpus[0], other.fingerprint.cpus[0], other.release).rules
    files = {"bench.py": _IN_HOST.read_bytes(), "table": Table(rules).packed()}
    amounts = [str(one) for one in (words.vcpus, words.rounds, words.memory)]
    spec = HostSpec(KernelStore().get(words.kernel), release_named("trixie"), memory=2048, smp=2)
    with LabHost(spec) as host:
        done = host.do(Job(("python3", "bench.py", *amounts), files), time_limit=_LIMIT)
    if done.completed.exit_code != 0:
        print(done.completed.stderr.decode("utf-8", "replace"), file=sys.stderr)
        return 1
    found = json.loads(done.completed.stdout)
    print(f"{words.vcpus} vCPUs under {spec.kernel.release}, {len(rules)} rules, emulated")
    for what in ("start", "load"):
        stock, ruled = (statistics.median(found[f"{what} {how}"]) for how in ("stock", "boundary"))
        print(f"  {what}: {stock:.2f} s, at the boundary {ruled:.2f} s ({ruled / stock:.3f} x)")
    print(f"{'move':<10}{'x direct':>10}{'downtime ms':>13}{'QEMUs s/GB':>12}{'relay s/GB':>12}")
    for way in ("direct", "boundary", "gateway"):
        moves = found[f"move {way}"]
        pairs = zip(moves, found["move direct"], strict=True)
        ratio = statistics.median(
            (one["GB"] / one["seconds"]) / (direct["GB"] / direct["seconds"])
            for one, direct in pairs
        )
        middle = {
            key: statistics.median(one[key] / one["GB"] for one in moves)
            for key in ("qemus", "relay")
        }
        downtime = statistics.median(one["downtime"] for one in moves)
        print(
            f"{way:<10}{ratio:>10.2f}{downtime:>13.0f}{middle['qemus']:>12.1f}"
            f"{middle['relay']:>12.1f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
