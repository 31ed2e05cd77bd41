"""Which Debian mirror this machine's apt uses.

Reads both formats of sources.list(5): one line per source, and deb822 stanzas. Knows only how to
find Debian's own archive among the entries; third-party and security archives are passed over.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from armferry.errors import EnvironmentFault

__all__ = ["NoMirror", "debian_mirror"]

_SUITE = re.compile(
    r"(?:stable|oldstable|oldoldstable|testing|unstable|sid"
    r"|buster|bullseye|bookworm|trixie|forky|duke)(?:-updates|-backports)?"
)
_SCHEME = re.compile(r"(?:https?|ftp|file|copy|mirror)(?:\+\w+)?:")
_ARCHIVE = re.compile(r"/debian(?:/\d{8}T\d{6}Z)?/?$")


class NoMirror(EnvironmentFault):
    """This machine's apt has no archive of Debian to take packages from."""


@dataclass(frozen=True, slots=True)
class _Source:
    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]


def debian_mirror(apt: Path = Path("/etc/apt")) -> str:
    """The URL of the Debian archive that the apt configuration in `apt` uses. Raises NoMirror.

    An entry counts as Debian's own when its suite has a Debian name, it offers `main`, and its
    address ends with `/debian`, or with that and the time of a snapshot. The first one wins, in
    apt's reading order.
    """
    for source in _sources(apt):
        if "main" not in source.components or not any(map(_SUITE.fullmatch, source.suites)):
            continue
        for uri in source.uris:
            if _SCHEME.match(uri) and _ARCHIVE.search(uri) and "debian-security" not in uri:
                return uri.rstrip("/")
    raise NoMirror(
        f"{apt}: names no archive of Debian: the lab takes kernels and QEMUs from the one that "
        "this machine's apt uses; add its line to sources.list (deb URL trixie main), then "
        "apt-get update"
    )


def _sources(apt: Path) -> Iterator[_Source]:
    for path in (apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))):
        if not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.suffix == ".list":
            yield from _one_line(text)
        elif path.suffix == ".sources":
            yield from _deb822(text)


def _one_line(text: str) -> Iterator[_Source]:
    for line in text.splitlines():
        bare = re.sub(r"\[[^]]*\]", " ", line.split("#", 1)[0])
        words = tuple(bare.split())
        if len(words) >= 4 and words[0] == "deb":
            yield _Source(uris=words[1:2], suites=words[2:3], components=words[3:])


def _deb822(text: str) -> Iterator[_Source]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for stanza in re.split(r"\n\s*\n", "\n".join(lines)):
        fields: dict[str, tuple[str, ...]] = {}
        for match in re.finditer(r"^([\w-]+):((?:.*)(?:\n[ \t].*)*)", stanza, re.MULTILINE):
            fields[match[1].lower()] = tuple(match[2].split())
        if "deb" in fields.get("types", ()) and fields.get("enabled") != ("no",):
            yield _Source(
                uris=fields.get("uris", ()),
                suites=fields.get("suites", ()),
                components=fields.get("components", ()),
            )
