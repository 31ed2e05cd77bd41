"""armferry carries Arm virtual machines across hosts with different CPU register sets."""

__all__ = ["__version__"]

__version__ = "0.1.0"
