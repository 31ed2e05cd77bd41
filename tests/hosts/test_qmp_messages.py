"""QMP's bytes cut into messages: whole, byte by byte, in random pieces."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from armferry.hosts.qmp.messages import Piece, Splitter, read_message

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab\"'\\{}[],: \n", max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("a'\"}", max_size=3), inner)
    ),
    max_leaves=4,
)
MESSAGES = st.dictionaries(st.text("id{\"'", max_size=4), VALUES, max_size=4)
GAPS = st.text(" \r\n\t", max_size=3)


def _wholes(pieces: list[Piece]) -> list[bytes]:
    return [piece.data for piece in pieces if piece.whole]


@settings(max_examples=50)
@given(st.lists(st.tuples(GAPS, MESSAGES), max_size=4), st.data())
def test_messages_come_out_whole_however_they_come_in(
    messages: list[tuple[str, dict[str, object]]], data: st.DataObject
) -> None:
    texts = [json.dumps(message).encode() for _, message in messages]
    stream = b"".join(gap.encode() + text for (gap, _), text in zip(messages, texts, strict=True))
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=20).map(sorted))
    splitter, pieces = Splitter(), []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        pieces += splitter.feed(stream[begin:end])
    assert b"".join(piece.data for piece in pieces) + splitter.close() == stream
    assert _wholes(pieces) == texts
    assert [read_message(text) for text in texts] == [message for _, message in messages]


@given(st.binary(max_size=60))
def test_any_bytes_pass_unchanged(stream: bytes) -> None:
    splitter = Splitter()
    pieces = [piece for at in range(len(stream)) for piece in splitter.feed(stream[at : at + 1])]
    assert b"".join(piece.data for piece in pieces) + splitter.close() == stream


def test_byte_by_byte_is_the_same() -> None:
    stream = b' {"a":"}\\"{"}\r\n{\'b\':\'"\'}garbage{"c":[{}]}'
    splitter = Splitter()
    pieces = [piece for at in range(len(stream)) for piece in splitter.feed(stream[at : at + 1])]
    assert _wholes(pieces) == [b'{"a":"}\\"{"}', b"{'b':'\"'}", b'{"c":[{}]}']
    assert _wholes(Splitter().feed(stream)) == _wholes(pieces)


def test_reset_byte_resets() -> None:
    pieces = Splitter().feed(b'{"half":\xff{"whole":1}')
    assert [(piece.data, piece.whole) for piece in pieces] == [
        (b'{"half":\xff', False),
        (b'{"whole":1}', True),
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [(b'{"a":1}', {"a": 1}), (b"{'a':'b'}", {"a": "b"}), (b"{a}", None), (b"[1]", None)],
)
def test_read(data: bytes, message: object) -> None:
    assert read_message(data) == message
