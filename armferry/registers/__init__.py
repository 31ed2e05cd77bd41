"""What a register is: index codec, catalogue, fields, and the words people use for them.

Knows no register list, no file and no host; reads only its own data. Everything meant for the
other rooms is named here.
"""

from .catalogue import (
    Accelerator,
    Register,
    accelerator_of,
    counts_vcpus,
    describe,
    encoding_text,
    is_constant,
    kind,
    name,
    names_cpu,
)
from .fields import Field, FieldDifference, Safer, Sign, field_fits
from .index import (
    Arm64System,
    Core,
    Cp32,
    Cp64,
    Demux,
    Encoding,
    Firmware,
    FirmwareBitmap,
    Sve,
    Unknown,
    decode,
    encode,
    system_index,
)
from .kind import Kind
from .parse import AmbiguousRegister, RegisterTextError, UnknownRegister, parse_register
from .value import (
    PsciVersionError,
    bitmap_services,
    decode_fields,
    differing_fields,
    explain_value,
    psci_version,
    psci_version_text,
)

__all__ = [
    "Accelerator",
    "AmbiguousRegister",
    "Arm64System",
    "Core",
    "Cp32",
    "Cp64",
    "Demux",
    "Encoding",
    "Field",
    "FieldDifference",
    "Firmware",
    "FirmwareBitmap",
    "Kind",
    "PsciVersionError",
    "Register",
    "RegisterTextError",
    "Safer",
    "Sign",
    "Sve",
    "Unknown",
    "UnknownRegister",
    "accelerator_of",
    "bitmap_services",
    "counts_vcpus",
    "decode",
    "decode_fields",
    "describe",
    "differing_fields",
    "encode",
    "encoding_text",
    "explain_value",
    "field_fits",
    "is_constant",
    "kind",
    "name",
    "names_cpu",
    "parse_register",
    "psci_version",
    "psci_version_text",
    "system_index",
]
