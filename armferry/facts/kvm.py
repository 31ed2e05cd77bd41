"""What kernels' KVM does with register values, read from kvm.toml."""

from armferry.facts.tables import Basis, basis, table

__all__ = ["kvm_basis"]


def kvm_basis() -> Basis:
    """The series of Linux that the facts on KVM were measured with."""
    return basis(table("kvm")["values"])
