"""Debian's arm64 archive, seen from any Debian machine, without touching that machine's apt.

The state (lists, downloaded packages) is a directory of our own; the machine's apt configuration
is still read underneath it, so proxies, credentials and mirrors keep working. Package files are
found by name in the Packages indexes: point releases roll, so no version is written down here.

Refuses to know what a package is for. Sources of fact: apt.conf(5), apt-get(8) indextargets,
sources.list(5), deb-control(5).
"""

import hashlib
import os
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from armferry.errors import EnvironmentFault
from armferry.lab.apt_sources import debian_mirror

__all__ = ["SUITES", "AptFault", "AptState", "Package", "parse_packages"]

DAY = 24 * 60 * 60
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

# Oldest first: of two packages with one name, the one of the later suite is preferred.
SUITES = ("bullseye", "bookworm", "bookworm-backports", "trixie", "trixie-backports")


class AptFault(EnvironmentFault):
    """apt is missing or failed; the message carries its own words."""


@dataclass(frozen=True, slots=True)
class Package:
    """One entry of a Packages index."""

    name: str
    version: str
    suite: str
    sha256: str


def parse_packages(index: str, suite: str, name: re.Pattern[str]) -> Iterator[Package]:
    """Entries of a Packages index whose name matches `name` wholly.

    Entries without a SHA256 are passed over: what cannot be verified is not offered.
    """
    # Indexes are 20 MB: a stanza is looked at only when its first line fits.
    for match in re.finditer(rf"^Package: ({name.pattern})$", index, re.MULTILINE):
        end = index.find("\n\n", match.start())
        stanza = index[match.start() : end if end >= 0 else len(index)]
        fields = dict(re.findall(r"^([\w-]+): (.*)$", stanza, re.MULTILINE))
        if "SHA256" in fields:
            yield Package(fields["Package"], fields["Version"], suite, fields["SHA256"])


def _is(file: Path, package: Package) -> bool:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest() == package.sha256


class AptState:
    """An apt of our own for arm64, kept in `directory`."""

    def __init__(self, directory: Path, suites: Sequence[str] = SUITES) -> None:
        self.directory = directory
        self.suites = tuple(suites)

    def update(self) -> None:
        """Fetch the Packages indexes of every suite. About 5 s and 30 MB the first time.

        Raises `AptFault`.
        """
        for part in ("state/lists/partial", "cache/archives/partial", "packages"):
            (self.directory / part).mkdir(parents=True, exist_ok=True)
        mirror = debian_mirror()
        lines = (f"deb [signed-by={KEYRING}] {mirror} {suite} main" for suite in self.suites)
        self._sources.write_text("\n".join([*lines, ""]))
        # Backports and old suites stop renewing the validity date of their Release file; a
        # server of an index can so serve an old one, and no other (docs/lab.md).
        self._config.write_text(
            f'Dir::State "{self.directory}/state";\n'
            'Dir::State::status "/dev/null";\n'
            f'Dir::Cache "{self.directory}/cache";\n'
            f'Dir::Etc::sourcelist "{self._sources}";\n'
            'Dir::Etc::sourceparts "-";\n'
            'APT::Architecture "arm64";\n'
            'APT::Architectures { "arm64"; };\n'
            'APT::Sandbox::User "";\n'
            'Acquire::Languages "none";\n'
            'Acquire::Check-Valid-Until "false";\n'
        )
        self._run(["apt-get", "-qq", "update"])

    def packages(self, name: re.Pattern[str]) -> list[Package]:
        """Every package whose name matches wholly, in the order of the suites.

        Raises `AptFault`. Fetches the indexes when there are none, or none of the last day:
        the archive deletes what a point release replaced.
        """
        if not self._config.exists() or time.time() - self._config.stat().st_mtime > DAY:
            self.update()
        found: list[Package] = []
        for suite, index in self._indexes():
            text = self._run(["/usr/lib/apt/apt-helper", "cat-file", index])
            found += parse_packages(text, suite, name)
        return sorted(found, key=lambda package: self.suites.index(package.suite))

    def download(self, package: Package) -> Path:
        """The package file, hashed against the signed index, also one that was there before.

        Raises `AptFault`.
        """
        directory = self.directory / "packages" / package.sha256
        directory.mkdir(parents=True, exist_ok=True)
        found = [file for file in directory.glob("*.deb") if _is(file, package)]
        if not found:
            for other in directory.glob("*.deb"):
                other.unlink()  # damaged, or somebody else's
            request = f"{package.name}={package.version}"
            self._run(["apt-get", "-qq", "download", request], cwd=directory)
            found = list(directory.glob("*.deb"))
        if len(found) != 1:
            raise AptFault(
                f"apt-get download {package.name} left {len(found)} files in {directory}:"
                " remove that directory and try again"
            )
        if not _is(found[0], package):
            raise AptFault(f"{found[0]}: its SHA-256 is not {package.sha256}, that of the index")
        return found[0]

    @property
    def _config(self) -> Path:
        return self.directory / "apt.conf"

    @property
    def _sources(self) -> Path:
        return self.directory / "sources.list"

    def _indexes(self) -> list[tuple[str, str]]:
        """Suite and file of every Packages index."""
        wanted = "$(RELEASE) $(FILENAME)"
        listing = self._run(["apt-get", "indextargets", "--format", wanted, "Created-By: Packages"])
        return [
            (suite, file) for suite, _, file in (r.partition(" ") for r in listing.splitlines())
        ]

    def _run(self, command: Sequence[str], cwd: Path | None = None) -> str:
        environment = {**os.environ, "LC_ALL": "C.UTF-8", "APT_CONFIG": str(self._config)}
        try:
            done = subprocess.run(
                command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
            )
        except FileNotFoundError as missing:
            raise AptFault(
                f"{missing.filename} is not installed: the lab takes its kernels and QEMUs from"
                " Debian's archive and needs apt (run it on Debian or Ubuntu)"
            ) from missing
        if done.returncode != 0:
            words = done.stderr.strip() or done.stdout.strip()
            raise AptFault(f"{' '.join(command)} failed with exit code {done.returncode}: {words}")
        return done.stdout
