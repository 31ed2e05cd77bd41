"""The JSON description: anything in, a layout or a StreamError out."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armferry.stream import CorruptStream, OversizedStream, StreamError, read_cpu
from armferry.stream.description import layouts_of, parse_description
from armferry.stream.events import DeviceSection

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "name",
                    "size",
                    "fields",
                    "subsections",
                    "vmsd_name",
                    "struct",
                    "instance_id",
                    "version",
                    "array_len",
                    "devices",
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)


@given(JSON)
def test_any_devices_are_laid_out_or_refused(devices: object) -> None:
    text = json.dumps({"devices": devices}).encode()
    try:
        layouts = layouts_of(parse_description(text, 0), 0)
    except StreamError:
        return
    for layout in layouts:
        layout.name.encode()
        assert layout.state.length >= 0


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-32"])
def test_depth_is_bounded_in_any_encoding(encoding: str) -> None:
    text = '{"\u0122":' + "[" * 100_000
    with pytest.raises(StreamError):
        parse_description(text.encode(encoding), 0)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (b"[]", CorruptStream, "the description is not a JSON object (at byte 7)"),
        (b"[" * 65, OversizedStream, "the description nests deeper than 64 (at byte 7)"),
    ],
)
def test_what_is_wrong_with_it(text: bytes, error: type[StreamError], message: str) -> None:
    with pytest.raises(error) as caught:
        parse_description(text, 7)
    assert str(caught.value) == message


def test_a_name_that_cannot_be_on_the_wire_is_refused() -> None:
    document = {"devices": [{"name": "\ud800", "instance_id": 0, "fields": []}]}
    with pytest.raises(CorruptStream, match="the description of a device is malformed"):
        layouts_of(document, 0)


@pytest.mark.parametrize("size", [-1, 1 << 32, True, "4", 1.5])
def test_a_size_that_is_none_is_refused(size: object) -> None:
    entry = {"name": "disk", "instance_id": 0, "fields": [{"name": "data", "size": size}]}
    with pytest.raises(CorruptStream) as caught:
        layouts_of({"devices": [entry]}, 7)
    assert str(caught.value) == (
        "the description of a device is malformed: "
        f"{ValueError(f'{size!r} is no number from 0 to 4294967295')!r} (at byte 7)"
    )


@given(
    places=st.permutations(
        ["cpreg_vmstate_array_len", "cpreg_vmstate_indexes", "cpreg_vmstate_values"]
    ),
    sizes=st.tuples(*[st.integers(0, 9)] * 3),
    counts=st.tuples(*[st.integers(0, 3)] * 3),
    payload=st.binary(max_size=80),
)
def test_a_cpu_with_any_description_is_read_or_refused(
    places: list[str], sizes: tuple[int, ...], counts: tuple[int, ...], payload: bytes
) -> None:
    fields = [
        {"name": name, "size": size, "array_len": count}
        for name, size, count in zip(places, sizes, counts, strict=True)
    ]
    layout = layouts_of({"devices": [{"name": "cpu", "instance_id": 0, "fields": fields}]}, 0)[0]
    with pytest.raises(StreamError):
        read_cpu(DeviceSection(0, 1, "cpu", 0, 22, 17, payload, layout))


def test_a_description_that_moves_the_list_is_refused() -> None:
    """One register at payload offset 568; the description puts it four bytes further."""
    words = (1).to_bytes(4, "big") + (6 << 60).to_bytes(8, "big") + bytes(8)
    for before in (568, 572):
        fields = [
            {"name": "rest", "size": before},
            {"name": "cpreg_vmstate_array_len", "size": 4},
            {"name": "cpreg_vmstate_indexes", "size": 8},
            {"name": "cpreg_vmstate_values", "size": 8},
            {"name": "rest", "size": 73},
        ]
        entry = {"name": "cpu", "instance_id": 0, "fields": fields}
        layout = layouts_of({"devices": [entry]}, 0)[0]
        section = DeviceSection(0, 1, "cpu", 0, 22, 17, bytes(568) + words + bytes(73), layout)
        if before == 568:
            assert read_cpu(section).registers == {6 << 60: 0}
        else:
            with pytest.raises(StreamError):
                read_cpu(section)


def test_text_that_never_ends_is_refused_in_linear_time() -> None:
    # quadratic time would take minutes here, and the suite's own limit with it
    with pytest.raises(CorruptStream, match="Unterminated string"):
        parse_description(b'{"a": "' + b'\\"' * 1_000_000, 0)
