"""Tags for Ganeti's htools, as the commands that set them: which migrations hbal and hail consider.

Each node is tagged with its classes, and the cluster with the pairs that work (hbal(1), migration
tags). A pair of tags says nothing of a single guest, so only what works for every guest is allowed.
"""

import shlex
from collections.abc import Iterator

from armferry.fleet.exports.labels import kind_label
from armferry.fleet.model import Answer
from armferry.fleet.standing import Standing

__all__ = ["tag_commands"]

_PREFIX = "armferry"


def tag_commands(standing: Standing, worst: Answer = Answer.STOCK) -> Iterator[str]:
    """A shell command a line; `worst` is the worst answer that is allowed."""
    yield f"gnt-cluster add-tags htools:migration:{_PREFIX}"
    for kind, classes in standing.by_kind.items():
        for source in classes:
            for destination in classes:
                if source.id != destination.id:
                    cell = standing.relation.cell(source.id, source.id, destination.id)
                    if cell.answer.rank <= worst.rank:
                        pair = f"{_tag(kind, source.id)}::{_tag(kind, destination.id)}"
                        yield f"gnt-cluster add-tags htools:allowmigration:{pair}"
    standing.relation.keep()
    for host in standing.store.hosts():
        tags = [_tag(kind, class_id) for kind, class_id in sorted(host.classes.items())]
        if tags:
            yield shlex.join(["gnt-node", "add-tags", host.name, *tags])


def _tag(kind: str, class_id: str) -> str:
    return f"{_PREFIX}:{kind_label(kind)}:{class_id}"
