"""The page and the picture as text: whole, escaped, nothing fetched."""

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

from armferry.fleet.model import Answer
from armferry.fleet.overview import Overview
from armferry.web.page import fleet_page
from armferry.web.picture import COLOURS, matrix_svg

from .conftest import HOSTILE

VOID = {"meta", "br", "input"}


class Tags(HTMLParser):
    """Which elements there are, and whether each is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.scripts = 0
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        self.scripts += tag == "script"
        assert not any(name.startswith("on") for name in found)
        if "id" in found:
            self.ids.append(found["id"] or "")
        if "href" in found:
            self.links.append(found["href"] or "")
        self.sources += [found[name] or "" for name in ("src", "action", "data") if name in found]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_fetches_nothing(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert tags.scripts == 1  # its own
    assert tags.sources == []
    assert len(set(tags.ids)) == len(tags.ids)
    assert all(link.startswith("#") and link[1:] in tags.ids for link in tags.links)
    assert "url(" not in text
    assert "@import" not in text


def test_what_hosts_say_of_themselves_is_escaped(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert HOSTILE not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;&quot;&#x27;" in text


def test_the_sentence_and_every_cell(fleet: Overview, page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "4 of 5 hosts heard today; 3 guests have nowhere to go" in text
    for (source, destination), group in fleet.matrix.cells.items():
        assert f"{source} to {destination}: " in text
        assert group.cell.answer in Answer
    conditions = [str(cell) for one in fleet.explained for cell in one.group.cell.conditions]
    assert conditions
    assert all(f"Works if {one}." in text.replace("&amp;", "&") for one in conditions)
    assert "no rule of the policy allows" in text


def test_a_cell_leads_to_why_and_to_a_policy(fleet: Overview, page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    refused = [one for one in fleet.explained if one.group.cell.answer is Answer.NEVER]
    assert any(one.policy for one in refused)
    for one in fleet.explained:
        names = list(fleet.matrix.groups)
        anchor = f"why-{names.index(one.source)}-{names.index(one.destination)}"
        assert f'href="#{anchor}"' in text
        assert f'<section id="{anchor}"' in text


def test_without_a_plan_nothing_is_said_of_one(fleet: Overview) -> None:
    assert 'id="plan"' not in fleet_page(fleet)


def test_picture(fleet: Overview) -> None:
    """Well-formed, a letter for each pair, nothing but drawing in it."""
    root = ElementTree.fromstring(matrix_svg(fleet.matrix))
    tags = {one.tag.rpartition("}")[2] for one in root.iter()}
    assert tags == {"svg", "title", "rect", "text", "g"}
    letters = [one for one in root.iter() if one.tag.endswith("}g")]
    assert len(letters) == len(fleet.matrix.groups) ** 2


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_letters_stand_out_from_their_colour() -> None:
    css = (Path(__file__).parents[2] / "armferry" / "web" / "page.css").read_text()
    for answer, (back, front) in COLOURS.items():
        light, dark = sorted((luminance(back), luminance(front)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5
        assert re.search(rf"\.{answer.letter} {{ background: {back}; color: {front}; }}", css)
