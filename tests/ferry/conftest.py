"""Recorded streams, hosts taken from them, and judges, for the gateway's tests without QEMU."""

import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from armferry.ferry.gateway import Judge
from armferry.hosts.fingerprint import Fingerprint
from armferry.hosts.recorded import fingerprint_of_stream
from armferry.policy import EMPTY, Policy, aggregate
from armferry.stream import SavedCollector, StreamParser
from armferry.stream.events import RamRecord, RamRecordKind

DATA = Path(__file__).parent.parent / "stream" / "data"
OLD = "tcg_10.0.2_virt-10.0_cortex-a57_1"


@pytest.fixture(scope="session")
def recorded() -> Callable[[str], bytes]:
    """A function from a recording's name to its bytes, nearly all of guest memory left out."""
    known: dict[str, bytes] = {}

    def read(name: str) -> bytes:
        if name not in known:
            whole = lzma.decompress((DATA / f"{name}.mig.xz").read_bytes())
            known[name] = _without_most_pages(whole)
        return known[name]

    return read


def _without_most_pages(stream: bytes) -> bytes:
    """The stream with every fiftieth page of each block, so that thousands of runs are quick."""
    parser = StreamParser(ram_records=True)
    parts, at, block = [], 0, ""
    for number, event in enumerate([*parser.feed(stream), *parser.close()]):
        if isinstance(event, RamRecord) and event.kind in (RamRecordKind.ZERO, RamRecordKind.PAGE):
            # the first one of a block names it for those that follow
            if event.block == block and number % 50:
                parts.append(stream[at : event.offset])
                at = event.offset + event.length
            block = event.block
    return b"".join((*parts, stream[at:]))


@pytest.fixture(scope="session")
def host_of() -> Callable[[bytes], Fingerprint]:
    """A function from a stream to the fingerprint of the host that wrote it."""

    def host(stream: bytes) -> Fingerprint:
        parser, collector = StreamParser(), SavedCollector()
        collector.take(parser.feed(stream))
        collector.take(parser.close())
        return fingerprint_of_stream(collector.saved(len(stream)))

    return host


@pytest.fixture(scope="session")
def judge_of() -> Callable[..., Judge]:
    """A function from a fingerprint to its judge; without `builtin` `policy` stands alone."""

    def judge(fingerprint: Fingerprint, policy: Policy = EMPTY, *, builtin: bool = True) -> Judge:
        united = aggregate(
            fingerprint.provenance.machine,
            fingerprint.accelerator,
            builtin=builtin,
            command_line=policy,
        )
        return Judge(fingerprint, lambda _machine, _accelerator: united)

    return judge
