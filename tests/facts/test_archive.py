"""Whether facts are as new as what people can install: the archive against the atlas."""

import pytest

from armferry.cache import cache_folder
from armferry.facts import FactSubject, measured_to, release_key, series_of
from armferry.hosts.fingerprints.atlas import read_atlas
from armferry.lab.apt import AptState
from armferry.lab.kernels import KernelStore, release_of


@pytest.mark.kernel
@pytest.mark.full
def test_the_archive_has_no_series_of_kernels_that_the_atlas_lacks() -> None:
    """When it fails: docs/facts.md, "A series of Linux"."""
    AptState(cache_folder("apt")).update()
    offered = {series_of(release_of(package)) for package in KernelStore().available()}
    known = {series_of(entry.release) for entry in read_atlas().kernels}
    newest = max(known, key=release_key)
    assert measured_to(FactSubject.KERNEL) == newest
    assert {one for one in offered if release_key(one) > release_key(newest)} == set()
    assert offered <= known
