"""armferry for programs: schedulers, orchestrators, tools of a distribution.

Each function does what the command of its name does, prints nothing, ends nothing and raises
`armferry.errors.ArmferryError`. The names here, and the fields of what they return, stay as they
are within a major version; they stand at the top of the package as well: `armferry.check(...)`.
"""

from armferry.api.decisions import Plan, Report, check, plan
from armferry.api.hosts import fingerprint
from armferry.api.rules import Rules
from armferry.api.states import Inspection, inspect

__all__ = ["Inspection", "Plan", "Report", "Rules", "check", "fingerprint", "inspect", "plan"]
