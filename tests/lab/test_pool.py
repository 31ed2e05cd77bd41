"""Work on lab hosts that is given up: the others' hosts are powered off, nothing is waited for."""

import threading

import pytest

from armferry.lab import pool as module
from armferry.lab.pool import Hosts, two_at_once


class FakeHost:
    """A host that does nothing until it is powered off."""

    booted: "list[FakeHost]"

    def __init__(self, spec: object) -> None:
        self.off = threading.Event()
        self.booted.append(self)

    def wait(self) -> None:
        assert self.off.wait(30), "nobody powered the host off"
        raise RuntimeError("powered off")

    def close(self) -> None:
        self.off.set()


@pytest.fixture(autouse=True)
def booted(monkeypatch: pytest.MonkeyPatch) -> list[FakeHost]:
    monkeypatch.setattr(module, "LabHost", FakeHost)
    monkeypatch.setattr(FakeHost, "booted", [], raising=False)
    return FakeHost.booted


def test_results_keep_their_order_and_two_run_at_once() -> None:
    together = threading.Barrier(2, timeout=30)

    def work(_: Hosts, item: int) -> int:
        together.wait()
        return item * item

    assert two_at_once(work, range(6)) == [0, 1, 4, 9, 16, 25]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_is_given_up_powers_the_other_hosts_off(
    error: type[BaseException], booted: list[FakeHost]
) -> None:
    both = threading.Barrier(2, timeout=30)
    begun = []

    def work(hosts: Hosts, item: int) -> None:
        begun.append(item)
        host = hosts.boot(None)  # type: ignore[arg-type]  # the fake looks at no spec
        both.wait()
        if item == 1:
            raise error
        host.wait()  # type: ignore[attr-defined]  # a fake

    with pytest.raises(error):
        two_at_once(work, range(10))
    assert sorted(begun) == [0, 1]
    assert [host.off.is_set() for host in booted] == [True, True]


def test_a_host_that_boots_too_late_is_powered_off(booted: list[FakeHost]) -> None:
    hosts = Hosts()
    hosts.give_up(KeyboardInterrupt())
    hosts.boot(None)  # type: ignore[arg-type]  # the fake looks at no spec
    assert [host.off.is_set() for host in booted] == [True]
