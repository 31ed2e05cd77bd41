"""Parts of the cpu section whose loss is accepted by name."""

from armferry.policy import (
    AcceptedRisk,
    OriginKind,
    Policy,
    aggregate,
    parse_accepted,
    parse_document,
    to_toml,
)


def test_named_beside_registers_and_sorts_of_risk() -> None:
    assert parse_accepted(["cpu/fpmr", "TCR2_EL1", "guest-visible", " cpu/zt0 "]) == AcceptedRisk(
        frozenset({0x603000000013C103}), True, False, frozenset({"cpu/fpmr", "cpu/zt0"})
    )


def test_written_and_read_back() -> None:
    policy = Policy(accepted=AcceptedRisk(subsections=frozenset({"cpu/zt0", "cpu/fpmr"})))
    text = to_toml(policy)
    assert text == 'accept-risk = ["cpu/fpmr", "cpu/zt0"]\n'
    document = parse_document(text, "policy.toml", OriginKind.FILE)
    assert aggregate("virt", None, builtin=False, files=[document]).accepted == policy.accepted


def test_united() -> None:
    one = AcceptedRisk(subsections=frozenset({"cpu/fpmr"}))
    other = AcceptedRisk(subsections=frozenset({"cpu/zt0"}), lossy=True)
    united = AcceptedRisk(subsections=frozenset({"cpu/fpmr", "cpu/zt0"}), lossy=True)
    assert one.union(other) == other.union(one) == united
    assert one.union(one) == one
