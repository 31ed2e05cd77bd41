"""Class by class, birth by birth: the cells, each worked out once and kept where the caller can.

A class whose hosts have several QEMUs for a kind of guest has an end for each: a guest may run
under any of them, and one on the destination that takes it is enough.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from itertools import product
from typing import Protocol

from armferry import __version__
from armferry.ends import End
from armferry.fleet.conditions import cell_of
from armferry.fleet.model import Cell
from armferry.fleet.states import state_end
from armferry.policy import Policy

__all__ = ["CellStore", "ClassRelation", "Triple", "policy_key"]

Triple = tuple[str, str, str]
"""Class of birth, present class, class of the destination."""


class CellStore(Protocol):
    """Where cells are kept; `key` says under which policy and armferry."""

    def read_cells(self, key: str) -> dict[Triple, Cell]:
        """All that are kept under `key`."""

    def write_cells(self, key: str, cells: Mapping[Triple, Cell]) -> None:
        """Keeps more."""


def policy_key(policies: Iterable[Policy]) -> str:
    """Names what cells hang on beside the classes: armferry's version and the rules that apply."""
    digest = hashlib.sha256(__version__.encode())
    for policy in policies:
        digest.update(_policy_text(policy).encode())
    return digest.hexdigest()[:16]


def _policy_text(policy: Policy) -> str:
    parts = []
    for name in policy.__dataclass_fields__:
        value = getattr(policy, name)
        if isinstance(value, Mapping | frozenset):
            items = value.items() if isinstance(value, Mapping) else value
            value = sorted(map(repr, items))
        elif name == "accepted":
            value = [
                sorted(one) if isinstance(one, frozenset) else one
                for one in (getattr(value, part) for part in value.__dataclass_fields__)
            ]
        parts.append(f"{name}: {value!r}")
    return "\n".join(parts)


class ClassRelation:
    """`fleet.model.Relation` over classes whose ends `ends` gives, under the policy for each end.

    `store` keeps cells from one run to the next, under `key`.
    """

    def __init__(
        self,
        ends: Callable[[str], tuple[End, ...]],
        policy: Callable[[End], Policy],
        store: CellStore | None = None,
        key: str = "",
    ) -> None:
        self._ends = ends
        self._policy = policy
        self._store = store
        self._key = key
        self._states: dict[tuple[str, str], tuple[End, ...]] = {}
        self._new: dict[Triple, Cell] = {}

    def cell(self, birth: str, present: str, destination: str) -> Cell:
        """The cell, worked out unless it is kept. Raises PolicyError."""
        triple = birth, present, destination
        found = self._known.get(triple)
        if found is None:
            found = self._made(triple)
            self._known[triple] = self._new[triple] = found
        return found

    def keep(self) -> int:
        """Hands the cells that are new to the store; how many there were."""
        count = len(self._new)
        if self._store is not None and count:
            self._store.write_cells(self._key, self._new)
        self._new = {}
        return count

    @cached_property
    def _known(self) -> dict[Triple, Cell]:
        return {} if self._store is None else self._store.read_cells(self._key)

    def _made(self, triple: Triple) -> Cell:
        birth, present, destination = triple
        there = self._ends(destination)
        cells = (
            min((cell_of(state, end, self._policy(end)) for end in there), key=_rank)
            for state in self._state(birth, present)
        )
        return max(cells, key=_rank)

    def _state(self, birth: str, present: str) -> tuple[End, ...]:
        if birth == present:
            return self._ends(present)
        found = self._states.get((birth, present))
        if found is None:
            pairs = product(self._ends(birth), self._ends(present))
            found = tuple(state_end(born, now, self._policy(now)) for born, now in pairs)
            self._states[birth, present] = found
        return found


def _rank(cell: Cell) -> tuple[int, int]:
    return cell.rank
