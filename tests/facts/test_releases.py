"""In which order releases came, and which one a text means."""

import pytest

from armferry.facts import UnknownQemuVersion, newest_match, qemu_release, release_key, series_of


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("7.4-rc3", "7.4"),
        ("7.4-rc3", "7.4.1"),
        ("7.4~rc3", "7.4.0-1"),
        ("7.4-rc3", "7.4-rc10"),
        ("7.3.9", "7.4-rc1"),
        ("6.12.95+deb12", "6.12.107+deb13"),
        ("6.12.90+deb12", "6.12.90+deb12.1"),
        ("5.10.0-30", "5.10.0-32"),
        ("10.0.13", "11.1.3"),
        ("rubbish", "5.2.0"),
    ],
)
def test_releases_sort_as_they_came(earlier: str, later: str) -> None:
    assert release_key(earlier) < release_key(later)


def test_a_long_number_is_no_fault() -> None:
    assert release_key("6.12." + "9" * 5000) > release_key("6.12.107")


def test_the_newest_that_continues_a_request() -> None:
    assert newest_match("7.4", ["7.4-rc3", "7.4.1", "7.4-rc10", "7.40.2"]) == "7.4.1"
    assert newest_match("7.4-rc3", ["7.4-rc3", "7.4.1"]) == "7.4-rc3"


@pytest.mark.parametrize(
    ("text", "series"), [("6.12.107+deb13-cloud-arm64", "6.12"), ("7.4-rc3", "7.4"), ("7", "7.0")]
)
def test_series(text: str, series: str) -> None:
    assert series_of(text) == series


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("10.0.13", (10, 0, 13)),
        ("v11.1", (11, 1, 0)),
        ("9", (9, 0, 0)),
        ("10.0.13 (Debian 1:10.0.13+ds-0+deb13u1)", (10, 0, 13)),
        # on its way to the next release
        ("11.0.92", (11, 1, -1)),
        ("11.0.50", (11, 1, -1)),
        ("11.2.91", (12, 0, -1)),
        ("11.1.0-rc2", (11, 1, -1)),
    ],
)
def test_version_of_qemu(text: str, numbers: tuple[int, int, int]) -> None:
    assert qemu_release(text) == numbers


@pytest.mark.parametrize("text", ["", "trixie", "-1.0", "1" * 5000, "10.0." + "1" * 5000])
def test_no_version_of_qemu(text: str) -> None:
    with pytest.raises(UnknownQemuVersion, match="is no version of QEMU; write it as"):
        qemu_release(text)
