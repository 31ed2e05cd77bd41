"""`--snapshot NAME`: which saved state of a qcow2 image is meant."""

import argparse

__all__ = ["add_snapshot", "with_snapshot"]


def add_snapshot(parser: argparse.ArgumentParser, file: str) -> None:
    """The option; `file` is what the command's help calls the image."""
    parser.add_argument(
        "--snapshot",
        metavar="NAME",
        help=f"the snapshot whose saved state is meant, where {file} is a qcow2 image; the same as "
        f"{file}#NAME",
    )


def with_snapshot(text: str, snapshot: str | None) -> str:
    """A file and the name of a snapshot in it, as one word."""
    return text if snapshot is None else f"{text}#{snapshot}"
