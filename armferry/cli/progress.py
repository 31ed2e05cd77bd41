"""What takes long, as it goes on, on standard error; nothing without a terminal."""

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterator

__all__ = ["bytes_bar", "working"]

_WORTH_SHOWING = 256 << 20
_AFTER = 1.0
"""Seconds that pass before anything is shown, and between one number and the next."""


@contextlib.contextmanager
def bytes_bar(what: str, total: int) -> Iterator[Callable[[int, int], None] | None]:
    """A bar for `total` bytes, as a function of bytes done and in all; None when none is shown."""
    shown = sys.stderr.isatty() and importlib.util.find_spec("rich") is not None
    if not shown or total < _WORTH_SHOWING:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    with Progress(
        "{task.description}",
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done, whole: progress.update(task, completed=done, total=whole)


@contextlib.contextmanager
def working(what: str) -> Iterator[None]:
    """One line that counts the seconds, once there is one, and goes away in the end."""
    if not sys.stderr.isatty():
        yield
        return
    import threading  # a command that waits for nothing needs neither
    import time

    over = threading.Event()

    def count() -> None:
        began = time.monotonic()
        while not over.wait(_AFTER):
            passed = time.monotonic() - began
            print(f"\r\033[K{what} ({passed:.0f} s)", end="", file=sys.stderr, flush=True)
        if time.monotonic() - began > _AFTER:
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    counting = threading.Thread(target=count, daemon=True)
    counting.start()
    try:
        yield
    finally:
        over.set()
        counting.join()
