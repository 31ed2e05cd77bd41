"""What a command line asks for, and how it is probed."""

import shlex

import pytest

from armferry.wrapper.commandline.command_line import read_command_line

LIBVIRT = """
-machine virt-10.0,usb=off,gic-version=3,dump-guest-core=off,pflash0=a,acpi=on
-accel kvm -cpu host,pmu=off -m size=2097152k -smp 4,sockets=4,cores=1,threads=1
-S -no-shutdown -incoming defer
"""
PROBE = """
-nodefaults -no-user-config -display none
-machine virt-10.0,usb=off,gic-version=3,acpi=on -accel kvm -cpu host,pmu=off -smp 4 -m 64
"""


def test_a_line_of_libvirt() -> None:
    subject = read_command_line(shlex.split(LIBVIRT))
    assert subject.machine == "virt-10.0"
    assert subject.accelerators == ("kvm",)
    assert (subject.model, subject.cpu, subject.vcpus) == ("host", "host,pmu=off", 4)
    assert (subject.incoming, subject.paused, subject.daemonize) == ("defer", True, False)
    assert subject.probe_words("kvm") == shlex.split(PROBE)


@pytest.mark.parametrize(
    ("words", "accelerators"),
    [
        ("-M virt", ("tcg",)),
        ("-M virt,accel=kvm:tcg", ("kvm", "tcg")),
        ("-enable-kvm -M virt", ("kvm",)),
        ("-M virt -accel tcg,thread=multi -accel kvm", ("tcg", "kvm")),
    ],
)
def test_accelerators(words: str, accelerators: tuple[str, ...]) -> None:
    assert read_command_line(words.split()).accelerators == accelerators


@pytest.mark.parametrize(
    ("smp", "count"),
    [("", 1), ("-smp 3", 3), ("-smp cpus=2,maxcpus=4", 2), ("-smp maxcpus=4", 4),
     ("-smp sockets=2,cores=3", 6), ("-smp x", 1)],
)  # fmt: skip
def test_vcpus(smp: str, count: int) -> None:
    assert read_command_line(["-M", "virt", *smp.split()]).vcpus == count


def test_the_last_machine_and_cpu_count() -> None:
    subject = read_command_line(
        ["-M", "virt", "-cpu", "a", "-machine", "type=virt-9.0", "-cpu", "b"]
    )
    assert (subject.machine, subject.model) == ("virt-9.0", "b")
    assert read_command_line(["-M", "virt"]).probe_words("tcg").count("-cpu") == 0


@pytest.mark.parametrize(
    ("words", "incoming"),
    [
        (["-incoming", "tcp:0:1"], "tcp:0:1"),
        (["-incoming", "defer", "-incoming", "fd:3"], "fd:3"),
        (["-incoming", '{"channel-type":"main","addr":{}}'], '{"channel-type":"main","addr":{}}'),
        (["-incoming", '{"addr":{}}'], '{"addr":{}}'),
        (["-incoming", '{"channel-type":"cpr","addr":{}}'], None),
        (["-incoming", "unix:x", "-incoming", '{"channel-type":"cpr","addr":{}}'], "unix:x"),
        (["-incoming", "{"], "{"),
    ],
)
def test_the_guest_comes_by_the_last_main_channel(words: list[str], incoming: str | None) -> None:
    assert read_command_line(words).incoming == incoming


@pytest.mark.parametrize(
    ("words", "ends"),
    [
        ("", False),
        ("-no-reboot", True),
        ("-action reboot=shutdown,panic=none", True),
        ("-no-reboot -action panic=none", True),
        ("-no-reboot -action reboot=reset", False),
    ],
)
def test_what_a_reset_does(words: str, ends: bool) -> None:
    assert read_command_line(words.split()).shuts_down_on_reboot is ends
