"""The program `armferry-qemu`: QEMU's arguments in, QEMU out.

What only asks QEMU something (its version, its machine types, a machine of type `none`) becomes
QEMU at once: nothing else is imported before that is known.
"""

import os
import sys

__all__ = ["main", "underlying"]

_NAME = "qemu-system-aarch64"
_DEBUG = "ARMFERRY_DEBUG"
_ASKING = ("h", "help", "?", "version", "audio-help")


def main(words: "list[str] | None" = None) -> int:
    """Becomes QEMU; returns only when there is an error to tell: 3 bad arguments, 4 no QEMU,
    5 an error that armferry did not expect."""
    given = sys.argv[1:] if words is None else words
    try:
        program = underlying()
        if _asks(given):
            _become(program, given)
        return _wrapped(program, given)
    except OSError as error:
        from armferry.printable import printable

        print(printable(f"armferry-qemu: {error}"), file=sys.stderr)
        return 4
    except Exception as error:
        return _report(error)


def _report(error: Exception) -> int:
    from armferry.errors import UNFORESEEN, unforeseen

    if os.environ.get(_DEBUG):
        import traceback

        traceback.print_exc()
        how = "with the lines above"
    else:
        how = f"with what it prints when {_DEBUG}=1 is in its environment"
    from armferry.printable import printable

    text = f"armferry-qemu: {unforeseen(error)}; please report it {how}"
    print(printable(text), file=sys.stderr)
    return UNFORESEEN


def underlying() -> str:
    """The QEMU to run: `$ARMFERRY_QEMU`, else the first on PATH that is not this program."""
    named = os.environ.get("ARMFERRY_QEMU")
    if named:
        return named
    own = os.path.realpath(sys.argv[0])
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(folder, _NAME)
        if os.access(path, os.X_OK) and os.path.realpath(path) != own:
            return path
    raise FileNotFoundError(
        f"no {_NAME} on PATH; install QEMU for Arm, or name one in $ARMFERRY_QEMU"
    )


def _asks(words: "list[str]") -> bool:
    """Whether no guest can come of this command line."""
    from armferry.hosts.qmp.options import options_of
    from armferry.option_text import segments

    machine = ""
    for option in options_of(words):
        if option.name in _ASKING:
            return True
        if option.value in ("help", "?"):
            return True
        if option.name in ("machine", "M"):
            for part in segments(option.value or ""):
                key, equals, value = part.partition("=")
                if key == "type" or not equals:
                    machine = value if equals else key
    return machine in ("", "none")


def _become(program: str, words: "list[str]", environment: "dict[str, str] | None" = None) -> None:
    # the core of `signal` alone: the rest of that module costs more than all else here
    import _signal  # type: ignore[import-not-found]  # typeshed knows its whole module only

    # Python ignores these two from its start on; QEMU finds them as any program does
    _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)
    _signal.signal(_signal.SIGXFSZ, _signal.SIG_DFL)
    try:
        given = os.environ if environment is None else environment
        os.execve(program, [program, *words], given)  # noqa: S606 - becoming QEMU is what it does
    except OSError as error:
        raise OSError(f"{program}: cannot be run: {error.strerror}") from error


def _wrapped(program: str, words: "list[str]") -> int:
    from armferry.errors import ArmferryError
    from armferry.wrapper.launch import prepare

    try:
        new, environment = prepare(program, words)
    except ArmferryError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    _become(program, new, environment)
    return 4


if __name__ == "__main__":
    sys.exit(main())
