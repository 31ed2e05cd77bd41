"""Which rules a guest's QEMU runs under at the KVM boundary, from everything that was said of it.

Rules come from the policy (hidden registers), the command line (the PSCI version, single fields,
carrying) and the host that the guest is born as. Where two speak of the same bits of a register,
the command line counts. Refuses to know how the library is put into QEMU.
"""

from collections.abc import Iterable, Mapping

from armferry.boundary import ALL_BITS, Action, Rule, birth, carry, hide, pin
from armferry.boundary.trial import obstacles_here
from armferry.ends import End, NotKnown
from armferry.hosts.fingerprints.kvm import KvmHost, ask
from armferry.policy import Policy, PsciVersion
from armferry.registers import (
    Accelerator,
    Cp32,
    Cp64,
    accelerator_of,
    decode,
    psci_version_text,
)
from armferry.wrapper.commandline.host_properties import SysregField
from armferry.wrapper.errors import ArgumentFault

__all__ = ["birth_rules", "carried_rules", "field_rules", "hidden_rules", "psci_rules", "united"]

PSCI_VERSION = 0x6030_0000_0014_0000

_WIDTHS = (4, 8)


def hidden_rules(policy: Policy) -> list[Rule]:
    """Every hidden register of the policy that a vCPU under KVM may have."""
    return [hide(index) for index in policy.hidden if _of_kvm(index)]


def psci_rules(version: PsciVersion, program: str) -> list[Rule]:
    """The guest's PSCI version. Raises ArgumentFault when this kernel does not offer it."""
    newest = ask().registers.get(PSCI_VERSION)
    if newest is None:
        raise ArgumentFault(
            f"{program}: kvm-psci-version={version}: this host's kernel does not let the PSCI "
            "version be set"
        )
    if version.value > newest:
        raise ArgumentFault(
            f"{program}: kvm-psci-version={version}: this host's kernel offers PSCI "
            f"{psci_version_text(newest)} at most"
        )
    rules = [pin(PSCI_VERSION, version.value)]
    _refuse_untakeable(rules, f"{program}: kvm-psci-version={version}")
    return rules


def field_rules(fields: Iterable[SysregField], program: str) -> list[Rule]:
    """Single fields of registers. Raises ArgumentFault when this kernel does not let one be set."""
    rules = [pin(one.index, one.value, one.field.mask) for one in fields]
    _refuse_untakeable(united(rules), f"{program}: SYSREG properties")
    return rules


def birth_rules(text: str, other: End, policy: Policy, program: str, where: str) -> list[Rule]:
    """The host `other`, written `text`, presented by this one.

    Raises ArgumentFault, with every register that stands in the way, when this kernel cannot.
    """
    about = f"{program}: {where}={text}"
    if accelerator_of(other.cpus[0]) is not Accelerator.KVM:
        raise ArgumentFault(f"{about}: it is no host with KVM, so no guest here can be born as it")
    if not other.at_reset:
        raise ArgumentFault(
            f"{about}: it was recorded from a guest that ran, so its values are not those of the "
            "host; give a fingerprint of the host (armferry fingerprint kvm) or an atlas entry"
        )
    host = ask()
    own = _without(host, policy)
    presented = {
        index: value for index, value in other.registers(0).items() if index not in policy.hidden
    }
    kernel = "" if isinstance(other.kernel, NotKnown) else other.kernel
    found = birth(own, presented, kernel)
    obstacles = found.obstacles or obstacles_here(found.rules)
    if obstacles:
        raise ArgumentFault(
            f"{about}: this host's kernel, Linux {host.kernel}, cannot present that host:\n"
            + "\n".join(f"  {one}" for one in obstacles)
        )
    return list(found.rules)


def carried_rules(policy: Policy) -> list[Rule]:
    """The safe-missing registers, kept where this kernel lacks them; at reset what the policy
    knows they hold then."""
    rules: list[Rule] = []
    for index in policy.safe_missing:
        if index not in policy.hidden and _of_kvm(index):
            known = sorted(policy.resets.get(index, ()))
            rules.append(carry(index, known[0] if known else 0))
    return rules


def united(*groups: Iterable[Rule]) -> list[Rule]:
    """All rules; of two that set the same bits of a register, or carry it, the later group's."""
    set_of: dict[int, Rule] = {}
    carried: dict[int, Rule] = {}
    others: set[Rule] = set()
    for rule in (rule for group in groups for rule in group):
        if rule.action is Action.SET:
            before = set_of.get(rule.index)
            if before is not None:
                mask = before.mask | rule.mask
                value = (before.value & ~rule.mask & ALL_BITS) | rule.value
                rule = pin(rule.index, value, mask)
            set_of[rule.index] = rule
        elif rule.action is Action.CARRY:
            carried[rule.index] = rule
        else:
            others.add(rule)
    gone = {rule.index for rule in others if rule.action is Action.HIDE}
    return [
        *others,
        *set_of.values(),
        *(rule for index, rule in carried.items() if index not in gone),
    ]


def _of_kvm(index: int) -> bool:
    """Whether a vCPU may have the register; none has those of AArch32, which are TCG's alone."""
    aarch32 = isinstance(decode(index), Cp32 | Cp64)
    return not aarch32 and 1 << (index >> 52 & 0xF) in _WIDTHS


def _without(host: KvmHost, policy: Policy) -> Mapping[int, int]:
    return {index: value for index, value in host.registers.items() if index not in policy.hidden}


def _refuse_untakeable(rules: Iterable[Rule], about: str) -> None:
    obstacles = obstacles_here(rules)
    if obstacles:
        listed = "; ".join(map(str, obstacles))
        raise ArgumentFault(f"{about}: this host's kernel does not let it be set: {listed}")
