"""What QEMU releases and kernels do, as data: one loader, each set with what it rests on."""

from armferry.facts.machines import unversioned_machines
from armferry.facts.measured import (
    FactSubject,
    Unmeasured,
    measured_from,
    measured_to,
    unmeasured,
)
from armferry.facts.qemu import (
    Abort,
    MissingRule,
    QemuRules,
    is_reset_content,
    qemu_rules,
    tcg_ignores_writes,
)
from armferry.facts.release import (
    UnknownQemuVersion,
    newest_match,
    qemu_release,
    release_key,
    series_of,
)

__all__ = [
    "Abort",
    "FactSubject",
    "MissingRule",
    "QemuRules",
    "UnknownQemuVersion",
    "Unmeasured",
    "is_reset_content",
    "measured_from",
    "measured_to",
    "newest_match",
    "qemu_release",
    "qemu_rules",
    "release_key",
    "series_of",
    "tcg_ignores_writes",
    "unmeasured",
    "unversioned_machines",
]
