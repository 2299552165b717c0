"""The HTML report: one file that fetches nothing, with everything escaped."""

from __future__ import annotations

import base64
from html.parser import HTMLParser

import pytest

from nightloom.report.html import render_html
from tests.sample_reports import report

PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
VOID = {"meta", "img", "br", "rect", "polyline", "circle"}


class Page(HTMLParser):
    """Collects what the page would fetch, its text, and elements that are not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.headings: list[str] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.fetched += [found[name] for name in ("src", "srcset", "data") if name in found]
        if tag in ("link", "script", "iframe", "object"):
            self.fetched.append(tag)
        if tag == "a":
            self.links.append(found["href"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        if self.open and self.open[-1] != "style":
            self.text += data


@pytest.mark.parametrize("ending", ["promoted", "first", "rejected", "dry_run", "disabled", "refused"])
def test_every_ending_renders_a_well_formed_page_that_fetches_nothing(ending):
    html = render_html(report(ending), {})
    page = Page(html)
    assert page.open == []
    assert page.fetched == []
    assert "url(" not in html
    assert "@import" not in html
    assert "None" not in page.text
    assert "nan" not in page.text.lower().split()


def test_plots_are_inside_the_page(tmp_path):
    (tmp_path / "one.png").write_bytes(PIXEL)
    page = Page(render_html(report(), {"Learning curve": tmp_path / "one.png"}))
    assert page.fetched == ["data:image/png;base64," + base64.b64encode(PIXEL).decode()]
    assert "Learning curve" in page.text


def test_the_sections_of_a_whole_night():
    page = Page(render_html(report(), {}))
    assert page.headings == [
        "Champion against challenger",
        "Families, temporal",
        "Slices",
        "Why these recommendations",
        "Learning curve",
        "What a score is made of",
        "Data",
        "Time and memory",
        "Where to look next",
    ]
    assert page.links == ["http://127.0.0.1:5000/#/experiments/1/runs"]
    for said in ("0.0851 to 0.0999", "Dark City", "value: not between 1 and 5", "best 0.0", "margin -0.0018"):
        assert said in page.text


def test_a_first_night_has_no_difference_and_is_set_beside_the_best_baseline():
    html = render_html(report("first"), {})
    assert 'class="strip"' not in html
    assert "of <b>nightloom</b> and of graph" in html


def test_shares_of_the_score_add_up_and_the_largest_comes_first():
    html = render_html(report(), {})
    shares = [html.index(f"<td>{name}</td><td>{share} %</td>") for name, share in (("network", 70), ("cooccurrence", 20), ("graph", 10))]
    assert shares == sorted(shares)
    assert "<td>popularity</td><td>0 %</td>" in html
    assert "trained from scratch: training.warm_start is false." in html


def test_what_comes_from_data_is_escaped():
    content = report()
    content["gate"]["reasons"] = ["<script>alert(1)</script>"]
    html = render_html(content, {})
    assert "<script>" not in html
    assert "Boomerang &lt;b&gt;" in html


def test_a_slice_that_vetoes_is_marked():
    content = report("rejected")
    content["gate"]["guards"] = ["new users"]
    assert render_html(content, {}).count("against promotion") == 1


def test_bars_end_where_the_figures_say():
    html = render_html(report(), {})
    longest = 0.0925 * 1.08  # the top of the best family's interval
    assert f"width: {100 * 0.0901 / longest:.2f}%" in html
    assert f"left: {100 * 0.0901 * 0.92 / longest:.2f}%" in html
