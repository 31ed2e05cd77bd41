"""A fleet's numbers for Prometheus, as a file of the node exporter's textfile collector.

The alert rules on them are in packaging/prometheus.
"""

from collections.abc import Iterator, Mapping

from armferry.fleet.questions import summary
from armferry.fleet.standing import Standing

__all__ = ["metrics_text"]

_PREFIX = "armferry_fleet_"


def metrics_text(standing: Standing, now: float) -> str:
    """The text format, at the time `now` in seconds since 1970."""
    return "\n".join(_lines(standing, now)) + "\n"


def _lines(standing: Standing, now: float) -> Iterator[str]:
    found = summary(standing, now)
    kinds: dict[str, int] = {}
    for one in standing.classes:
        kinds[one.kind] = kinds.get(one.kind, 0) + 1
    kernels = {_label("kernel", kernel): hosts for kernel, hosts in found.kernels.items()}
    yield from _gauge("hosts", "Hosts with a fingerprint, by kernel.", kernels)
    yield from _gauge("hosts_reported", "Hosts that ever reported.", {"": found.hosts})
    yield from _gauge("hosts_silent", "Hosts not heard for a day.", {"": found.hosts - found.heard})
    yield from _gauge(
        "hosts_stale",
        "Hosts with a fingerprint of another kernel than they run.",
        {"": standing.store.stale()},
    )
    classes = {_label("kind", kind): count for kind, count in kinds.items()}
    yield from _gauge("classes", "Classes of hosts, by kind of guest.", classes)
    yield from _gauge("guests", "Guests.", {"": found.guests})
    yield from _gauge(
        "guests_stranded", "Guests that no other host can take.", {"": found.stranded}
    )
    yield from _gauge(
        "guests_without_return",
        "Guests that could not go back to hosts like the one they were born on.",
        {"": found.no_return},
    )
    yield from _gauge(
        "guests_one_way_ahead",
        "Guests that could go to the newest kernel and not come back.",
        {"": found.one_way_ahead},
    )
    yield from _gauge("timestamp_seconds", "When this was written.", {"": now})


def _gauge(name: str, text: str, values: Mapping[str, float]) -> Iterator[str]:
    yield f"# HELP {_PREFIX}{name} {text}"
    yield f"# TYPE {_PREFIX}{name} gauge"
    for labels, value in values.items():
        yield f"{_PREFIX}{name}{labels} {value}"


def _label(name: str, value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{{{name}="{escaped}"}}'
