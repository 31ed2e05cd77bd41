"""A host's report: what is written is read, and what is malformed is refused by name."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from armferry.hosts.fingerprints.fingerprint import Fingerprint, Provenance
from armferry.hosts.report import (
    BadReport,
    HostReport,
    ReportedGuest,
    ReportedKind,
    ReportHead,
    dump_report,
    read_head,
    read_report,
)
from armferry.registers import Accelerator

FINGERPRINT = Fingerprint(
    Provenance("probe", "virt-10.0", "host", Accelerator.KVM, "10.0.13", kernel="6.12.1"),
    ({0x603000000013C103: 0},),
    True,
)
REPORT = HostReport(
    ReportHead("h1", 1_790_000_000.5, "boot"),
    "6.12.1",
    "0.1.0",
    ("10.0.13",),
    "Neoverse N1",
    1 << 36,
    "north",
    "rack 7",
    (ReportedKind("virt-10.0", "host", "kvm", "/usr/bin/qemu-system-aarch64", FINGERPRINT),),
    (ReportedGuest("8c1", "web", "virt-10.0 host kvm", 1 << 32, "here", ("h1", "h2")),),
)


def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(dump_report(REPORT))
    return found


def test_what_is_written_is_read() -> None:
    assert read_report(document(), "r") == REPORT


def test_keys_of_a_newer_armferry_are_passed_over_and_those_of_provenance_kept() -> None:
    newer = document()
    newer["weather"] = {"sun": 1}
    newer["kinds"][0]["fingerprint"]["provenance"]["moon"] = "full"
    found = read_report(newer, "r")
    assert found.head == REPORT.head
    assert found.kinds[0].fingerprint.provenance.more == {"moon": "full"}
    assert '"moon": "full"' in dump_report(found)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "x"}, 'r: not a report: it does not say "format": "armferry-report"'),
        ({"version": 2}, "r: report version 2; this armferry reads version 1"),
        ({"host": ""}, "r: malformed report: host is empty"),
        ({"host": "a\x1b[2J"}, "r: malformed report: host is no name"),
        ({"time": "now"}, "r: malformed report: time is 'now', no number of seconds"),
        ({"time": float("nan")}, "r: malformed report: time is nan, no time"),
        ({"kernel": None}, "r: malformed report: kernel is 'None', no text"),
        ({"memory": -1}, "r: malformed report: memory is '-1', no number of bytes"),
        ({"kinds": {}}, "r: malformed report: kinds is no list"),
        ({"guests": [{"id": "a", "kind": "k"}] * 2}, "r: malformed report: a guest comes twice"),
        ({"guests": [{"id": "a"}]}, "r: malformed report: 'kind' is missing"),
        ({"guests": [7]}, "r: malformed report: 'int' object"),
        ({"kinds": [{"machine": "m", "cpu": "c", "accelerator": "kvm"}]}, "r: malformed report: "),
    ],
)
def test_what_is_malformed_is_refused_by_name(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BadReport) as fault:
        read_report({**document(), **change}, "r")
    assert str(fault.value).startswith(words)


def test_a_poisoned_fingerprint_refuses_its_report() -> None:
    bad = document()
    bad["kinds"][0]["fingerprint"]["cpus"] = []
    with pytest.raises(BadReport, match="r: kind 0: malformed fingerprint: no vCPU"):
        read_report(bad, "r")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)


@settings(max_examples=40)
@given(st.sampled_from(sorted(document())), _JSON)
def test_anything_is_read_or_refused(key: str, value: object) -> None:
    changed = {**document(), key: value}
    with contextlib.suppress(BadReport):
        read_head(changed, "r")
        read_report(changed, "r")
