"""Which rules present another host, for every pair of kernels of the atlas and for odd ones."""

import itertools

import pytest

from armferry.boundary import Action, Birth, Table, birth
from armferry.facts import release_key
from armferry.hosts.fingerprints.atlas import read_atlas
from armferry.registers import name

KERNELS = [one for one in read_atlas().kernels if one.cpu == "neoverse-n1"]
PAIRS = [
    (newer, older)
    for newer, older in itertools.product(KERNELS, KERNELS)
    if release_key(newer.release) > release_key(older.release)
]
STD, HYP, VENDOR = 0x6030000000160000, 0x6030000000160001, 0x6030000000160002
PSCI, TCR2 = 0x6030000000140000, 0x603000000013C103
CNTP_CTL, SCTLR = 0x603000000013DF11, 0x603000000013C080
ISAR0 = 0x603000000013C030


def names(found: Birth, action: Action) -> list[str]:
    return [rule.name for rule in found.rules if rule.action is action]


@pytest.mark.parametrize(
    ("newer", "older"), PAIRS, ids=[f"{a.release}-as-{b.release}" for a, b in PAIRS]
)
def test_what_is_presented_is_the_older_list(newer, older) -> None:  # type: ignore[no-untyped-def]
    own, other = newer.fingerprint.cpus[0], older.fingerprint.cpus[0]
    found = birth(own, other, older.release)
    assert found.obstacles == ()
    table = Table(found.rules)
    listed = set(own) - {rule.index for rule in table.of(Action.HIDE)}
    listed |= {rule.index for rule in table.of(Action.CARRY)}
    assert listed == set(other)
    settings = {rule.index: rule for rule in table.of(Action.SET)}
    for index in set(own) & set(other):
        if index in settings:
            rule = settings[index]
            assert (own[index] & ~rule.mask) | rule.value == other[index]


def test_there_are_fifty_five_pairs() -> None:
    assert len(PAIRS) == len(KERNELS) * (len(KERNELS) - 1) // 2 >= 55


def _kernel(series: str) -> dict[int, int]:
    return dict(read_atlas().find(f"{series}/neoverse-n1").fingerprint.cpus[0])


def test_services_that_the_older_kernel_lacks_are_turned_off() -> None:
    """A hidden bitmap still offers its services to the guest."""
    own, other = _kernel("7.3"), _kernel("5.10")
    settings = {
        rule.index: rule.value & rule.mask
        for rule in birth(own, other, "5.10.0-32").rules
        if rule.action is Action.SET
    }
    assert (settings[STD], settings[VENDOR]) == (0, 0)
    assert HYP not in settings, "stolen time is older than 5.10"
    later = birth(own, other, "5.15.0")
    assert STD not in {rule.index for rule in later.rules if rule.action is Action.SET}


def test_services_of_an_unknown_kernel_are_unknown() -> None:
    found = birth(_kernel("7.3"), _kernel("5.10"))
    assert [str(one) for one in found.obstacles] == [
        f"{which} ({index:#018x}): the other host's kernel is unknown, and so are its services"
        for which, index in (("STD_BMAP", STD), ("STD_HYP_BMAP", HYP), ("VENDOR_HYP_BMAP", VENDOR))
    ]


def test_hidden_registers_that_a_guest_can_write_are_watched() -> None:
    found = birth(_kernel("7.3"), _kernel("6.1"), "6.1")
    watched = {name(rule.value) for rule in found.rules if rule.action is Action.WATCH}
    assert watched == {"CNTP_CTL_EL0", "CNTP_CVAL_EL0"}


def test_register_that_a_guest_needs_is_an_obstacle() -> None:
    other = _kernel("6.12")
    del other[SCTLR]
    found = birth(_kernel("7.3"), other, "6.12")
    assert [str(one) for one in found.obstacles] == [
        f"SCTLR_EL1 ({SCTLR:#018x}): QEMU and the guest need it, so it cannot be hidden"
    ]


def test_register_that_qemu_reads_is_an_obstacle() -> None:
    other = _kernel("6.12")
    del other[ISAR0]
    (obstacle,) = birth(_kernel("7.3"), other, "6.12").obstacles
    assert obstacle.index == ISAR0
    assert obstacle.why == "QEMU reads it by itself when it starts, so it cannot be hidden"


def test_service_that_this_kernel_lacks_is_an_obstacle() -> None:
    """To carry it would promise the guest what nobody answers."""
    found = birth(_kernel("5.10"), _kernel("6.1"), "6.1")
    assert {one.index for one in found.obstacles} == {STD, HYP, VENDOR}


def test_carried_registers_hold_what_they_hold_after_reset() -> None:
    found = birth(_kernel("6.17"), _kernel("6.12"), "6.12")
    assert names(found, Action.CARRY) == ["TCR2_EL1", "PIRE0_EL1", "PIR_EL1"]
    assert [one.value for one in found.rules if one.action is Action.CARRY] == [
        0, 0x1DE7EC7EDBADC0DE, 0x1DE7EC7EDBADC0DE
    ]  # fmt: skip


def test_same_host_needs_nothing() -> None:
    assert birth(_kernel("6.17"), _kernel("6.17"), "6.17") == Birth((), ())
