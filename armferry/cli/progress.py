"""A progress bar on standard error for what takes long; nothing without a terminal."""

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterator

__all__ = ["bytes_bar"]

_WORTH_SHOWING = 256 << 20


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
