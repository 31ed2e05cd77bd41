"""What sort of thing a register holds, told from its encoding and its name.

Knows the kinds and the rules that assign them; refuses to know where names come from. The rules
follow the functional groups of the Arm Architecture Reference Manual (DDI 0487); they are tables,
first match wins.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import cache

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
)

__all__ = ["Kind", "constant_of", "kind_of"]


class Kind(Enum):
    """What a register holds. The value is the word to print."""

    IDENTIFICATION = "identification"
    AFFINITY = "affinity"
    CACHE_GEOMETRY = "cache geometry"
    CONFIGURATION = "configuration"
    TRANSLATION = "translation"
    CONTEXT = "context"
    EXCEPTION = "exception"
    POINTER_AUTH_KEY = "pointer-auth key"
    VECTOR = "vector"
    PMU = "pmu"
    DEBUG = "debug"
    TRACE = "trace"
    TIMER = "timer"
    RUNNING_COUNTER = "running counter"
    INTERRUPT_CONTROLLER = "interrupt controller"
    RAS = "error record"
    PARTITIONING = "memory partitioning"
    RANDOM = "random number"
    HYPERVISOR = "hypervisor"
    SECURE = "secure"
    CORE = "core"
    FIRMWARE_VERSION = "firmware version"
    FIRMWARE_BITMAP = "firmware bitmap"
    INSTRUCTION = "system instruction"
    IMPLEMENTATION_DEFINED = "implementation defined"
    RESERVED = "reserved"
    UNKNOWN = "unknown"

    def __str__(self) -> str:
        return self.value

    @property
    def is_firmware(self) -> bool:
        """Whether it is what the firmware offers the guest: a version or a bitmap."""
        return self in (Kind.FIRMWARE_VERSION, Kind.FIRMWARE_BITMAP)


_BY_NAME: tuple[tuple[Kind, str], ...] = (
    # Counters first: they share their prefix with registers that merely steer them.
    (Kind.RUNNING_COUNTER, r"TIMER_CNT|CNTP?V?CT(SS)?(_EL0)?|PMCCNTR.*|PMICNTR_EL0"),
    (Kind.TIMER, r"TIMER_CVAL|CNT.*"),
    (Kind.RANDOM, r"RNDR(RS)?"),
    (Kind.AFFINITY, r"MPIDR(_EL1)?"),
    (Kind.CACHE_GEOMETRY, r"CCSIDR.*"),
    (Kind.CONFIGURATION, r"CSSELR(_EL1)?"),
    (Kind.POINTER_AUTH_KEY, r"AP[ID][AB]KEY(LO|HI)_EL1|APGAKEY(LO|HI)_EL1"),
    (
        Kind.IDENTIFICATION,
        (
            r"(MIDR|REVIDR|AIDR|CTR|DCZID|CLIDR|TCMTR|TLBTR|GMID|SMIDR|MPUIR)(_EL\d)?"
            r"|ID_.*|MVFR\d_EL1|LORID_EL1|MECIDR_EL2"
        ),
    ),
    (Kind.PARTITIONING, r"MPAM.*|V?MECID_.*"),
    (Kind.TRACE, r"TRC.*|TRFCR.*|HTRFCR|BRB.*|TRB.*"),
    (
        Kind.DEBUG,
        (
            r"DBG.*|MD(CCINT|CCSR|SCR|RAR|SELR|STEPOP)_EL[01]|OS(DTRRX|DTRTX|ECCR|LAR|LSR|DLR)_EL1"
            r"|DLR(_EL0)?|DSPSR2?(_EL0)?|WFAR"
        ),
    ),
    (Kind.INTERRUPT_CONTROLLER, r"IC[CH]_.*"),
    (Kind.PMU, r"PM(?!$).*|SPM.*|AM(?!AIR).*"),
    (Kind.RAS, r"ER[RX].*|V?DISR.*|VSESR_EL\d|VDFSR"),
    (Kind.VECTOR, r"ZCR_.*|SMCR_.*|SMPRI.*|SVCR|FP[CSM]R|FPEXC.*|TPIDR2_EL0"),
    (Kind.SECURE, r".*_EL3|SCR|SDCR|NSACR|MVBAR|SDER.*|GPC.*|GPT.*|.*_EL3_QEMU"),
    (
        Kind.HYPERVISOR,
        (
            r".*_EL2|.*_EL[01]2|H(A?CTLR2?|ACR|ADFSR|AIFSR|A?MAIR\d|CPTR|CR2?|DCR|[DI]FAR|PFAR|RMR"
            r"|SCTLR|SR|STR|TCR|TPIDR|TTBR|VBAR)|VTCR|VTTBR|VM?PIDR"
        ),
    ),
    (
        Kind.TRANSLATION,
        (
            r"TTBR.*|TCR2?_.*|TTBCR2?|A?MAIR\w*|PRRR|NMRR|PIRE?0?_.*|S?2?POR_.*|S2PIR_.*|PR[BLES].*"
            r"|PAR(_.*)?|DACR.*|LOR.*|RCW.*|CONTEXTIDR(_EL1)?|FCSEIDR"
        ),
    ),
    (
        Kind.EXCEPTION,
        (
            r"(ESR|FAR|PFAR|AFSR\d|TFSR|TFSRE0|ISR|VBAR|RVBAR|RMR)_EL\d|[DI]F[AS]R|A[DI]FSR|ISR"
            r"|VBAR|RVBAR|RMR"
        ),
    ),
    (
        Kind.CONFIGURATION,
        (
            r"SCTLR2?(_EL1)?|ACTLR2?(_EL1)?|CPACR(_EL1)?|RGSR_EL1|GCR_EL1|GCSCR.*|ACCDATA_EL1"
            r"|TEECR(32_EL1)?|TEEHBR(32_EL1)?|JIDR|JOSCR|JMCR|CPM_IOACC_CTL_EL3"
        ),
    ),
    (
        Kind.CONTEXT,
        (
            r"TPIDR.*|SP_EL\d|SPSEL|SPSR.*|ELR.*|CURRENTEL|DAIF|NZCV|PAN|UAO|ALLINT|PM|DIT|SSBS|TCO"
            r"|SCXTNUM_.*|GCSPR_.*"
        ),
    ),
)

_CONSTANT_KINDS = frozenset(
    (
        Kind.IDENTIFICATION,
        Kind.CACHE_GEOMETRY,
        Kind.RESERVED,
        Kind.IMPLEMENTATION_DEFINED,
        Kind.INSTRUCTION,
    )
)
# Read-only by the architecture and not decided by anything the guest does.
_CONSTANT = (
    r"PMCEID\d(_EL0)?|PMMIR(_EL1)?|RVBAR(_EL\d)?|ERRIDR(_EL1)?|DBGAUTHSTATUS(_EL1)?|MDRAR_EL1"
    r"|DBGDIDR|DBGD[RS]AR(_32|_64)?|DBGDEVID\d?(_QEMU)?|JIDR|MPAMIDR_EL1|PM[SB]IDR_EL1|TRBIDR_EL1"
    r"|BRBIDR0_EL1|AMCFGR(_EL0)?|AMCGCR(_EL0)?|AMCG1IDR_EL0|SPM(IIDR|DEVARCH|DEVAFF|CFGR|CGCR\d)_EL1"
    r"|TRCIDR\d+|TRCDEV(ID|TYPE|ARCH|AFF\d)|TRC[PC]IDR\d|ICH_VTR_EL2"
)


def kind_of(encoding: Encoding, name: str) -> Kind:
    """The kind of a register. `name` is its name, or its encoding when nobody named it."""
    match encoding:
        case Demux(space=0):
            return Kind.CACHE_GEOMETRY
        case Firmware():
            return Kind.FIRMWARE_VERSION
        case FirmwareBitmap():
            return Kind.FIRMWARE_BITMAP
        case Sve():
            return Kind.VECTOR
        case Core():
            return Kind.CORE
        case Demux() | Unknown():
            return Kind.UNKNOWN
    if isinstance(encoding, Arm64System) and encoding.op0 == 1:
        return Kind.INSTRUCTION
    if _is_implementation_defined(encoding):
        return Kind.IMPLEMENTATION_DEFINED
    for kind, pattern in _rules():
        if pattern.fullmatch(name):
            return kind
    if _is_identification_space(encoding):
        return Kind.RESERVED
    return Kind.UNKNOWN


def constant_of(name: str, kind: Kind) -> bool:
    """Whether the host or the CPU model fixes the value, and nothing the guest does changes it."""
    return kind in _CONSTANT_KINDS or re.fullmatch(_CONSTANT, name) is not None


@cache
def _rules() -> tuple[tuple[Kind, re.Pattern[str]], ...]:
    # Compiled at the first question, not at import: the command line starts without it.
    return tuple((kind, re.compile(pattern)) for kind, pattern in _BY_NAME)


def _is_identification_space(encoding: Encoding) -> bool:
    match encoding:
        case Arm64System(op0=3, op1=op1, crn=0):
            return op1 in (0, 1, 3)
        case Cp32(cp=15, opc1=opc1, crn=0):
            return opc1 in (0, 1)
    return False


def _is_implementation_defined(encoding: Encoding) -> bool:
    match encoding:
        case Arm64System(op0=3, crn=crn):
            return crn in (11, 15)
        case Cp32(cp=15, opc1=opc1, crn=9, crm=crm):
            return opc1 == 1 and crm == 0
        case Cp32(cp=15, crn=crn):
            return crn in (11, 15)
        case Cp64(cp=15, crm=crm):
            return crm in (11, 15)
    return False
