"""The store and the relation that the options of `armferry fleet` name."""

import argparse

from armferry.cli.options import stated_policy
from armferry.fleet.standing import Standing
from armferry.fleet.store.database import open_database
from armferry.fleet.store.reading import Store
from armferry.policy import read_file

__all__ = ["open_standing", "open_store"]


def open_store(arguments: argparse.Namespace) -> Store:
    """The store, which must be there. Raises ArmferryError."""
    return Store(open_database(arguments.store, create=False))


def open_standing(arguments: argparse.Namespace) -> Standing:
    """The store under the policy of the options. Raises ArmferryError."""
    if not hasattr(arguments, "policy"):
        return Standing(open_store(arguments))
    return Standing(
        open_store(arguments),
        files=[read_file(path) for path in arguments.policy],
        command_line=stated_policy(arguments),
        builtin=not arguments.no_builtin,
    )
