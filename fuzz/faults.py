"""`python -m fuzz.faults`: the disk fails, or the program is killed, at every step of every writer.

Each writer runs once to count what it asks of the operating system (open, write, fsync, rename,
truncate and the like); then once for each of these and each fault: killed there, an error of the
disk, no room left. Afterwards a reader must find the old file or the new one, never a third
thing; `--undo` and `--finish` must go either way from a rewrite in place; no temporary file may
outlive the next run; and the error must be one of armferry's. Prints the counts; 1 when anything
was found.
"""

import contextlib
import errno
import gzip
import io
import os
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from armferry.cli.main import main as armferry
from armferry.hosts.files.in_place import finish, undo
from armferry.hosts.files.journal import journal_path, read_journal
from armferry.hosts.libvirt import hook_install
from armferry.hosts.libvirt.state_folder import write_json
from armferry.wrapper.beside import property_support
from fuzz.corpus import recorded
from tests.hosts.qcow2.conftest import Kind, make

STEPS = (
    "open", "write", "pwrite", "fsync", "replace", "rename", "ftruncate", "unlink", "fchmod",
    "fchown", "mkdir", "copy_file_range", "setxattr",
)  # fmt: skip
KILLED = "killed"
FAULTS = {KILLED: 0, "EIO": errno.EIO, "ENOSPC": errno.ENOSPC}
SOURCE = "tcg_10.0.2_virt-10.0_cortex-a57_1"
DESTINATION = "switchover-ack"
EXPECTED_CODES = (0, 1, 3, 4)
_UNFORESEEN = 70


@dataclass(frozen=True, slots=True)
class Writer:
    """`prepare` a folder, `act` in it, and say what is `wrong` with what was left."""

    prepare: Callable[[Path], None]
    act: Callable[[Path], int]
    wrong: Callable[[Path], str]


