"""Registers that must not be hidden on a command line: a mistake, said before QEMU starts."""

from collections.abc import Iterable

from armferry.boundary import essential
from armferry.registers import name
from armferry.wrapper.errors import ArgumentFault

__all__ = ["refuse_needed"]


def refuse_needed(hidden: Iterable[int], program: str, option: str) -> None:
    """Raises ArgumentFault when one of the registers `hidden` is needed; names all of them."""
    needed = essential(hidden)
    if needed:
        listed = ", ".join(f"{name(index)} ({index:#018x})" for index in needed)
        raise ArgumentFault(
            f"{program}: {option}: the guest needs {listed} to run: hidden, its content would be "
            "lost in every migration; take it off the list"
        )
