"""The features word in a fingerprint's document."""

import json

import pytest

from armferry.hosts.fingerprints.fingerprint import (
    Fingerprint,
    FingerprintError,
    Provenance,
    dump,
    parse,
)


def document(features: int | None) -> bytes:
    registers = ({0x603000000013DE82: 0},)
    return dump(Fingerprint(Provenance("probe"), registers, True, features=features)).encode()


@pytest.mark.parametrize("features", [None, 0x73F0EF179])
def test_is_kept(features: int | None) -> None:
    assert parse(document(features), "host.json").features == features


def test_document_from_before_there_was_one() -> None:
    old = json.loads(document(None))
    del old["features"]
    assert parse(json.dumps(old).encode(), "host.json").features is None


def test_word_out_of_range() -> None:
    bad = json.loads(document(1)) | {"features": "0x10000000000000000"}
    with pytest.raises(FingerprintError) as caught:
        parse(json.dumps(bad).encode(), "host.json")
    assert str(caught.value) == (
        "host.json: malformed fingerprint: features 0x10000000000000000 is out of range"
    )