class Breaking:
    """The operating system, which fails at the step `at`; counts the steps without one."""

    def __init__(self, at: int | None, fault: str) -> None:
        self._at = at
        self._fault = fault
        self.steps: list[str] = []

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """For the block, in this process."""
        before = {name: getattr(os, name) for name in STEPS}
        for name, real in before.items():
            setattr(os, name, self._counted(name, real))
        try:
            yield
        finally:
            for name, real in before.items():
                setattr(os, name, real)

    def _counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*words: Any, **options: Any) -> Any:
            if not (name == "open" and not words[1] & (os.O_WRONLY | os.O_RDWR)):
                self.steps.append(name)
                if len(self.steps) - 1 == self._at:
                    if self._fault == KILLED:
                        if name == "write" and len(words[1]) > 1:
                            real(words[0], words[1][: len(words[1]) // 2])  # half of it arrives
                        os.kill(os.getpid(), signal.SIGKILL)
                    raise OSError(FAULTS[self._fault], os.strerror(FAULTS[self._fault]))
            return real(*words, **options)

        return step


def _streams(folder: Path) -> None:
    (folder / "in").write_bytes(recorded(SOURCE))
    (folder / "to").write_bytes(recorded(DESTINATION))


def _ferry(folder: Path, *words: str) -> int:
    return armferry(["ferry", str(folder / "in"), *words, "--to", str(folder / "to")])


def _disk(folder: Path) -> None:
    _streams(folder)
    (folder / "disk").write_bytes(image())


def _ferry_image(folder: Path, *words: str) -> int:
    source = f"{folder / 'disk'}#goes"
    return armferry(["ferry", source, *(words or ("--in-place", "--to", str(folder / "to")))])


@cache
def ferried() -> bytes:
    """What a whole rewrite of the source makes."""
    with tempfile.TemporaryDirectory() as name, quiet():
        _streams(Path(name))
        assert _ferry(Path(name), str(Path(name) / "out")) in (0, 1)
        return (Path(name) / "out").read_bytes()


@cache
def image() -> bytes:
    """A qcow2 image with the source as a snapshot, whose clusters a failed resume shares."""
    return make(Kind(resumed=True), {"goes": recorded(SOURCE), "stays": recorded(DESTINATION)})


@cache
def ferried_image() -> bytes:
    """What a whole rewrite of that snapshot makes of the image."""
    with tempfile.TemporaryDirectory() as name, quiet():
        _disk(Path(name))
        assert _ferry_image(Path(name)) in (0, 1)
        return (Path(name) / "disk").read_bytes()


def _packed(folder: Path) -> None:
    _streams(folder)
    (folder / "in").write_bytes(gzip.compress(recorded(SOURCE), 1))


def _still_packed(folder: Path) -> str:
    found = gzip.decompress((folder / "in").read_bytes())
    return "" if found in (recorded(SOURCE), ferried()) else "the compressed stream is a third one"


def _beside(folder: Path) -> str:
    out = folder / "out"
    if (folder / "in").read_bytes() != recorded(SOURCE):
        return "the original changed"
    if out.exists() and out.read_bytes() not in (ferried(), b"older"):
        return "the target is neither the old file nor the new one"
    return ""


def _over(folder: Path) -> None:
    _streams(folder)
    (folder / "out").write_bytes(b"older")


def _in_place(folder: Path) -> str:
    return _old_or_new(folder / "in", recorded(SOURCE), ferried())


def _in_image(folder: Path) -> str:
    return _old_or_new(folder / "disk", image(), ferried_image())


def _old_or_new(path: Path, old: bytes, new: bytes) -> str:
    """What is wrong with a file after a rewrite in place that was interrupted or not."""
    half = path.read_bytes()
    if read_journal(path) is None:
        return "" if half in (old, new) else "half rewritten, and no journal"
    with quiet():
        if armferry(["inspect", str(path)]) == 0:
            return "a half rewritten file was read as a whole one"
    journal = journal_path(path).read_bytes()
    undo(path)
    if path.read_bytes() != old:
        return "--undo did not give the old file back"
    with path.open("r+b") as file:  # the same file, as it was found
        file.truncate()
        file.write(half)
    journal_path(path).write_bytes(journal)
    journal_path(path).chmod(0o600)
    finish(path)
    return "" if path.read_bytes() == new else "--finish did not complete the new file"


def _interrupted(folder: Path) -> None:
    """A rewrite in place that was killed in the middle of it."""
    _streams(folder)
    _killed_within(folder / "in", lambda: _ferry(folder, "--in-place"))


def _interrupted_image(folder: Path) -> None:
    _disk(folder)
    _killed_within(folder / "disk", lambda: _ferry_image(folder))


def _killed_within(path: Path, work: Callable[[], object]) -> None:
    pid = os.fork()
    if not pid:
        breaking = Breaking(None, KILLED)
        real = os.fsync

        def stop(descriptor: int) -> None:
            if len(breaking.steps) and os.path.samestat(os.fstat(descriptor), os.stat(path)):
                os.kill(os.getpid(), signal.SIGKILL)
            real(descriptor)

        with quiet(), breaking.installed():
            os.fsync = stop  # type: ignore[assignment]
            work()
        os._exit(0)
    os.waitpid(pid, 0)
    assert read_journal(path) is not None


def _document(folder: Path) -> str:
    found = (folder / "state.json").read_text() if (folder / "state.json").exists() else ""
    return "" if found in ("", "old", '{\n "a": 1\n}\n') else f"the document is {found[:40]!r}"


def _old_document(folder: Path) -> None:
    (folder / "state.json").write_text("old")


def _hook(folder: Path) -> str:
    path = hook_install.hook_path(folder)
    if not path.exists():
        return ""
    whole = hook_install.script("stock", Path(sys.executable), Path("/armferry"))
    if path.read_text() != whole:
        return "the hook is a part of one"
    extra = [one.name for one in path.parent.iterdir() if one != path and os.access(one, os.X_OK)]
    return f"libvirt would run {extra}" if extra else ""


def _install(folder: Path) -> int:
    hook_install.install("stock", folder, python=Path(sys.executable), package=Path("/armferry"))
    return 0


def _remember(folder: Path) -> int:
    os.environ["ARMFERRY_CACHE"] = str(folder)
    property_support.remember("properties", "key", '["new"]')
    return 0


def _cache(folder: Path) -> str:
    os.environ["ARMFERRY_CACHE"] = str(folder)
    found = property_support.cached("properties", "key")
    return "" if found in (None, '["new"]') else f"the cache says {found!r}"


def _nothing(folder: Path) -> None:
    """An empty folder will do."""


def _json(folder: Path) -> int:
    write_json(folder / "state.json", {"a": 1})
    return 0


WRITERS = {
    "ferry beside": Writer(_streams, lambda f: _ferry(f, str(f / "out")), _beside),
    "ferry over a file": Writer(_over, lambda f: _ferry(f, str(f / "out")), _beside),
    "ferry in place": Writer(_streams, lambda f: _ferry(f, "--in-place"), _in_place),
    "ferry --undo": Writer(
        _interrupted, lambda f: armferry(["ferry", str(f / "in"), "--undo"]), _in_place
    ),
    "ferry --finish": Writer(
        _interrupted, lambda f: armferry(["ferry", str(f / "in"), "--finish"]), _in_place
    ),
    "snapshot in place": Writer(_disk, _ferry_image, _in_image),
    "snapshot --undo": Writer(_interrupted_image, lambda f: _ferry_image(f, "--undo"), _in_image),
    "snapshot --finish": Writer(
        _interrupted_image, lambda f: _ferry_image(f, "--finish"), _in_image
    ),
    "compressed in place": Writer(_packed, lambda f: _ferry(f, "--in-place"), _still_packed),
    "state folder": Writer(_old_document, _json, _document),
    "hook install": Writer(_nothing, _install, _hook),
    "cache of the wrapper": Writer(_nothing, _remember, _cache),
}


@contextlib.contextmanager
def quiet() -> Iterator[io.StringIO]:
    """What is printed in the block, kept."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        yield said


def _child(writer: Writer, folder: Path, breaking: Breaking) -> int:
    """Runs the writer in a process of its own; its exit code, negative for a signal."""
    pid = os.fork()
    if not pid:
        code = _UNFORESEEN
        with quiet() as said:
            try:
                with breaking.installed():
                    code = writer.act(folder)
            except Exception as error:
                # the writers below the command line raise named errors for the command to print
                code = getattr(error, "exit_code", _UNFORESEEN)
                traceback.print_exc(file=said)
        (folder / "said").write_text(said.getvalue())
        (folder / "steps").write_text("\n".join(breaking.steps))
        os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def trial(name: str, at: int | None, fault: str) -> tuple[list[str], str]:
    """(the steps that were taken, what is wrong) with one fault at one step, or none."""
    writer = WRITERS[name]
    with tempfile.TemporaryDirectory(prefix="armferry-faults-") as text:
        folder = Path(text)
        writer.prepare(folder)
        code = _child(writer, folder, Breaking(at, fault))
        steps = (folder / "steps").read_text().splitlines() if (folder / "steps").exists() else []
        said = (folder / "said").read_text() if (folder / "said").exists() else ""
        if code not in (*EXPECTED_CODES, -signal.SIGKILL):
            return steps, f"ended with {code}: {said}"
        wrong = writer.wrong(folder)
        if wrong:
            return steps, f"{wrong} (ended with {code}: {said})"
        # the next run goes through, and takes away what this one left
        if writer.wrong not in (_in_place, _in_image):
            code = _child(writer, folder, Breaking(None, fault))
            if code not in (0, 1):
                return steps, f"the next run ended with {code}"
            left = [str(one) for one in folder.rglob("*.part")]
            if left:
                return steps, f"left over: {left}"
    return steps, ""


def main() -> int:
    """Every writer, or those that the command line names; every step, every fault."""
    found = 0
    total: Counter[str] = Counter()
    names = sys.argv[1:] or list(WRITERS)
    unknown = set(names) - set(WRITERS)
    if unknown:
        raise SystemExit(f"no such writer: {', '.join(unknown)}; of {', '.join(WRITERS)}")
    for name in names:
        steps, wrong = trial(name, None, KILLED)
        if wrong:
            raise SystemExit(f"{name}: fails without a fault: {wrong}")
        for at, step in enumerate(steps):
            for fault in FAULTS:
                total[fault] += 1
                _, wrong = trial(name, at, fault)
                if wrong:
                    found += 1
                    print(f"FOUND {name}, {fault} at step {at} ({step}): {wrong}", flush=True)
        print(f"{name:<22} {len(steps):>3} steps", flush=True)
    print(f"{sum(total.values())} faults ({dict(total)}), {found} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
