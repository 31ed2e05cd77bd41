"""armferry for programs: schedulers, orchestrators, tools of a distribution.

Each function does what the command of its name does, prints nothing, ends nothing and raises
`armferry.errors.ArmferryError`. The names here, and the fields of what they return, stay as they
are within a major version; they stand at the top of the package as well: `armferry.check(...)`.
"""

from armferry.api.decisions import Plan, Report, check, plan
from armferry.api.ferrying import Ferried, ferry
from armferry.api.hosts import fingerprint
from armferry.api.rules import Rules
from armferry.api.states import Inspection, inspect

__all__ = [
    "Ferried",
    "Inspection",
    "Plan",
    "Report",
    "Rules",
    "check",
    "ferry",
    "fingerprint",
    "inspect",
    "plan",
]
