"""The library compiled for this machine, and a program with a small kernel to drive it."""

import enum
import os
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from armferry.boundary import Event, Preload, Rule, Table, events_of
from armferry.boundary.build import SOURCE, compile_library

DRIVER = Path(__file__).with_name("driver.c")
LIMIT = 300
COMMANDS = ("environment", "child", "vm", "vm", "environment", "child")


class Build(enum.Enum):
    """How the library gets into the driver."""

    PRELOADED = "preloaded"
    ADDRESS = "address,undefined"
    THREAD = "thread"


@dataclass(frozen=True, slots=True)
class Said:
    """What came of one run of the driver."""

    answers: list[str]
    events: list[Event]
    status: int
    stderr: str


Drive = Callable[..., Said]


@pytest.fixture(scope="session")
def own_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library for this machine."""
    path = tmp_path_factory.mktemp("library") / "libarmferry-boundary.so"
    compile_library(path, "gcc", aarch64=os.uname().machine == "aarch64")
    return path


@pytest.fixture(scope="session")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Build], Path]:
    """A function from a build to the driver; with a sanitizer the library is compiled into it."""
    folder = tmp_path_factory.mktemp("drivers")

    def built(build: Build) -> Path:
        path = folder / build.name.lower()
        if not path.exists():
            words = ["gcc", "-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-rdynamic"]
            words += ["-pthread", str(DRIVER), "-o", str(path)]
            if build is not Build.PRELOADED:
                words += [f"-fsanitize={build.value}", "-fno-sanitize-recover=all", str(SOURCE)]
            subprocess.run(words, check=True, timeout=LIMIT)
        return path

    return built


@pytest.fixture(params=list(Build), ids=lambda build: build.name.lower())
def drive(
    request: pytest.FixtureRequest, drivers: Callable[[Build], Path], own_library: Path
) -> Drive:
    """A function that runs the driver under rules and gives it commands."""
    build: Build = request.param
    program = drivers(build)

    def run(rules: list[Rule], *commands: str) -> Said:
        preload = Preload.of(Table(rules).packed(), own_library)
        environment = preload.environment({"PATH": os.defpath, "LD_PRELOAD": "libc.so.6"})
        if build is not Build.PRELOADED:
            environment.pop("LD_PRELOAD")
        return driven(program, preload, environment, commands)

    return run


@pytest.fixture
def plain_driver(drivers: Callable[[Build], Path]) -> Path:
    """The driver without the library."""
    return drivers(Build.PRELOADED)


@pytest.fixture
def start(plain_driver: Path, own_library: Path) -> Callable[[list[Rule], dict[str, str]], Said]:
    """A function that preloads the driver beside an environment and says what it and its children
    have of the library, before the first VM and after it."""

    def started(rules: list[Rule], before: dict[str, str]) -> Said:
        preload = Preload.of(Table(rules).packed(), own_library)
        return driven(plain_driver, preload, preload.environment(before), COMMANDS)

    return started


def driven(
    program: Path, preload: Preload, environment: dict[str, str], commands: tuple[str, ...]
) -> Said:
    """What the driver says of `commands` when it is started so."""
    with preload.reports as reports:
        process = subprocess.Popen(
            [str(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            pass_fds=(preload.table, preload.writing),
        )
        preload.close_for_qemu()
        stdout, stderr = process.communicate("".join(f"{one}\n" for one in commands), LIMIT)
        return Said(stdout.splitlines(), _all_events(reports), process.returncode, stderr)


def _all_events(reports: socket.socket) -> list[Event]:
    events: list[Event] = []
    while message := reports.recv(1 << 16):
        events += events_of(message)
    return events
