"""QEMU's command line cut into options, and its values into pairs."""

import re
import subprocess
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armferry.hosts.qmp.options import FLAGS, options_of
from armferry.lab.qemu_install import InstalledQemu
from armferry.lab.releases import RELEASES
from armferry.option_text import joined, keyed, segments

TEXT = st.text(alphabet="ab,=-. ", max_size=12)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], []),
        (["-S"], [("S", None, 0)]),
        (["--daemonize", "-cpu", "max"], [("daemonize", None, 0), ("cpu", "max", 1)]),
        (["-append", "-cpu", "-cpu", "max"], [("append", "-cpu", 0), ("cpu", "max", 2)]),
        (["disk.img", "-m", "64"], [("", "disk.img", 0), ("m", "64", 1)]),
        (["-cpu"], [("cpu", None, 0)]),
        (["-serial", "-", "-"], [("serial", "-", 0), ("", "-", 2)]),
    ],
)
def test_options(words: list[str], expected: list[tuple[str, str | None, int]]) -> None:
    assert [(one.name, one.value, one.at) for one in options_of(words)] == expected


@pytest.mark.parametrize(
    ("text", "implied", "pairs"),
    [
        ("virt,gic-version=3", "type", [("type", "virt"), ("gic-version", "3")]),
        ("type=virt", "type", [("type", "virt")]),
        ("path=a,,b,server,nowait", "", [("path", "a,b"), ("server", "on"), ("wait", "off")]),
        ("socket,id=m,wait=off", "backend", [("backend", "socket"), ("id", "m"), ("wait", "off")]),
        ("", "type", [("type", "")]),
    ],
)
def test_pairs(text: str, implied: str, pairs: list[tuple[str, str]]) -> None:
    assert keyed(text, implied) == pairs
    assert keyed(joined(pairs, implied), implied) == pairs


@given(TEXT)
def test_segments_join_to_what_they_were(text: str) -> None:
    assert ",".join(segments(text)) == text


@given(st.lists(st.tuples(st.text("abc", min_size=1), TEXT), min_size=1, max_size=4))
def test_pairs_survive_being_written(pairs: list[tuple[str, str]]) -> None:
    assert keyed(joined(pairs)) == pairs


@pytest.mark.qemu
@pytest.mark.parametrize("suite", [release.suite for release in RELEASES])
def test_flags_are_those_of_the_real_help(
    suite: str, qemu_release: Callable[[str], InstalledQemu]
) -> None:
    """Whatever `-help` shows without a value is a flag, and nothing it shows with one is."""
    text = subprocess.run(
        [qemu_release(suite).launcher, "-help"], capture_output=True, text=True, check=True
    ).stdout
    flags, valued = set(), set()
    for line in text.splitlines():
        shown = re.match(r"--?([a-zA-Z][a-zA-Z0-9-]*)(?: or -(\w+))?(?:$|(\s+)(\S*))", line)
        if shown is None or shown[1] in ("M", "dtb", "enable-sync-profile", "hda", "fda"):
            continue  # laid out in other ways: `-M   as -machine`, `-hda/-hdb file`
        gap, word = shown[3] or "", shown[4] or ""
        if gap == " " and word and not line.startswith(("-no-user", "-xen-domid")):
            valued.add(shown[1])
        else:
            flags.add(shown[1])
    single = {name for name in flags if len(name) > 1}
    assert single - FLAGS <= {"uuid", "xen-domid"}  # both have a value, laid out far away
    assert valued & FLAGS <= {"h", "only-migratable", "async-teardown"}  # what follows explains
