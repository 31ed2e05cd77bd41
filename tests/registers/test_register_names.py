"""Names that no encoding of the architecture stands behind: firmware, caches, vectors."""

import pytest

from armferry.registers import name, parse_register
from armferry.registers.catalogue import (
    named_encodings,
    pseudo_names,
    second_names,
    vector_names,
)


@pytest.mark.parametrize("names", [pseudo_names(), vector_names()], ids=["few", "vectors"])
def test_they_read_back_and_are_nobody_elses(names: dict[str, int]) -> None:
    others = {*named_encodings().values(), *second_names()}
    assert not others & names.keys()
    for text, index in names.items():
        assert parse_register(text) == parse_register(text.lower()) == index
        assert name(index) == text


def test_there_are_as_many_as_kvm_has() -> None:
    vectors = vector_names()
    assert len(pseudo_names()) == 4 + 4 + 14 + 31 + 10 + 32 + 2 + 2
    assert len(vectors) == 32 * 32 + 16 * 32 + 32 + 1
    assert not vectors.keys() & pseudo_names().keys()
