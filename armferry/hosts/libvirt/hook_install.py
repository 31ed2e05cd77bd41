"""The script in libvirt's hooks/qemu.d: put there, taken away, recognised.

`hooks/qemu` belongs to others and is never touched; scripts of `qemu.d` run after it, since
libvirt 6.5. Only a file that carries armferry's mark is ever changed or removed. libvirt looks
for scripts when it starts and when it reloads its configuration.
"""

import sys
from pathlib import Path
from typing import Literal

import armferry
from armferry.errors import ArmferryError, EnvironmentFault
from armferry.hosts.files.atomic import write_whole

__all__ = [
    "HOOKS_FOLDER",
    "Carrier",
    "ForeignHook",
    "HookFault",
    "hook_path",
    "install",
    "installed_carrier",
    "remove",
    "script",
]

HOOKS_FOLDER = Path("/etc/libvirt/hooks")
Carrier = Literal["stock", "ferried"]

_NAME = "armferry"
_MARK = "# Made by `armferry hook install`; `armferry hook remove` takes it away."
_SCRIPT = """\
#!{python} -IS
{mark}
import sys

# every other operation ends here: a failing hook can stop a guest that runs
if sys.argv[2:4] in (["migrate", "begin"], ["restore", "begin"]):
    sys.path.insert(0, {package!r})
    try:
        from armferry.hosts.libvirt.hook import main
    except ImportError as fault:
        print(f"armferry: hook: not decided: {{fault}}", file=sys.stderr)
    else:
        sys.exit(main(sys.argv[1:], {carrier!r}))
"""


class ForeignHook(ArmferryError):
    """The script's place is taken by a file that is not armferry's."""


class HookFault(EnvironmentFault):
    """The hook cannot be written or removed."""


def hook_path(folder: Path = HOOKS_FOLDER) -> Path:
    """Where the script lies."""
    return folder / "qemu.d" / _NAME


def script(carrier: Carrier, python: Path, package: Path) -> str:
    """The script: run by `python`, armferry taken from the folder `package`."""
    return _SCRIPT.format(python=python, mark=_MARK, package=str(package), carrier=carrier)


def install(
    carrier: Carrier,
    folder: Path = HOOKS_FOLDER,
    *,
    python: Path | None = None,
    package: Path | None = None,
) -> Path:
    """Puts the script in its place; where that is. Raises ForeignHook or HookFault.

    `python` is the interpreter (default: this one) and `package` the folder that armferry is
    imported from (default: this one's).
    """
    path = hook_path(folder)
    _check(path)
    text = script(
        carrier,
        python or Path(sys.executable),
        package or Path(armferry.__file__).resolve().parent.parent,
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # libvirt runs every executable of the folder: a half-written one must not be among them
        write_whole(path, text, mode=0o755, beside=folder)
    except OSError as error:
        raise HookFault(f"{path}: cannot be written: {error.strerror}") from error
    return path


def remove(folder: Path = HOOKS_FOLDER) -> bool:
    """Takes the script away; False when it was not there. Raises ForeignHook or HookFault."""
    path = hook_path(folder)
    if not _check(path):
        return False
    try:
        path.unlink()
    except OSError as error:
        raise HookFault(f"{path}: cannot be removed: {error.strerror}") from error
    return True


def installed_carrier(folder: Path = HOOKS_FOLDER) -> Carrier | None:
    """For which moves the script is installed; None when it is not there."""
    path = hook_path(folder)
    if not _check(path):
        return None
    return "ferried" if "'ferried'" in path.read_text(encoding="utf-8") else "stock"


def _check(path: Path) -> bool:
    """Whether armferry's script is there. Raises ForeignHook when another file is."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return False
    except OSError as error:
        raise HookFault(f"{path}: cannot be read: {error.strerror}") from error
    if _MARK not in text:
        raise ForeignHook(f"{path}: not made by armferry; rename it or remove it first")
    return True
