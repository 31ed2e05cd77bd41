"""Fingerprints from a guest's own command line: with its memory, its vCPUs and its devices.

The command line is made fit for a question first (`guest_command`), so that nothing of the host is
opened or taken; what it starts is paused, saved, read and ended.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from armferry.hosts.fingerprints.fingerprint import Fingerprint, Scope
from armferry.hosts.fingerprints.probe import vcpus_of
from armferry.hosts.qmp.guest_command import question_of
from armferry.hosts.qmp.process import MachineSpec, QemuProcess
from armferry.registers import accelerator_of

__all__ = ["CommandFingerprint", "fingerprint_of_command"]


@dataclass(frozen=True, slots=True)
class CommandFingerprint:
    """What was found, and the devices that the question had to do without."""

    fingerprint: Fingerprint
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Question(MachineSpec):
    """A whole command line in the place of a machine's description."""

    words: tuple[str, ...] = ()

    def arguments(self) -> list[str]:
        """The words, and nothing shown."""
        return [*self.words, "-display", "none"]


def fingerprint_of_command(
    program: Path, words: Sequence[str], *, time_limit: float = 60.0
) -> CommandFingerprint:
    """What `program` would accept with a guest's own `words`.

    Raises QemuProcessError (with QEMU's own words), KvmFault or StreamError.
    """
    command = question_of(tuple(words))
    question = _Question(words=command.words)
    with QemuProcess(program, question, paused=True, time_limit=time_limit) as machine:
        vcpus = vcpus_of(machine)
    accelerator = accelerator_of(vcpus.saved.cpus[0].registers)
    found = vcpus.fingerprint(command.value_of("cpu"), accelerator, Scope.GUEST)
    return CommandFingerprint(found, command.left_out)
