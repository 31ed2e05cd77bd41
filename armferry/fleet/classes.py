"""Which class a host belongs to, for each kind of guest, and what to say when there are too many.

A class is named by its content (`armferry.decide.content`): the same on every host and in every
fleet, whatever else they report.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from armferry.decide.content import content_of
from armferry.hosts.fingerprints.as_end import end_of
from armferry.hosts.fingerprints.fingerprint import Fingerprint
from armferry.hosts.report import HostReport
from armferry.registers import name

__all__ = ["Classifier", "KindClass", "TooManyClasses", "alarm_of", "class_id", "unknown_class"]

_HOSTS_PER_CLASS = 10
_ENOUGH_HOSTS = 20
_DIGITS = 12


@dataclass(frozen=True, slots=True)
class KindClass:
    """A host's class for one kind of guest: `variants` maps the signature of each of its contents
    (one for each QEMU that differs) to a fingerprint that has it.
    """

    id: str
    kind: str
    variants: Mapping[str, Fingerprint]


@dataclass(frozen=True, slots=True)
class TooManyClasses:
    """The alarm: more classes than a tenth of the hosts. `splits` says what tells apart classes
    that are else the same, and how many pairs, the commonest first.
    """

    classes: int
    hosts: int
    splits: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        if not self.splits:
            return f"{self.classes} classes for {self.hosts} hosts, and no one thing splits them"
        named = ", ".join(f"{what} ({pairs} pairs)" for what, pairs in self.splits[:4])
        return (
            f"{self.classes} classes for {self.hosts} hosts; what splits classes that are else the "
            f"same: {named}; see whether fingerprints are made of hosts at reset"
        )


def class_id(kind: str, signatures: Iterable[str]) -> str:
    """The id of the class with these contents, 12 hexadecimal digits."""
    text = "\n".join((kind, *sorted(set(signatures))))
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def unknown_class(kind: str) -> str:
    """The id that stands for a host of which nothing is known for this kind of guest."""
    return class_id(kind, ())


class Classifier:
    """Classes of reports; each fingerprint is looked at once, however many hosts report it."""

    def __init__(self) -> None:
        self._signatures: dict[int, tuple[Fingerprint, str]] = {}

    def classes(self, report: HostReport) -> tuple[KindClass, ...]:
        """The class for each kind, by kind. Raises UnknownQemuVersion."""
        found: dict[str, dict[str, Fingerprint]] = {}
        for kind in report.kinds:
            signature = self._signature(kind.fingerprint)
            found.setdefault(kind.guest, {}).setdefault(signature, kind.fingerprint)
        return tuple(
            KindClass(class_id(kind, variants), kind, variants)
            for kind, variants in sorted(found.items())
        )

    def _signature(self, fingerprint: Fingerprint) -> str:
        known = self._signatures.get(id(fingerprint))
        if known is None:
            signature = content_of(end_of(fingerprint)).signature
            # kept, so that no other fingerprint can come by the same id
            known = self._signatures[id(fingerprint)] = fingerprint, signature
        return known[1]


def alarm_of(hosts: int, classes: Sequence[tuple[str, Fingerprint]]) -> TooManyClasses | None:
    """The alarm for `hosts` hosts with these classes, (kind, fingerprint) of each; None if none."""
    kinds = Counter(kind for kind, _ in classes)
    most = max(kinds.values(), default=0)
    if hosts < _ENOUGH_HOSTS or most <= hosts / _HOSTS_PER_CLASS:
        return None
    contents = [(kind, content_of(end_of(one))) for kind, one in classes]
    counts: Counter[str] = Counter()
    for number, (kind, content) in enumerate(contents):
        for other_kind, other in contents[:number]:
            if kind == other_kind:
                what = content.differences(other)
                if len(what) == 1:
                    counts[_said(*what)] += 1
    return TooManyClasses(most, hosts, tuple(counts.most_common()))


def _said(what: int | str) -> str:
    return what if isinstance(what, str) else name(what)
