"""The page in a real Chromium, Debian's: without network, without script, narrow, dark, printed."""

import base64
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

PICTURES = Path(__file__).parent / "pictures"
CHROMIUM = "/usr/bin/chromium"
_MOST_APART = 0.05
"""Of black to white, over squares of 1/64 of the picture: another font is less, another layout
more. `ARMFERRY_PICTURES=write` takes the pictures anew."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # root has no sandbox of Chromium's
        words = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=words)
        yield browser
        browser.close()


def opened(chromium: Browser, page: Path, width: int, *, script: bool, scheme: str) -> Page:
    """The page at its top; whatever it would fetch ends the test."""
    context = chromium.new_context(
        viewport={"width": width, "height": 900},
        java_script_enabled=script,
        color_scheme="dark" if scheme == "dark" else "light",
        offline=True,
        reduced_motion="reduce",
    )
    found = context.new_page()
    asked: list[str] = []
    found.on("request", lambda request: asked.append(request.url))
    faults: list[str] = []
    found.on("console", lambda message: faults.append(message.text))
    found.on("pageerror", lambda error: faults.append(str(error)))
    found.goto(page.as_uri())
    assert asked == [page.as_uri()]
    assert faults == []
    return found


full = pytest.mark.full


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (1280, "light"),
        (390, "dark"),
        pytest.param(1280, "dark", marks=full),
        pytest.param(390, "light", marks=full),
    ],
)
def test_it_reads_without_script_and_network(
    chromium: Browser, page: Path, width: int, scheme: str
) -> None:
    found = opened(chromium, page, width, script=False, scheme=scheme)
    assert found.get_by_text("4 of 5 hosts heard today; 3 guests have nowhere").first.is_visible()
    assert found.locator(".matrix td").first.is_visible()
    assert not found.locator("#search").is_visible()  # it needs the script
    assert found.evaluate("document.documentElement.scrollWidth") == width
    cell = found.locator(".matrix td a.N").first
    goal = cell.get_attribute("href") or ""
    cell.click()
    assert found.url.endswith(goal)
    assert found.locator(goal).get_by_role("heading").is_visible()
    found.goto(page.as_uri())
    compare(chromium, found.screenshot(), f"{width}-{scheme}.png")
    found.context.close()


@pytest.mark.parametrize(
    ("width", "scheme"), [(390, "dark"), pytest.param(1280, "light", marks=full)]
)
def test_axe_finds_nothing(chromium: Browser, page: Path, width: int, scheme: str) -> None:
    found = opened(chromium, page, width, script=True, scheme=scheme)
    results = Axe().run(found)
    assert results.violations_count == 0, results.generate_report()
    found.context.close()


def test_search_and_keys(chromium: Browser, page: Path) -> None:
    found = opened(chromium, page, 1280, script=True, scheme="light")
    found.keyboard.press("/")
    found.keyboard.type("stays")
    assert found.locator("#found").inner_text().startswith("2 of ")
    visible = found.locator("[data-search]:visible")
    assert all("stays" in text for text in visible.all_inner_texts())
    found.keyboard.press("Escape")
    assert found.locator("[data-search]:visible").count() > 3
    first = found.locator(".matrix tbody tr").nth(2).locator("td a").first
    first.focus()
    before = found.evaluate("document.activeElement.getAttribute('href')")
    found.keyboard.press("ArrowRight")
    right = found.evaluate("document.activeElement.getAttribute('href')")
    assert right != before
    found.keyboard.press("ArrowLeft")
    assert found.evaluate("document.activeElement.getAttribute('href')") == before
    found.context.close()


@full
def test_headings_of_the_matrix_stay_in_sight(chromium: Browser, page: Path) -> None:
    found = opened(chromium, page, 390, script=True, scheme="light")
    box = found.locator(".scroll").first
    box.evaluate("box => { box.scrollLeft = 200; box.scrollTop = 100; }")
    row = found.locator(".matrix tbody th").first.bounding_box()
    edge = box.bounding_box()
    assert row is not None
    assert edge is not None
    assert abs(row["x"] - edge["x"]) <= 2
    head = found.locator(".matrix thead th").nth(1).bounding_box()
    assert head is not None
    assert abs(head["y"] - edge["y"]) <= 2
    found.context.close()


@full
def test_it_prints(chromium: Browser, page: Path) -> None:
    found = opened(chromium, page, 1280, script=True, scheme="dark")
    found.emulate_media(media="print")
    assert not found.locator("nav").is_visible()
    assert found.locator("body").evaluate("b => getComputedStyle(b).backgroundColor") == (
        "rgb(255, 255, 255)"
    )
    assert found.locator(".scroll").first.evaluate("b => getComputedStyle(b).overflow") == "visible"
    assert found.pdf()[:5] == b"%PDF-"
    found.context.close()


def compare(chromium: Browser, picture: bytes, name: str) -> None:
    """Against the kept picture, as coarse as a person looks at first."""
    place = PICTURES / name
    if os.environ.get("ARMFERRY_PICTURES") == "write":
        place.write_bytes(picture)
    blank = chromium.new_page()
    apart = blank.evaluate(
        """async ([one, other]) => {
          const looked = async (data) => {
            const image = new Image();
            image.src = 'data:image/png;base64,' + data;
            await image.decode();
            const canvas = document.createElement('canvas');
            canvas.width = canvas.height = 64;
            const pen = canvas.getContext('2d');
            pen.imageSmoothingQuality = 'high';
            pen.drawImage(image, 0, 0, 64, 64);
            return pen.getImageData(0, 0, 64, 64).data;
          };
          const [a, b] = [await looked(one), await looked(other)];
          let sum = 0;
          for (let at = 0; at < a.length; at++) sum += Math.abs(a[at] - b[at]);
          return sum / a.length / 255;
        }""",
        [base64.b64encode(data).decode() for data in (picture, place.read_bytes())],
    )
    blank.close()
    assert apart <= _MOST_APART, f"{name} looks otherwise: {apart:.3f}"
