"""Where device sections end: what can follow one, and what a package of them may hold."""

import pytest

from armferry.stream.devices import SectionWalk, cut_packaged
from armferry.stream.errors import OversizedStream, TruncatedStream
from armferry.stream.wire import MAX_SECTIONS

PING = b"\x08\0\2\0\4\0\0\0\1"
FOOTER = b"\x7e\0\0\0\1"


def section(payload: bytes) -> bytes:
    return b"\4\0\0\0\1\4disk" + bytes(8) + payload + FOOTER


@pytest.mark.parametrize("behind", [b"\x55", b"\4\0\0\0\1\0" + bytes(8), b"\x08\0\x63\0\0", b"\0"])
def test_a_footer_before_what_can_not_follow_is_payload(behind: bytes) -> None:
    payloads = [b"first" + FOOTER + behind + b"rest", b"second"]
    state = b"".join(map(section, payloads)) + b"\0"
    cut = SectionWalk(0).whole(state)
    assert cut is not None
    assert [one.payload for one in cut] == payloads


def test_no_more_than_sixteen_thousand_sections() -> None:
    most = section(b"x") * MAX_SECTIONS
    sections, _, end = cut_packaged(most + PING, 0)
    assert (len(sections), end) == (MAX_SECTIONS, len(most))
    with pytest.raises(OversizedStream) as caught:
        cut_packaged(most + section(b"y") + PING, 7)
    assert str(caught.value) == (
        f"the device state has more than 16384 sections (at byte {7 + len(most)})"
    )


def test_a_package_ends_with_a_section_or_a_command() -> None:
    sections, begin, end = cut_packaged(PING + section(b"one") + section(b"two") + PING, 100)
    assert [one.payload for one in sections] == [b"one", b"two"]
    assert (begin, end) == (9, 9 + 2 * len(section(b"one")))


def test_a_package_whose_section_has_no_end() -> None:
    whole = PING + section(b"one")
    with pytest.raises(TruncatedStream) as caught:
        cut_packaged(whole + section(b"two")[:-1] + PING, 100)
    assert str(caught.value) == (
        f"the section has no end (at byte {100 + len(whole)}, section 'disk' instance 0); "
        "save the guest again"
    )


@pytest.mark.parametrize("cut", [1, 4])
def test_a_package_that_goes_on_with_neither(cut: int) -> None:
    whole = section(b"one") + PING
    with pytest.raises(TruncatedStream) as caught:
        cut_packaged(whole + PING[:cut], 100)
    assert str(caught.value) == (
        f"the packaged stream ends inside a section (at byte {100 + len(whole)})"
    )
