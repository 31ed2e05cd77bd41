"""The QEMU command line that libvirt would start a domain with.

libvirt itself is asked (`virsh domxml-to-native`); where it is not at hand, only what the XML says
by itself is known: machine, CPU, memory and vCPUs.
"""

import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from armferry.errors import ArmferryError
from armferry.hosts.libvirt.domain import DomainFacts, UnreadableDomain, read_domain

__all__ = ["DomainCommand", "domain_command"]

_LIMIT = 30.0
_MAX_XML = 4 << 20
_COUNT = re.compile("[0-9]{1,15}")
_SETTING = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)
_UNITS = {"b": 1, "bytes": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


@dataclass(frozen=True, slots=True)
class DomainCommand:
    """`words` is the whole command line without the program, None where libvirt was not asked and
    `why` says why not. `memory` is in MiB.
    """

    facts: DomainFacts
    words: tuple[str, ...] | None
    why: str
    vcpus: int
    memory: int


def domain_command(path: Path, virsh: str = "virsh") -> DomainCommand:
    """What the domain XML in the file `path` describes. Raises ArmferryError."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_XML + 1)
    except OSError as error:
        raise ArmferryError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > _MAX_XML:
        raise ArmferryError(f"{path}: longer than the XML of any domain")
    try:
        text = data.decode("utf-8")
        facts = read_domain(text)
    except (UnicodeDecodeError, UnreadableDomain) as error:
        raise ArmferryError(f"{path}: {error}") from None
    if facts is None:
        raise ArmferryError(f"{path}: this is no domain of aarch64")
    words, why = _native(path, virsh)
    vcpus, memory = _sizes(text)
    return DomainCommand(facts, words, why, vcpus, memory)


def _native(path: Path, virsh: str) -> tuple[tuple[str, ...] | None, str]:
    program = shutil.which(virsh)
    if program is None:
        return None, "virsh is not installed here"
    command = [program, "domxml-to-native", "qemu-argv", "--xml", str(path)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_LIMIT, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"virsh did not answer: {str(error)[:200]}"
    words = tuple(shlex.split(done.stdout.replace("\\\n", " "))) if not done.returncode else ()
    while words and _SETTING.fullmatch(words[0]):
        words = words[1:]
    if len(words) < 2:
        said = " ".join(done.stderr.split())[:200] or "nothing"
        return None, f"virsh said: {said}"
    return words[1:], ""


def _sizes(text: str) -> tuple[int, int]:
    """vCPUs, and MiB of memory, of a domain that was read before."""
    root = ElementTree.fromstring(text)  # noqa: S314 - read_domain takes no document type
    domain = root if root.tag == "domain" else root.find("domain")
    assert domain is not None
    vcpu, memory = domain.find("vcpu"), domain.find("memory")
    count = _number(vcpu.get("current") or vcpu.text or "1") if vcpu is not None else 1
    if memory is None:
        return count, 64
    unit = _UNITS.get((memory.get("unit") or "KiB").lower().removesuffix("ib")[:5], 1 << 10)
    return count, max(1, _number(memory.text or "0") * unit >> 20)


def _number(text: str) -> int:
    """A count in a domain's XML. Raises ArmferryError."""
    if _COUNT.fullmatch(text.strip()) is None:
        raise ArmferryError(f"{text[:40]!r} in the domain's XML is no number of vCPUs or memory")
    return int(text)
