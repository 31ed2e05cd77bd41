"""A fleet as it stands: its classes with their ends, and the relation under a policy."""

from collections.abc import Sequence
from functools import cached_property

from armferry.ends import End
from armferry.fleet.model import HostClass
from armferry.fleet.relation import ClassRelation, policy_key
from armferry.fleet.store.reading import Store
from armferry.hosts.fingerprints.as_end import end_of
from armferry.policy import EMPTY, SITE_FOLDER, Document, Policy, aggregate, read_site
from armferry.registers import Accelerator

__all__ = ["Standing"]


class Standing:
    """The store, and the cells between its classes under the site's policy, `files` and options.

    Raises PolicyError for a policy that cannot be read.
    """

    def __init__(
        self,
        store: Store,
        *,
        files: Sequence[Document] = (),
        command_line: Policy = EMPTY,
        builtin: bool = True,
    ) -> None:
        self.store = store
        self._files = files
        self._command_line = command_line
        self._builtin = builtin
        self._ends: dict[str, tuple[End, ...]] = {}
        self._policies: dict[tuple[str, Accelerator], Policy] = {}

    @cached_property
    def classes(self) -> tuple[HostClass, ...]:
        """The classes that hosts are of."""
        return self.store.classes()

    @cached_property
    def by_kind(self) -> dict[str, tuple[HostClass, ...]]:
        """Kind of guest -> its classes of which something is known."""
        found: dict[str, list[HostClass]] = {}
        for one in self.classes:
            found.setdefault(one.kind, []).append(one)
        return {kind: tuple(classes) for kind, classes in found.items()}

    @cached_property
    def relation(self) -> ClassRelation:
        """The cells; new ones are kept in the store by its `keep`."""
        kinds = {one.kind for one in self.classes}
        policies = [self._policy(*_parts(kind)) for kind in sorted(kinds)]
        return ClassRelation(self.ends, self.policy, self.store, policy_key(policies))

    def ends(self, class_id: str) -> tuple[End, ...]:
        """An end for each content of a class."""
        found = self._ends.get(class_id)
        if found is None:
            prints = self.store.fingerprints(class_id)
            found = self._ends[class_id] = tuple(end_of(one, f"class {class_id}") for one in prints)
        return found

    def policy(self, end: End) -> Policy:
        """What applies to guests of the end's machine type."""
        return self._policy(str(end.machine or ""), end.accelerator)

    def _policy(self, machine: str, accelerator: Accelerator) -> Policy:
        key = machine, accelerator
        if key not in self._policies:
            self._policies[key] = aggregate(
                machine or "virt",
                accelerator,
                builtin=self._builtin,
                site=self._site,
                files=self._files,
                command_line=self._command_line,
            )
        return self._policies[key]

    @cached_property
    def _site(self) -> tuple[Document, ...]:
        return read_site(SITE_FOLDER)


def _parts(kind: str) -> tuple[str, Accelerator]:
    """The machine type and the accelerator of a kind of guest."""
    machine, *_, accelerator = kind.split(" ")
    known = {one.value: one for one in Accelerator}
    return machine.partition(",")[0], known.get(accelerator, Accelerator.KVM)
