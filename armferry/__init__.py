"""armferry carries Arm virtual machines across hosts with different CPU register sets.

`armferry.check`, `plan`, `inspect`, `ferry` and `fingerprint` are for programs; see `armferry.api`.
They are loaded when they are first used: a hook of libvirt imports this package and waits.
"""

TYPE_CHECKING = False  # importing typing takes as long as all of this
if TYPE_CHECKING:
    from armferry.api import (
        Ferried,
        Inspection,
        Plan,
        Report,
        Rules,
        check,
        ferry,
        fingerprint,
        inspect,
        plan,
    )

__all__ = [
    "Ferried",
    "Inspection",
    "Plan",
    "Report",
    "Rules",
    "__version__",
    "check",
    "ferry",
    "fingerprint",
    "inspect",
    "plan",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name in __all__:
        import importlib

        return getattr(importlib.import_module("armferry.api"), name)
    raise AttributeError(f"module 'armferry' has no attribute {name!r}")


def __dir__() -> "list[str]":
    return sorted({*globals(), *__all__})
