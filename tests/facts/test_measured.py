"""What is said of releases that are newer or older than all that facts were measured with."""

import pytest

from armferry.facts import FactSubject, measured_from, measured_to, qemu_rules, unmeasured
from armferry.hosts.fingerprints.atlas import read_atlas
from armferry.lab.releases import RELEASES

QEMU, KERNEL, MACHINE = FactSubject


@pytest.mark.parametrize(
    ("subject", "release", "words"),
    [
        (QEMU, "12.0", "QEMU 12.0: not measured beyond 11.1.3"),
        (QEMU, "99", "QEMU 99: not measured beyond 11.1.3"),
        (QEMU, "11.1.4", "QEMU 11.1.4: not measured beyond 11.1.3"),
        (QEMU, "11.1.91", "QEMU 11.1.91: not measured beyond 11.1.3"),
        (QEMU, "4.2", "QEMU 4.2: not measured before 5.2.0"),
        (KERNEL, "7.4-rc3", "Linux 7.4-rc3: not measured beyond 7.3"),
        (KERNEL, "4.19.0-26-cloud-arm64", "Linux 4.19.0-26-cloud-arm64: not measured before 5.10"),
        (MACHINE, "virt-12.0", "machine type virt-12.0: not measured beyond virt-11.1"),
        (MACHINE, "virt-2.5", "machine type virt-2.5: not measured before virt-2.6"),
    ],
)
def test_said_of_what_was_not_measured(subject: FactSubject, release: str, words: str) -> None:
    assert str(unmeasured(subject, release)) == words


@pytest.mark.parametrize(
    ("subject", "release"),
    [
        (QEMU, "11.1.3"),
        (QEMU, "11.0.92"),
        (QEMU, "8.2.1"),
        (QEMU, "5.2.0 (Debian 1:5.2+dfsg-11)"),
        (QEMU, ""),
        (KERNEL, "7.3.99+deb14-cloud-arm64"),
        (KERNEL, "5.10.0-32-cloud-arm64"),
        (MACHINE, "virt-11.1"),
        (MACHINE, "virt"),
        (MACHINE, "sbsa-ref"),
    ],
)
def test_silent_where_it_was_measured_or_nothing_is_known(
    subject: FactSubject, release: str
) -> None:
    assert unmeasured(subject, release) is None


def test_every_release_of_the_rig_was_measured() -> None:
    assert (measured_from(QEMU), measured_to(QEMU)) == (RELEASES[0].version, RELEASES[-1].version)


def test_the_atlas_ends_where_facts_on_kernels_end() -> None:
    from armferry.facts import series_of

    kernels = [series_of(entry.release) for entry in read_atlas().kernels]
    assert (measured_from(KERNEL), measured_to(KERNEL)) == (kernels[0], kernels[-1])


def test_every_set_has_a_source() -> None:
    from armferry.facts.qemu import qemu_bases

    for version in ("5.2.0", "11.0.0", "10.0.13", "11.1.3"):
        assert all(basis.source for basis in qemu_bases(version))


def test_a_release_on_its_way_has_what_it_will_have() -> None:
    assert qemu_rules("11.0.92").name == qemu_rules("11.1").name
    assert qemu_rules("11.1.0-rc1").aborts == ()
