"""Who allowed what: whether a risk may be taken without asking once more.

Nothing above lossless happens unless the user names the register (in a list, in a rule for it, by
accepting its risk) or accepts the whole sort of risk. What a shipped level says, and a rule for a
whole kind of register, is a permission but no acceptance of a risk.
"""

from collections.abc import Iterable

from armferry.decide.risk_level import Risk
from armferry.policy import AcceptedRisk, Origin, OriginKind

__all__ = ["accepts", "accepts_subsection"]

_USER = (OriginKind.SITE, OriginKind.FILE, OriginKind.COMMAND_LINE)


def accepts(
    accepted: AcceptedRisk, index: int, risk: Risk, origins: Iterable[Origin], *, named: bool
) -> bool:
    """Whether `risk` of a register may be taken.

    `origins` are those of the rule that would do it, `named` whether it names this very register.
    """
    return (
        risk <= Risk.LOSSLESS
        or index in accepted.registers
        or _accepts_sort(accepted, risk)
        or (named and any(origin.kind in _USER for origin in origins))
    )


def accepts_subsection(accepted: AcceptedRisk, name: str) -> bool:
    """Whether the content of a subsection may be lost."""
    return name in accepted.subsections or _accepts_sort(accepted, Risk.LOSSY)


def _accepts_sort(accepted: AcceptedRisk, risk: Risk) -> bool:
    """Whether the whole sort of a risk above lossless may be taken."""
    if risk is Risk.GUEST_VISIBLE:
        return accepted.guest_visible or accepted.lossy
    return accepted.lossy if risk is Risk.LOSSY else accepted.breaks
