"""A kind of guest as a word for labels and tags: letters, digits, dashes and dots."""

import hashlib
import re

__all__ = ["kind_label"]

_MOST = 33  # what a Kubernetes label of 63 letters leaves beside the rest


def kind_label(kind: str) -> str:
    """`virt-10.0,gic-version=3 host kvm` is `virt-10.0-gic-version-3-host-kvm`.

    One that is too long is cut and ends in a digest of the whole.
    """
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", kind).strip("-.")
    if len(plain) <= _MOST:
        return plain
    digest = hashlib.sha256(kind.encode()).hexdigest()[:8]
    return f"{plain[: _MOST - 9].rstrip('-.')}-{digest}"
