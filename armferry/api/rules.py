"""What may differ between the two ends, as a program says it: the policy options of a command."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from armferry.policy import SITE_FOLDER, Policy, aggregate, from_options, read_file, read_site
from armferry.registers import Accelerator

__all__ = ["Rules"]


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of a move, written as the options of `armferry check` are.

    `hidden_regs` and `safe_missing_regs` are lists in QEMU's syntax (`"TCR2_EL1,0x6030..."`),
    `tolerate` rules (`"TCR2_EL1: only-source-if-reset"`), `kvm_psci_version` a version (`"1.1"`),
    `accept_risk` registers, `guest-visible`, `lossy` or `breaks`; `files` are policy files.
    `builtin` takes the compat levels that come with armferry, `site` those of /etc/armferry.
    `machine` is the machine type whose levels apply where neither end names one.

    >>> Rules(tolerate=["TCR2_EL1: only-source-if-reset"], accept_risk=["PSCI_VERSION"]).builtin
    True
    """

    hidden_regs: Sequence[str] = ()
    safe_missing_regs: Sequence[str] = ()
    tolerate: Sequence[str] = ()
    kvm_psci_version: str = ""
    accept_risk: Sequence[str] = ()
    files: Sequence[Path] = ()
    builtin: bool = True
    site: bool = True
    machine: str = ""

    def policy(self, machine: str, accelerator: Accelerator | None) -> Policy:
        """What applies to guests of `machine`. Raises PolicyError."""
        return aggregate(
            machine or self.machine,
            accelerator,
            builtin=self.builtin,
            site=read_site(SITE_FOLDER) if self.site else (),
            files=[read_file(path) for path in self.files],
            command_line=from_options(
                hidden=self.hidden_regs,
                safe_missing=self.safe_missing_regs,
                tolerate=self.tolerate,
                psci_versions=[self.kvm_psci_version] if self.kvm_psci_version else [],
                accept_risk=self.accept_risk,
            ),
        )
