"""The picture of a matrix."""

import xml.etree.ElementTree as ET
from typing import Any

import pytest

from armferry.lab.heat_map import heat_map

OLD, NEW = "6.12.117+deb13 neoverse-n1 10.0.13", "6.17.13+deb13 neoverse-n1 10.0.13"
SVG = "{http://www.w3.org/2000/svg}"


def move(source: str, there: str, *, loads: bool, risk: str, **more: Any) -> dict[str, Any]:
    return {
        "source": source,
        "destination": there,
        "stock": {"loads": loads},
        "running": {"risk": risk},
        "ferried": True,
        "faults": [],
        **more,
    }


def drawn(*moves: dict[str, Any]) -> ET.Element:
    return ET.fromstring(heat_map({"moves": list(moves)}, "a <title>"))


def squares(picture: ET.Element) -> dict[str, str]:
    return {
        title.text or "": rect.get("fill", "")
        for rect in picture.iter(f"{SVG}rect")
        for title in rect.iter(f"{SVG}title")
    }


def test_a_square_says_what_the_move_costs() -> None:
    picture = drawn(
        move(OLD, NEW, loads=False, risk="lossless"), move(NEW, OLD, loads=True, risk="none")
    )
    assert squares(picture) == {
        f"{OLD} to {NEW}: stock QEMU refuses; nothing is lost": "#7fc97f",
        f"{NEW} to {OLD}: stock QEMU loads; goes on as it is": "#1a7f4b",
    }
    # one refused by stock QEMU, and the key
    assert len(list(picture.iter(f"{SVG}circle"))) == 2
    texts = [one.text for one in picture.iter(f"{SVG}text")]
    assert texts.count("6.12.117, QEMU 10.0.13") == 2


@pytest.mark.parametrize(
    ("more", "colour"),
    [({"ferried": None}, "#5b2c6f"), ({"faults": ["stock QEMU: predicted otherwise"]}, "#000000")],
)
def test_what_fails_and_what_was_not_predicted_stand_out(more: dict[str, Any], colour: str) -> None:
    picture = drawn(move(OLD, NEW, loads=False, risk="lossless", **more))
    assert list(squares(picture).values()) == [colour]


def test_rows_are_from_and_columns_are_to() -> None:
    picture = drawn(move(NEW, OLD, loads=True, risk="none"))
    (rect,) = [r for r in picture.iter(f"{SVG}rect") if list(r)]
    # the older host comes first
    assert float(rect.get("x", "0")) < 200
    assert float(rect.get("y", "0")) > 160
