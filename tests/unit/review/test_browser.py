"""Both pages of each task in headless Chromium: nothing is asked for, nothing overflows, every plot is drawn."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from .conftest import Reviewed

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on PATH")

#: What is inked of each chart: the box of its shapes, and the smallest text.
_DRAWN = """() => [...document.querySelectorAll('svg')].map(svg => {
  const box = svg.getBoundingClientRect();
  const drawn = [...svg.querySelectorAll('rect, polyline, circle')];
  const shapes = drawn.filter(one => one.getBoundingClientRect().width > 0);
  const outside = [...svg.querySelectorAll('*')].filter(one => {
    const mine = one.getBoundingClientRect();
    return mine.right > box.right + 2 || mine.left < box.left - 2 || mine.bottom > box.bottom + 2;
  }).map(one => one.outerHTML.slice(0, 120));
  return {width: box.width, height: box.height, shapes: shapes.length, outside: outside};
})"""


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as tool:
        opened = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["model_card", "comparison"])
def test_a_browser_shows_the_page(reviewed: Reviewed, browser: object, name: str, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})  # type: ignore[attr-defined]
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    address = (reviewed.out / f"{name}.html").as_uri()
    page.goto(address)
    assert said == []
    assert asked == [address]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    charts = page.evaluate(_DRAWN)
    assert len(charts) >= 2
    for chart in charts:
        assert chart["width"] > 250
        assert chart["height"] > 100
        assert chart["shapes"] >= 2
        assert chart["outside"] == []
    for place, figure in enumerate(page.query_selector_all("figure svg")):
        picture = figure.screenshot()
        assert len(picture) > 3000, (place, len(picture))  # a blank one of this size takes some 1,500 bytes
    page.close()
