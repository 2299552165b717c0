"""The storefront in a real browser, on a real service: a choice changes the list, on a phone and on a desk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.service_process import running
from nightloom.data.sources.service_store import read_votes
from tests import waiting
from tests.chromium import CHROMIUM, FLAGS
from tests.service_app import make_served, name_champion

FIRST = "document.querySelector('#items li > span:nth-child(2)').innerText.split('\\n')[0]"


VOTING = [
    ("en-GB", "Is this reason helpful?", "Not helpful", "Thank you."),
    ("zh-CN", "这条理由有帮助吗？", "没帮助", "谢谢您的反馈。"),  # noqa: RUF001
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storefront")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """A service with one worker."""
    name_champion(folder, make_served(folder / "made"))
    with running(folder) as service:
        yield service.address


@pytest.fixture
def store(folder: Path) -> Path:
    """The service's file."""
    return next(path for path in folder.glob("*.db") if "-base-" not in path.name)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield found
        found.close()


def until(page: Any, is_so: Callable[[], bool]) -> None:
    """Wait until the page is as wanted; the page's own rules forbid Playwright's waiting for an expression."""
    waiting.until(lambda: page.wait_for_timeout(50) or is_so(), 0)


def titles(page: Any) -> list[str]:
    """Titles of the list."""
    return [text.split("\n")[0] for text in page.locator("#items li > span:nth-child(2)").all_inner_texts()]


@pytest.mark.parametrize("width", [360, 1280])
def test_choosing_and_dismissing(browser: Any, address: str, width: int, tmp_path: Path) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800})
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(address)
    page.wait_for_selector("#items li")
    first = titles(page)
    assert len(first) == 20

    page.get_by_label("Search by title").fill("title 14")
    page.get_by_role("button", name="Choose Title 14", exact=True).click()
    until(page, lambda: titles(page)[:1] not in ([], first[:1]))
    second = titles(page)
    assert second != first
    assert "Title 14" not in second
    reason = page.locator("#items details.why").first
    assert reason.locator("summary").inner_text().startswith(("Because", "Recommended for your history as a whole."))
    reason.locator("summary").click()
    assert reason.locator(".bar").count() == 1
    assert reason.locator(".bar meter").is_visible()

    page.get_by_role("button", name=f"Not {second[0]}", exact=True).click()
    assert titles(page) == second[1:]
    page.get_by_role("button", name=f"Similar to {second[1]}", exact=True).click()
    page.wait_for_selector("#near[open] li")
    assert page.locator("#near-items li").count() == 8
    page.get_by_role("button", name="Close").click()

    page.get_by_role("button", name="More").click()
    until(page, lambda: page.locator("#items li").count() > 30)
    assert len(set(titles(page))) == len(titles(page)) == 39
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.get_by_role("button", name="Start again").click()
    until(page, lambda: titles(page) == first)
    assert titles(page) == first
    assert faults == []
    page.close()


@pytest.mark.parametrize(("locale", "ask", "no", "thanks"), VOTING)
def test_a_vote_on_a_reason_is_stored(browser: Any, address: str, store: Path, locale: str, ask: str, no: str, thanks: str) -> None:
    context = browser.new_context(locale=locale, viewport={"width": 360, "height": 800})
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("#items li")
    page.get_by_label("Search by title").fill("title 14")
    page.get_by_role("button", name="Choose Title 14", exact=True).click()
    page.wait_for_selector("#items details.why summary")
    box = page.locator("#items details.why").first
    text = box.locator("summary").inner_text()
    assert text.startswith(("因为", "根据") if locale == "zh-CN" else ("Because", "Recommended"))
    title = titles(page)[0]
    before = votes(store)
    box.locator("summary").click()
    group = page.get_by_role("group", name=f"{ask} {title}", exact=True)
    assert group.is_visible()
    size = group.get_by_role("button", name=no, exact=True).bounding_box()
    assert size is not None
    assert min(size["width"], size["height"]) >= 24  # WCAG 2.2, target size
    group.get_by_role("button", name=no, exact=True).press("Enter")
    assert group.get_by_role("status").inner_text() == thanks
    until(page, lambda: votes(store) - before == {"not_helpful": 1})
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    context.close()


def votes(store: Path) -> Counter[str]:
    """Votes by what they say, as the next night counts them."""
    found = Counter[str]()
    for said in read_votes(str(store), "shop", store.parent).values():
        found.update(said)
    return +found


def test_titles_are_text(browser: Any, address: str) -> None:
    from nightloom.client import Client

    with Client(address) as client:
        client.put_item("<b>x</b>", {"title": "<img src=x onerror=document.title='bad'> zebra"})
    page = browser.new_page()
    page.goto(address)
    page.get_by_label("Search by title").fill("zebra")
    page.wait_for_selector("#found button")
    assert page.locator("#found img").count() == 0
    assert page.title() == "Nightloom"
    page.close()


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Any, address: str, width: int, scheme: Any) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.goto(address)
    page.wait_for_selector("#items li")

    def faults() -> list[str]:
        found = Axe().run(page)
        return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found.response["violations"]]

    assert faults() == [], "as it opens"
    page.get_by_label("Search by title").fill("title 14")
    page.get_by_role("button", name="Choose Title 14", exact=True).click()
    page.wait_for_selector("#chosen li")
    page.locator("#items details.why summary").first.click()
    assert faults() == [], "with a choice and its bars"
    page.locator("#items .vote button").first.click()
    assert faults() == [], "with a vote"
    page.get_by_role("button", name="Similar to").first.click()
    page.wait_for_selector("#near[open] li")
    assert faults() == [], "with the dialogue"
    page.evaluate("document.querySelector('#near').append(document.createElement('img'))")
    assert [one.split(":")[0] for one in faults()] == ["image-alt"], "what is wrong is found"
    page.close()
