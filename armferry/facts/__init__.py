"""What QEMU releases and kernels do, as data: one loader, each set with what it rests on."""

from armferry.facts.conditions import Condition, condition_of, conditions
from armferry.facts.kept import KeptBits, kept_bits
from armferry.facts.kvm import holds_kvm_reset_pattern
from armferry.facts.machines import like_of_distribution, unversioned_machines
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
    is_device_subsection,
    is_reset_content,
    known_device_subsections,
    knows_device_subsection,
    means_unused,
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
    "Condition",
    "FactSubject",
    "KeptBits",
    "MissingRule",
    "QemuRules",
    "UnknownQemuVersion",
    "Unmeasured",
    "condition_of",
    "conditions",
    "holds_kvm_reset_pattern",
    "is_device_subsection",
    "is_reset_content",
    "kept_bits",
    "known_device_subsections",
    "knows_device_subsection",
    "like_of_distribution",
    "means_unused",
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
