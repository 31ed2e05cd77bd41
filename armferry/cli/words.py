"""How values, registers and ends are put into words, the same in every command."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from armferry.hosts.fingerprints.fingerprint import Fingerprint, Provenance
from armferry.registers import decode_fields, explain_value

if TYPE_CHECKING:
    # a host that only writes its fingerprint loads neither
    from armferry.decide import Risk
    from armferry.stream import SavedState
    from armferry.stream.save_image import SaveImage

__all__ = ["end", "fields", "guest", "image", "risk_role", "source_of", "value", "vcpus"]

_AS_GOOD_AS_WHOLE = 32  # bits of a field

_ROLES = {
    "none": "good",
    "lossless": "good",
    "guest-visible": "warn",
    "lossy": "bad",
    "breaks": "bad",
}


def value(number: int | None) -> str:
    """A register's value, `-` where there is no register."""
    return "-" if number is None else f"{number:#x}"


def fields(index: int, number: int) -> str:
    """The fields of a value that are not zero, or what a firmware register's value says.

    A field that is as good as the whole register, an address, is left out.
    """
    words = explain_value(index, number)
    if words:
        return words
    return " ".join(
        f"{field.name}={amount if amount < 10 else hex(amount)}"
        for field, amount in decode_fields(index, number)
        if amount and field.width < _AS_GOOD_AS_WHOLE
    )


def vcpus(numbers: Sequence[int]) -> str:
    """vCPU numbers, ascending, runs shortened: `0-3 6`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return " ".join("-".join(map(str, run)) for run in runs)


def risk_role(risk: "Risk") -> str:
    """The role, for colour, of a risk."""
    return _ROLES[str(risk)]


def end(fingerprint: Fingerprint) -> str:
    """One end of a move in a line: machine, vCPUs, accelerator, what is known of its host."""
    about = fingerprint.provenance
    count = len(fingerprint.cpus)
    parts = [
        about.machine or "machine type unknown",
        f"{count} vCPU{'s' if count > 1 else ''}",
        fingerprint.accelerator.name,
        source_of(about),
        about.cpu,
    ]
    return ", ".join(part for part in parts if part)


def source_of(about: Provenance) -> str:
    """The QEMU and the kernel that a fingerprint came from, as far as known."""
    parts = [f"QEMU {about.qemu}" if about.qemu else "", about.kernel and f"Linux {about.kernel}"]
    return " on ".join(part for part in parts if part)


def image(around: "SaveImage") -> str:
    """The libvirt save image that a stream lies in."""
    runs = "runs on" if around.header.was_running else "stays paused"
    return f"libvirt save image, {around.header.compression.word}; the guest {runs} when restored"


def guest(saved: "SavedState") -> str:
    """In which state the guest of a stream was saved."""
    if saved.fresh:
        return "saved before it ever ran"
    return f"saved {saved.run_state}" if saved.run_state else "saved in an unknown state"
