"""The site's word on the host that guests are born as."""

import pytest

from armferry.policy import (
    Document,
    DocumentError,
    MachineError,
    Origin,
    OriginKind,
    parse_document,
    present_as,
)


def site(*texts: str) -> list[Document]:
    return [
        parse_document(text, f"{number}.toml", OriginKind.SITE) for number, text in enumerate(texts)
    ]


A, B = 'present-as = "atlas:5.10/neoverse-n1"\n', 'present-as = "/etc/armferry/fleet.json"\n'


def test_nobody_says_it() -> None:
    assert present_as("virt-10.0", site('kvm-psci-version = "1.1"')) is None


def test_for_every_machine() -> None:
    assert present_as("virt-10.0", site(A, A)) == Origin(
        OriginKind.SITE, "0.toml: present-as", "atlas:5.10/neoverse-n1"
    )


def test_only_up_to_a_level() -> None:
    documents = site(f'level = "virt-9.2"\n{A}')
    assert present_as("virt-10.0", documents) is None
    assert present_as("virt-9.0", documents) is not None


def test_machine_comes_before_everyone() -> None:
    found = present_as("virt-10.0", site(f'{A}[machine."virt-10.0"]\n{B}'))
    assert found == Origin(
        OriginKind.SITE, "0.toml: machine virt-10.0: present-as", "/etc/armferry/fleet.json"
    )


def test_two_of_the_same_rank_are_an_error() -> None:
    with pytest.raises(DocumentError) as caught:
        present_as("virt-10.0", site(A, B))
    assert str(caught.value) == (
        "present-as: guests of virt-10.0 cannot be born as '/etc/armferry/fleet.json' (1.toml) "
        "and 'atlas:5.10/neoverse-n1' (0.toml)"
    )


def test_machine_like_one_that_nothing_declares() -> None:
    with pytest.raises(MachineError):
        present_as("homemade", site(f'{A}[machine."homemade"]\nlike = "no-such-machine"\n'))
