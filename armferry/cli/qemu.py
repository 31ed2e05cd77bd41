"""`armferry qemu -- ARGUMENTS`: the same as the program `armferry-qemu`."""

import argparse
from typing import Any

__all__ = ["add_parsers"]


def add_parsers(commands: "argparse._SubParsersAction[Any]") -> None:
    """`qemu -- ARGUMENTS`."""
    parser = commands.add_parser(
        "qemu",
        help="QEMU with x-mig-hidden-regs, x-mig-safe-missing-regs and kvm-psci-version",
        description="Becomes the QEMU of this host ($ARMFERRY_QEMU, or qemu-system-aarch64 on "
        "PATH) with these arguments. The properties work on -cpu, -global and -device whether or "
        "not that QEMU knows them, and migrations in and out are decided on the way.",
    )
    parser.add_argument(
        "words", metavar="ARGUMENTS", nargs=argparse.REMAINDER, help="QEMU's own, after --"
    )
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Becomes QEMU."""
    from armferry.wrapper.start import main

    words = arguments.words
    return main(words[1:] if words[:1] == ["--"] else words)
