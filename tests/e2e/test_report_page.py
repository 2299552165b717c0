"""The report in a real browser: no horizontal scroll on a phone, and the column that one compares with stays in view."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nightloom.report.html import render_html
from tests.chromium import CHROMIUM, FLAGS
from tests.sample_reports import hostile_report, report


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield found
        found.close()


def long_report(ending: str) -> dict[str, Any]:
    """A report with words that nothing breaks."""
    content = report(ending)
    word = "Donaudampfschifffahrtsgesellschaftskapitänswitwenrente"
    content["gate"]["reasons"] = [f"Slice '{word}' lost 14.3 %."]
    for families in content["slices"].values():
        families["streaming"][f"occupation={word}"] = {"users": 30, "ndcg_at_10": 0.2}
    for check in content["checks"]:
        check["column"] += word
    for user in content["sample_lists"].get("users", []):
        user["user_id"] += word
        for item in (*user["challenger"], *user["champion"]):
            item["title"] += word
    return content


@pytest.mark.parametrize("ending", ["promoted", "first", "rejected", "refused"])
@pytest.mark.parametrize("width", [360, 768])
def test_the_page_is_as_wide_as_the_screen(browser: Any, tmp_path: Path, ending: str, width: int) -> None:
    path = tmp_path / "report.html"
    path.write_text(render_html(long_report(ending), {}), encoding="utf-8")
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(path.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.close()


@pytest.mark.parametrize("ending", ["promoted", "refused"])
def test_what_data_say_runs_nowhere(browser: Any, tmp_path: Path, ending: str) -> None:
    path = tmp_path / "report.html"
    path.write_text(render_html(hostile_report(ending), {}), encoding="utf-8")
    page = browser.new_page()
    page.goto(path.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.evaluate("window.hit") is None
    assert page.locator("script, img, svg[onload]").count() == 0
    assert page.get_by_text("window.hit = 1").count() > 5
    page.close()


def test_on_a_phone_the_name_of_the_model_stays_in_view(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(render_html(report("promoted"), {}), encoding="utf-8")
    page = browser.new_page(viewport={"width": 360, "height": 800})
    page.goto(path.as_uri())
    table = page.locator("#models .scroll").first
    name = table.get_by_role("rowheader", name="nightloom", exact=True)
    before = name.bounding_box()
    assert table.evaluate("one => { one.scrollLeft = 10000; return one.scrollLeft }") > 100, "the table is wider than the screen"
    assert name.bounding_box() == before
    page.close()
