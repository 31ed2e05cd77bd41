"""What a cpu section says of itself when no description does."""

from collections.abc import Callable

import pytest

from armferry.stream import Window, read_saved

Named = Callable[[str], bytes]
WindowOn = Callable[[bytes], Window]


def test_description_is_believed(slim_named: Named, window_on: WindowOn) -> None:
    cpu = read_saved(window_on(slim_named("tcg_5.2.0_virt-5.2_cortex-a57_2"))).cpus[1]
    assert cpu.layout is cpu.section.layout
    assert cpu.trusted_features == 0x73F0EF179


@pytest.mark.parametrize(
    ("name", "trusted"),
    [
        ("tcg_5.2.0_virt-5.2_cortex-a57_2", 0x73F0EF179),
        ("tcg_7.2.22_virt-7.2_max_1", None),
        ("tcg_11.1.3_virt-10.0_cortex-a57_1", None),
    ],
)
def test_without_one_subsections_are_those_that_stand_there(
    name: str, trusted: int | None, slim_named: Named, window_on: WindowOn
) -> None:
    stream = slim_named(name)
    described = read_saved(window_on(stream)).cpus[0]
    mark = stream.rindex(b"\0\6")
    while int.from_bytes(stream[mark + 2 : mark + 6], "big") != len(stream) - mark - 6:
        mark = stream.rindex(b"\0\6", 0, mark)
    bare = read_saved(window_on(stream[: mark + 1])).cpus[0]
    assert bare.section.layout is None
    assert bare.trusted_features == trusted
    fields = [field.name for field in bare.layout.state.fields]
    assert fields == ([] if trusted is None else ["env.features"])
    assert (bare.layout.name, bare.layout.instance, bare.layout.version) == ("cpu", 0, 22)
    assert [(part.name, part.version, part.length) for part in bare.layout.state.subsections] == [
        (part.name, part.version, part.length) for part in described.layout.state.subsections
    ]
