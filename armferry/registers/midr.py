"""Who made a CPU and which one it is, from MIDR_EL1.

Implementer in bits 31..24, variant 23..20, architecture 19..16, part 15..4, revision 3..0: Arm
architecture manual (DDI 0487), MIDR_EL1. Part numbers: the technical reference manuals of the
CPUs.
"""

from dataclasses import dataclass

__all__ = ["CpuIdentity", "identify", "processor_list"]

_IMPLEMENTERS = {
    0x41: "Arm",
    0x42: "Broadcom",
    0x43: "Cavium",
    0x46: "Fujitsu",
    0x48: "HiSilicon",
    0x4E: "NVIDIA",
    0x50: "Applied Micro",
    0x51: "Qualcomm",
    0x61: "Apple",
    0x6D: "Microsoft",
    0xC0: "Ampere",
}

_PARTS = {
    (0x41, 0xD03): "Cortex-A53",
    (0x41, 0xD04): "Cortex-A35",
    (0x41, 0xD05): "Cortex-A55",
    (0x41, 0xD07): "Cortex-A57",
    (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD09): "Cortex-A73",
    (0x41, 0xD0A): "Cortex-A75",
    (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse N1",
    (0x41, 0xD0D): "Cortex-A77",
    (0x41, 0xD40): "Neoverse V1",
    (0x41, 0xD41): "Cortex-A78",
    (0x41, 0xD44): "Cortex-X1",
    (0x41, 0xD46): "Cortex-A510",
    (0x41, 0xD47): "Cortex-A710",
    (0x41, 0xD49): "Neoverse N2",
    (0x41, 0xD4A): "Neoverse E1",
    (0x41, 0xD4F): "Neoverse V2",
    (0x41, 0xD83): "Neoverse V3AE",
    (0x41, 0xD84): "Neoverse V3",
    (0x41, 0xD8E): "Neoverse N3",
    (0x43, 0x0A1): "ThunderX",
    (0x43, 0x0AF): "ThunderX2",
    (0x46, 0x001): "A64FX",
    (0x48, 0xD01): "Kunpeng 920",
    (0x4E, 0x004): "Carmel",
    (0x50, 0x000): "X-Gene",
    (0x51, 0xC00): "Falkor",
    (0x61, 0x022): "M1 Icestorm",
    (0x61, 0x023): "M1 Firestorm",
    (0x6D, 0xD49): "Cobalt 100",
    (0xC0, 0xAC3): "AmpereOne",
    (0xC0, 0xAC4): "AmpereOne A",
}


@dataclass(frozen=True, slots=True)
class CpuIdentity:
    """The fields of MIDR_EL1; `text` names them as far as they are known."""

    implementer: int
    part: int
    variant: int
    revision: int

    @property
    def text(self) -> str:
        """Such as `Arm Neoverse N1 r3p1`; numbers where there is no name."""
        maker = _IMPLEMENTERS.get(self.implementer, f"implementer {self.implementer:#04x}")
        model = _PARTS.get((self.implementer, self.part), f"part {self.part:#05x}")
        return f"{maker} {model} r{self.variant}p{self.revision}"


def identify(midr: int) -> CpuIdentity:
    return CpuIdentity(midr >> 24 & 0xFF, midr >> 4 & 0xFFF, midr >> 20 & 0xF, midr & 0xF)


def processor_list(numbers: tuple[int, ...]) -> str:
    """Processors as `taskset --cpu-list` takes them: `0-3,6`."""
    parts: list[str] = []
    begin = last = -2
    for number in (*sorted(numbers), -2):
        if number == last + 1:
            last = number
            continue
        if begin >= 0:
            parts.append(str(begin) if begin == last else f"{begin}-{last}")
        begin = last = number
    return ",".join(parts)
