"""What a running QEMU would accept, found out with another one that is started just like it.

A running QEMU cannot be asked for its register lists, so one of the same program is started paused,
asked for its own properties, and started again with those that differ set, until none differs
(`armferry.hosts.qmp.running`). No property is known by name, and none is guessed: what cannot be
made equal is an error that names it.
"""

from collections.abc import Mapping
from pathlib import Path

from armferry.hosts.fingerprints.fingerprint import Fingerprint
from armferry.hosts.fingerprints.probe import ProbeError, vcpus_of
from armferry.hosts.qmp.process import (
    MachineSpec,
    QemuProcess,
    QemuProcessError,
    RefusedByQemu,
)
from armferry.hosts.qmp.running import RunningMachine, running_machine
from armferry.registers import Accelerator

__all__ = ["fingerprint_like"]

_MOST_STARTS = 5
_SHOWN = 6
_AT_ONCE = ("gic-version",)  # differs nearly always, and saves a start


def fingerprint_like(
    program: Path, wanted: RunningMachine, *, time_limit: float = 60.0
) -> Fingerprint:
    """The fingerprint that the running QEMU `wanted` would have; `program` is the same QEMU.

    Raises ProbeError when it is another version or cannot be started alike, QemuProcessError with
    QEMU's own words, KvmFault or StreamError.
    """
    machine = {name: value for name, value in wanted.machine_properties.items() if name in _AT_ONCE}
    cpu: dict[str, str] = {}
    differing: list[str] = []
    refusal = ""
    for _ in range(_MOST_STARTS):
        spec = MachineSpec(
            machine=_with(wanted.machine, machine),
            cpu=_with(wanted.cpu, cpu),
            accel=wanted.accel,
            smp=wanted.smp,
        )
        try:
            process = QemuProcess(program, spec, paused=True, time_limit=time_limit)
        except QemuProcessError as error:
            if not differing:
                raise
            refusal = f" ({error.stderr.strip()})"
            break
        with process:
            here = running_machine(process.execute, RefusedByQemu)
            if here.about.version != wanted.about.version:
                raise ProbeError(
                    f"{program} is QEMU {here.about.version} and the running one is "
                    f"{wanted.about.version}: name the program of that one"
                )
            more_machine = _differences(wanted.machine_properties, here.machine_properties)
            more_cpu = _differences(wanted.cpu_properties, here.cpu_properties)
            if not more_machine and not more_cpu:
                return vcpus_of(process).fingerprint(spec.cpu, Accelerator(spec.accel))
        differing = [
            *_named("machine", more_machine, here.machine_properties),
            *_named("CPU", more_cpu, here.cpu_properties),
        ]
        # the machine decides on some properties of the CPU, and a feature on those of its parts:
        # in this order the fewest are named
        switches = {name: value for name, value in more_cpu.items() if name.isalpha()}
        machine |= more_machine
        cpu |= {} if more_machine else switches or more_cpu
    more = len(differing) - _SHOWN
    listed = ", ".join(differing[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
    raise ProbeError(
        f"{program} cannot be started like the running QEMU: {listed}{refusal}; make a fingerprint "
        "of that host with armferry fingerprint qemu and its own -machine and -cpu"
    )


def _differences(wanted: Mapping[str, str], here: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in wanted.items() if here.get(name) != value}


def _named(what: str, differing: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    return [
        f"{what} property {name} is {value} there and {here.get(name, 'unknown')} here"
        for name, value in differing.items()
    ]


def _with(kind: str, properties: Mapping[str, str]) -> str:
    """The text of -machine or -cpu."""
    parts = (f"{name}={value.replace(',', ',,')}" for name, value in properties.items())
    return ",".join([kind, *parts])
