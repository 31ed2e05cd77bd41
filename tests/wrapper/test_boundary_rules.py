"""Rules of several sources, united: the later one counts where two set the same bits."""

from armferry.boundary import Action, Rule, Table, carry, hide, pin
from armferry.policy import Origin, OriginKind, Policy
from armferry.wrapper.beside.boundary_rules import carried_rules, hidden_rules, united

PSCI, TCR2, PIR = 0x6030000000140000, 0x603000000013C103, 0x603000000013C513
WIDE = 0x6040000000150000
DBGDTRTX = 0x40200000200E0298
"""Of AArch32: in a level of every machine type before virt-11.0, and in no list of KVM's."""
WHERE = (Origin(OriginKind.COMMAND_LINE, "-cpu"),)


def test_later_settings_count() -> None:
    assert united([pin(PSCI, 0x10000)], [pin(PSCI, 0x10001)]) == [pin(PSCI, 0x10001)]
    assert united([pin(PSCI, 0xA, 0xF)], [pin(PSCI, 0x50, 0xF0)]) == [pin(PSCI, 0x5A, 0xFF)]
    assert united([pin(PSCI, 0xA, 0xF)], [pin(PSCI, 0x4, 0x6)]) == [pin(PSCI, 0xC, 0xF)]


def test_hidden_register_is_not_carried() -> None:
    rules = united([carry(TCR2, 0), carry(PIR, 1)], [hide(TCR2)], [carry(PIR, 2)])
    assert sorted(rules) == [hide(TCR2), carry(PIR, 2)]


def test_every_union_is_a_table() -> None:
    parts = [[pin(PSCI, 1), hide(PSCI)], [pin(PSCI, 2)], [hide(PSCI), carry(TCR2, 0)]]
    assert len(Table(united(*parts)).rules) == 3


def test_policy_as_rules() -> None:
    policy = Policy(
        hidden={PSCI: WHERE, WIDE: WHERE, DBGDTRTX + 1: WHERE},
        safe_missing={TCR2: WHERE, PIR: WHERE, PSCI: WHERE, DBGDTRTX: WHERE},
        resets={PIR: frozenset((7,))},
    )
    assert hidden_rules(policy) == [hide(PSCI)]
    assert carried_rules(policy) == [carry(TCR2, 0), Rule(PIR, Action.CARRY, 7)]
