"""The depth of a description is counted exactly, whatever its strings hold."""

import json
from typing import Any

import pytest

from armferry.stream import CorruptStream, OversizedStream
from armferry.stream.description import parse_description
from armferry.stream.wire import MAX_NESTING


def nested(depth: int, text: str) -> bytes:
    value: Any = {}
    for _ in range(depth - 1):
        value = {"a": [], text: value}
    return json.dumps(value).encode()


@pytest.mark.parametrize("text", ["plain", "]", "[[[", "}{", '"', "\\", '\\"]'])
def test_depth_is_counted_outside_strings(text: str) -> None:
    parse_description(nested(MAX_NESTING, text), 0)
    with pytest.raises(OversizedStream) as error:
        parse_description(nested(MAX_NESTING + 1, text), 7)
    assert str(error.value) == f"the description nests deeper than {MAX_NESTING} (at byte 7)"


@pytest.mark.parametrize("text", [b"[}" * 5, b"{" * 10, b"]" * 5, b'{"a": "'])
def test_brackets_that_do_not_match_are_no_json(text: bytes) -> None:
    with pytest.raises(CorruptStream, match="the description is not JSON: "):
        parse_description(text, 0)
