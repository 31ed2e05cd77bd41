"""What may differ: properties, tolerances, compat levels, aggregation with provenance.

A `Policy` is built by `aggregate` from documents (shipped levels, site files, `--policy` files)
and options; `problems` says what in it cannot be meant. Everything meant for the other rooms is
named here.
"""

from .aggregate import aggregate, from_options, present_as
from .document import (
    SITE_FOLDER,
    Document,
    parse_accepted,
    parse_document,
    read_file,
    read_site,
)
from .errors import DocumentError, MachineError, PolicyError, PropertyError, RuleError
from .levels import MachineType, builtin_levels, resolve
from .problems import Problem, problems
from .properties import (
    CpuOption,
    Properties,
    format_cpu,
    format_global,
    format_list,
    parse_cpu,
    parse_global,
    parse_list,
    parse_psci_version,
)
from .rules import (
    EMPTY,
    NO_RISK,
    AcceptedRisk,
    CapAtDestination,
    DifferInMask,
    FieldsAtMostDestination,
    NotOnBothEnds,
    OnlySourceIf,
    OnlySourceIfReset,
    Origin,
    OriginKind,
    Policy,
    PsciVersion,
    Rekey,
    Selector,
    TakeDestination,
    Tolerance,
    TolerancePlaced,
)
from .tolerance import format_rule, format_tolerance, parse_tolerance
from .writing import to_toml

__all__ = [
    "EMPTY",
    "NO_RISK",
    "SITE_FOLDER",
    "AcceptedRisk",
    "CapAtDestination",
    "CpuOption",
    "DifferInMask",
    "Document",
    "DocumentError",
    "FieldsAtMostDestination",
    "MachineError",
    "MachineType",
    "NotOnBothEnds",
    "OnlySourceIf",
    "OnlySourceIfReset",
    "Origin",
    "OriginKind",
    "Policy",
    "PolicyError",
    "Problem",
    "Properties",
    "PropertyError",
    "PsciVersion",
    "Rekey",
    "RuleError",
    "Selector",
    "TakeDestination",
    "Tolerance",
    "TolerancePlaced",
    "aggregate",
    "builtin_levels",
    "format_cpu",
    "format_global",
    "format_list",
    "format_rule",
    "format_tolerance",
    "from_options",
    "parse_accepted",
    "parse_cpu",
    "parse_document",
    "parse_global",
    "parse_list",
    "parse_psci_version",
    "parse_tolerance",
    "present_as",
    "problems",
    "read_file",
    "read_site",
    "resolve",
    "to_toml",
]
