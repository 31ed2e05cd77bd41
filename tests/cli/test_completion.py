"""Completion in real shells: a person types and presses TAB."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

LIMIT = 90.0
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'eval "$(armferry completion bash)"'),
    "zsh": (
        ["zsh", "-f", "-i"],
        'autoload -Uz compinit; compinit -u -D; eval "$(armferry completion zsh)"',
    ),
    "fish": (["fish", "--no-config", "-i"], "armferry completion fish | source"),
}


class Terminal:
    """A shell in a terminal of its own."""

    def __init__(self, folder: Path, command: list[str]) -> None:
        self._socket = str(folder / "tmux")
        programs = folder / "bin"
        programs.mkdir()
        wrapped = programs / "armferry"
        wrapped.write_text(f'#!/bin/sh\nexec {sys.executable} -m armferry "$@"\n')
        wrapped.chmod(0o755)
        environment = os.environ | {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(folder),
            "TERM": "screen",
            "PS1": "ready> ",
        }
        self._run(
            *("-f", "/dev/null", "new-session", "-d", "-x", "200", "-y", "50", "-c", str(folder)),
            *command,
            environment=environment,
        )

    def keys(self, *keys: str) -> None:
        self._run("send-keys", *keys)

    def screen(self) -> str:
        return self._run("capture-pane", "-p")

    def until(self, text: str) -> None:
        """Waits until `text` is on the screen."""
        deadline = time.monotonic() + LIMIT
        while text not in self.screen():
            if time.monotonic() > deadline:
                raise AssertionError(f"{text!r} never came:\n{self.screen()}")
            time.sleep(0.1)

    def close(self) -> None:
        self._run("kill-server")

    def _run(self, *words: str, environment: dict[str, str] | None = None) -> str:
        done = subprocess.run(
            ["tmux", "-S", self._socket, *words],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout


@pytest.fixture(params=SHELLS)
def terminal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Terminal]:
    command, script = SHELLS[request.param]
    assert shutil.which(command[0])
    found = Terminal(tmp_path, command)
    try:
        found.keys(script, "Enter")
        found.keys("echo loa''ded", "Enter")
        found.until("\nloaded")
        yield found
    finally:
        found.close()


def test_commands_options_and_entries(terminal: Terminal) -> None:
    terminal.keys("armferry che", "Tab")
    terminal.until("armferry check")
    terminal.keys("x.state --destination-q", "Tab")
    terminal.until("--destination-qemu")
    terminal.keys("C-u")
    terminal.keys("armferry atlas show 6.12.117+deb13/neoverse-n1", "Tab")
    terminal.keys("C-u", "armferry atlas show 7.3.4+deb13/cortex-a7", "Tab", "Tab")
    terminal.until("cortex-a76")
