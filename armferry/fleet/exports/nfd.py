"""Feature files of Kubernetes' node feature discovery: what each destination accepts.

One file for each node, for its features.d; a label for each class of sources whose guests it takes,
so that a selector on equality finds the nodes that a guest can go to (KubeVirt's
addedNodeSelector). Labels vanish when the file has expired: a host that is no longer reported is
no longer promised. Format: node-feature-discovery, local feature source, from 0.15 on.
"""

import datetime
from collections.abc import Iterator

from armferry.fleet.exports.labels import kind_label
from armferry.fleet.model import Answer, Host
from armferry.fleet.standing import Standing

__all__ = ["PREFIX", "feature_file", "feature_files"]

PREFIX = "feature.node.kubernetes.io/armferry-"


def feature_files(
    standing: Standing, expires: float, worst: Answer = Answer.STOCK
) -> Iterator[tuple[Host, str]]:
    """Each host and its file; `expires` in seconds since 1970.

    `worst` is the worst answer that counts as accepting.
    """
    texts: dict[tuple[str, ...], str] = {}
    for host in standing.store.hosts():
        key = tuple(sorted(host.classes.values()))
        if key not in texts:
            texts[key] = feature_file(standing, host, expires, worst)
        yield host, texts[key]
    standing.relation.keep()


def feature_file(
    standing: Standing, host: Host, expires: float, worst: Answer = Answer.STOCK
) -> str:
    """The file of one host."""
    until = datetime.datetime.fromtimestamp(expires, datetime.UTC)
    lines = [f"# +expiry-time={until:%Y-%m-%dT%H:%M:%SZ}"]
    for kind, own in sorted(host.classes.items()):
        label = kind_label(kind)
        lines.append(f"{PREFIX}class-{label}={own}")
        lines += [
            f"{PREFIX}accepts-{label}-{one.id}=true"
            for one in sorted(standing.by_kind.get(kind, ()), key=lambda one: one.id)
            if standing.relation.cell(one.id, one.id, own).answer.rank <= worst.rank
        ]
    return "\n".join(lines) + "\n"
