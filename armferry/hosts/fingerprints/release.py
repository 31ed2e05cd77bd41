"""Release names of kernels and QEMUs, as text: in which order they came, and which one is meant."""

import re
from collections.abc import Iterable

__all__ = ["newest_match", "release_key"]


def release_key(release: str) -> tuple[int, ...]:
    """Sorts releases oldest first: every number in the text counts, in order."""
    return tuple(int(number) for number in re.findall(r"\d+", release))


def newest_match(request: str, releases: Iterable[str]) -> str | None:
    """The newest release that `request` names: itself, or one that continues it.

    `6.1` continues as `6.1.0-50`, never as `6.12.95`.
    """
    fitting = [
        release
        for release in releases
        if release == request or re.match(re.escape(request) + r"[.+-]", release)
    ]
    return max(fitting, key=release_key, default=None)
