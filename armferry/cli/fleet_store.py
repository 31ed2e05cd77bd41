"""`armferry fleet import|hosts|history`: what hosts reported, taken in and listed."""

import argparse
import datetime
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from armferry.cli import render
from armferry.cli.fleet_open import open_store
from armferry.cli.render import Cell, Table
from armferry.errors import ArmferryError
from armferry.fleet.classes import alarm_of
from armferry.fleet.importing import Reader
from armferry.fleet.store.database import open_database
from armferry.fleet.store.reading import Store
from armferry.fleet.store.writing import Imported, known_times, write_reports
from armferry.hosts.report import HostReport

__all__ = ["DAY", "moment", "run_history", "run_hosts", "run_import"]

SCHEMA_VERSION = 1
DAY = 86400.0
_STANDARD_INPUT = "-"


def run_import(arguments: argparse.Namespace) -> int:
    """Takes reports in; 3 when some were refused."""
    database = open_database(arguments.store)
    reader = Reader(known_times(database))

    done = write_reports(database, _reports(reader, arguments.sources))
    done.unchanged.extend(reader.passed)
    store = Store(database)
    alarm = _alarm(store)
    if arguments.json:
        print(
            json.dumps(
                {
                    "schema": SCHEMA_VERSION,
                    "new": done.new,
                    "changed": done.changed,
                    "unchanged": done.unchanged,
                    "refused": [
                        {"document": name, "why": why} for name, why in reader.refused.items()
                    ],
                    "alarm": alarm,
                },
                indent=1,
            )
        )
    else:
        _show_import(done, reader, alarm)
    return ArmferryError.exit_code if reader.refused else 0


def _reports(reader: Reader, sources: Sequence[str]) -> Iterator[HostReport]:
    for source in sources:
        if source == _STANDARD_INPUT:
            yield from reader.stream(sys.stdin.buffer.read(), "standard input")
        else:
            yield from reader.folder(Path(source))


def _alarm(store: Store) -> str:
    hosts, _ = store.heard(0)
    classes = [
        (one.kind, prints[0]) for one in store.classes() if (prints := store.fingerprints(one.id))
    ]
    found = alarm_of(hosts, classes)
    return "" if found is None else str(found)


def _show_import(done: Imported, reader: Reader, alarm: str) -> None:
    render.line(
        f"{len(done.new)} new hosts, {len(done.changed)} changed, {len(done.unchanged)} unchanged"
    )
    for name, why in reader.refused.items():
        render.line(f"{name}: refused: {why}", "bad")
    if alarm:
        render.line(f"note: {alarm}", "warn")
    if done.new or done.changed:
        render.next_step("armferry fleet matrix --by kernel")


def run_hosts(arguments: argparse.Namespace) -> int:
    """Lists hosts."""
    store = open_store(arguments)
    now = time.time()
    if arguments.silent:
        hosts = store.hosts([name for name, _ in store.silent(now - DAY, arguments.most)])
    else:
        hosts = store.hosts(most=arguments.most)
    if arguments.json:
        rows = [
            {
                "name": one.name,
                "kernel": one.kernel,
                "qemus": list(one.qemus),
                "cpu": one.cpu,
                "memory": one.memory,
                "site": one.site,
                "failure_domain": one.failure_domain,
                "heard": one.heard,
                "silent": one.heard < now - DAY,
                "classes": dict(one.classes),
            }
            for one in hosts
        ]
        print(json.dumps({"schema": SCHEMA_VERSION, "hosts": rows}, indent=1))
        return 0
    render.table(
        Table(
            ("host", "kernel", "QEMU", "site", "heard", "classes"),
            [
                (
                    Cell(one.name),
                    Cell(one.kernel),
                    Cell(" ".join(one.qemus)),
                    Cell(one.site),
                    Cell(moment(one.heard), "warn" if one.heard < now - DAY else ""),
                    Cell(" ".join(sorted(one.classes.values()))),
                )
                for one in hosts
            ],
        )
    )
    every, heard = store.heard(now - DAY)
    if len(hosts) < every:
        render.line(f"{len(hosts)} of {every} hosts; --most N shows more")
    render.line(f"{heard} of {every} hosts heard today")
    return 0


def run_history(arguments: argparse.Namespace) -> int:
    """Lists what changed on a host, newest first."""
    past = open_store(arguments).history(arguments.host)
    if arguments.json:
        rows = [
            {
                "time": one.time,
                "kernel": one.kernel,
                "qemus": list(one.qemus),
                "boot": one.boot,
                "armferry": one.armferry,
                "classes": list(one.classes),
            }
            for one in past
        ]
        print(json.dumps({"schema": SCHEMA_VERSION, "history": rows}, indent=1))
        return 0
    render.table(
        Table(
            ("since", "kernel", "QEMU", "armferry", "classes"),
            [
                (
                    Cell(moment(one.time)),
                    Cell(one.kernel),
                    Cell(" ".join(one.qemus)),
                    Cell(one.armferry),
                    Cell(" ".join(one.classes)),
                )
                for one in past
            ],
        )
    )
    return 0


def moment(seconds: float) -> str:
    """A time of the store for a person, in UTC."""
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%d %H:%M}"
