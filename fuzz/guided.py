"""`python -m fuzz.guided TARGET [libFuzzer's options]`: a long run guided by coverage.

Needs the extra `fuzz` (atheris); the targets and their oracles are the same.
"""

import sys

import atheris

with atheris.instrument_imports(include=["armferry"]):
    from fuzz.targets import TARGETS

__all__: list[str] = []


def main() -> None:
    """Hands the target over to libFuzzer, which never returns."""
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
