"""The vCPUs that the QEMU underneath makes, under the rules of the boundary where it has some."""

import os
from collections.abc import Sequence
from pathlib import Path

from armferry.boundary import Preload, library
from armferry.hosts.fingerprints.probe import Vcpus, probe_vcpus, vcpus_of
from armferry.hosts.qmp.process import QemuProcess

__all__ = ["ask_vcpus"]


def ask_vcpus(program: Path, words: Sequence[str], table: bytes = b"") -> Vcpus:
    """The vCPUs of the machine that `words` describe; with a `table`, packed, under its rules.

    Raises QemuProcessError or StreamError.
    """
    path = library() if table else None
    if path is None:
        return probe_vcpus(program, words)
    preload = Preload.of(table, path)
    try:
        process = QemuProcess(
            program,
            words,
            paused=True,
            environment=preload.environment(os.environ),
            descriptors=(preload.table, preload.writing),
        )
    finally:
        preload.close_for_qemu()
        preload.reports.close()
    with process:
        return vcpus_of(process)
