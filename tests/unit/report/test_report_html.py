"""The HTML report: one file that fetches nothing, with everything escaped and every link alive."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from nightloom.report import figures, glossary
from nightloom.report.html import render_html
from tests.sample_reports import hostile_report, report

PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==")
VOID = {"meta", "img", "br", "rect", "polyline", "polygon", "circle"}
ENDINGS = ("promoted", "first", "rejected", "waits", "dry_run", "disabled", "refused")


class Page(HTMLParser):
    """Collects what the page would fetch, its links and anchors, its text, and elements that are not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.anchors: list[str] = []
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
        if "id" in found:
            self.anchors.append(found["id"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.text += " " if tag in ("td", "th", "h2", "h3", "summary", "caption", "span") else ""

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        if self.open and self.open[-1] != "style":
            self.text += data


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_ending_renders_a_well_formed_page_that_fetches_nothing(ending):
    html = render_html(report(ending), {})
    page = Page(html)
    assert page.open == []
    assert page.fetched == []
    assert "url(" not in html
    assert "@import" not in html
    assert "None" not in page.text
    assert "nan" not in page.text.lower().split()


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_link_leads_somewhere(ending, tmp_path):
    for name in ("report.json", "checks.json", "per_user.parquet"):
        (tmp_path / name).write_text("")
    (tmp_path / "quarantine").mkdir()
    page = Page(render_html(report(ending), {}, tmp_path))
    assert len(page.anchors) == len(set(page.anchors))
    for link in page.links:
        if link.startswith("#"):
            assert link[1:] in page.anchors
        elif not link.startswith("http"):
            assert (tmp_path / link).exists()
    assert "quarantine" in page.links
    assert "data_docs/index.html" not in page.links, "it is not there"


def test_a_page_that_stands_alone_links_to_no_file():
    assert [link for link in Page(render_html(report(), {})).links if not link.startswith("#")] == [
        "http://127.0.0.1:5000/#/experiments/1/runs/f00d",
        "http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning",
    ]


def test_only_figures_that_the_report_does_not_draw_itself_are_inside(tmp_path: Path):
    drawn = ("champion_streaming", "calibration_streaming", "reasons_summary")
    (tmp_path / "plots").mkdir()
    for name in (*drawn, "models_streaming", "slices_streaming", "learning_curve_streaming", "reasons_1"):
        (tmp_path / "plots" / f"{name}.png").write_bytes(PIXEL)
    found = figures.shown([tmp_path], ["streaming"])
    assert set(found) == set(drawn)
    page = Page(render_html(report(), found))
    assert page.fetched == ["data:image/png;base64," + base64.b64encode(PIXEL).decode()] * 3
    for caption in ("on every metric (streaming queries)", "Calibration of the re-ranker", "Mean share of each field"):
        assert page.text.count(caption) == 1


def test_the_sections_of_a_whole_night():
    page = Page(render_html(report(), {}))
    assert page.headings == [
        "Challenger against champion",
        "What changed for these users",
        "Model and baselines, streaming queries",
        "Slices",
        "Popularity penalty, streaming queries",
        "Why these recommendations",
        "Training",
        "Parts of a score",
        "Data",
        "Rules that were checked",
        "What serves",
        "Time and memory",
        "Where to look next",
        "Glossary",
    ]
    for said in ("0.0851 to 0.0999", "Dark City", "value: not between 1 and 5", "best 0.0", "margin -0.0018"):
        assert said in page.text


def test_reasons_of_the_service_stand_beside_the_champion_s():
    text = Page(render_html(report(), {})).text
    assert "challenger 100 0.602 0.525 0.698 1.040" in " ".join(text.split())
    assert "champion 99 0.611 0.531 0.701 1.020" in " ".join(text.split())
    before = report()  # of a night that did not write them
    del before["explanations"]["service_fidelity"]
    assert "0.602" not in Page(render_html(before, {})).text


def test_each_group_of_people_has_a_row_and_each_gap_an_interval():
    content = report()
    groups = [
        {"name": "F", "users": 84, "value": 0.1236, "low": 0.11, "high": 0.137},
        {"name": "M", "users": 217, "value": 0.1282, "low": 0.12, "high": 0.138},
    ]
    gap = {"attribute": "gender", "groups": groups, "gap": 0.0046, "best": "M", "worst": "F", "low": -0.0118, "high": 0.0206}
    content["fairness"] = {"streaming": [gap]}
    text = " ".join(Page(render_html(content, {})).text.split())
    for said in ("M above F by 0.0046, -0.0118 to 0.0206", "F 84 0.1236 0.1100 to 0.1370", "M 217 0.1282 0.1200 to 0.1380"):
        assert said in text


def test_times_are_in_words_and_in_utc():
    content = report() | {"finished": "2026-11-24T03:07:59+01:00"}
    html = render_html(content, {})
    assert "finished 24 November 2026, 02:07 UTC" in html
    assert "20 September 1997 to 22 April 1998" in html
    assert "Events from" not in render_html(report() | {"period": [0, 99_999]}, {}), "an order is no time"


def test_what_changed_for_a_user_shows_titles_and_moves_and_nothing_else_of_the_user():
    text = " ".join(Page(render_html(report(), {})).text.split())
    assert "User 42 Challenger Rank Item Champion's rank 1 Dark City ▲ was 3 2 Heat & Dust same" in text
    assert "3 A <b>bold</b> title new, was below 20 4 Gattaca ▼ was 1" in text
    assert "1 Gattaca ▼ now 4 2 Heat & Dust same 3 Dark City ▲ now 1 4 Sphere below 20" in text
    assert "7.2 of the first ten items are in both lists on average" in text


def test_without_a_champion_the_lists_stand_alone():
    page = Page(render_html(report("first"), {}))
    text = page.text
    assert "There is no champion to compare with." in text
    assert "Recommendations of these users" in page.headings
    assert "What changed" not in text
    assert "Champion's rank" not in text


def test_every_rule_is_shown_with_rows_checked_rows_broken_and_verdict():
    text = " ".join(Page(render_html(report(), {})).text.split())
    assert "3 of 5 rules passed, 1 set rows aside, 1 gave a warning." in text
    assert "value set aside if not between 1 and 5 100,000 13 for example 99, <i>-1</i> rows set aside" in text
    assert "user_id set aside if missing 100,000 0 passed" in text
    assert "title a title for 95% of films 1,682 90 of 1,682 rows against it warning" in text
    assert "table at least 1,000 good events 12 12 stopped the night" in " ".join(Page(render_html(report("refused"), {})).text.split())


def test_a_first_night_has_no_difference_and_is_set_beside_the_best_baseline():
    html = render_html(report("first"), {})
    assert 'class="strip"' not in html
    assert "Challenger against the baselines" in html
    assert "of <b>nightloom</b> and of graph" in html


def test_fusion_weights_add_up_and_the_largest_comes_first():
    html = render_html(report(), {})
    members = (("network", 70), ("cooccurrence", 20), ("graph", 10))
    places = [html.index(f'<th scope="row">{name}</th><td>{weight} %</td>') for name, weight in members]
    assert places == sorted(places)
    assert '<th scope="row">popularity</th><td>0 %</td>' in html
    assert "trained from scratch: training.warm_start is false." in html
    assert "3.1 % of the candidates were held-out items" in html


def test_what_comes_from_data_is_escaped():
    content = report()
    content["gate"]["reasons"] = ["<script>alert(1)</script>"]
    content["checks"][0]["table"] = '"><script>alert(2)</script>'
    content["sample_lists"]["users"][0]["user_id"] = "<script>alert(3)</script>"
    html = render_html(content, {})
    assert "<script>" not in html
    assert "Boomerang &lt;b&gt;" in html
    assert "A &lt;b&gt;bold&lt;/b&gt; title" in html
    assert "&lt;i&gt;-1&lt;/i&gt;" in html


@pytest.mark.parametrize("ending", ENDINGS)
def test_hostile_data_make_no_element_of_the_page(ending):
    class Found(HTMLParser):
        def __init__(self, page):
            super().__init__()
            self.tags, self.attributes = set(), set()
            self.feed(page)

        def handle_starttag(self, tag, attrs):
            self.tags |= {tag}
            self.attributes |= {name for name, _ in attrs} | {value for name, value in attrs if name == "href"}

    plain, hostile = Found(render_html(report(ending), {})), Found(render_html(hostile_report(ending), {}))
    assert hostile.tags - plain.tags <= {"details", "summary", "table", "thead", "tbody", "tr", "th", "td", "caption", "ul", "li"}
    assert not {name for name in hostile.attributes if name.startswith("on")}
    assert not {link for link in hostile.attributes if link.startswith("javascript")}


def test_a_slice_that_vetoes_is_marked():
    content = report("rejected")
    content["gate"]["guards"] = ["new users"]
    assert render_html(content, {}).count("against promotion") == 1


def test_bars_end_where_the_figures_say():
    html = render_html(report(), {})
    longest = 0.0925 * 1.08  # the top of the best model's interval
    assert f"width: {100 * 0.0901 / longest:.2f}%" in html
    assert f"left: {100 * 0.0901 * 0.92 / longest:.2f}%" in html


def test_the_glossary_explains_every_metric_of_the_table():
    page = Page(render_html(report(), {}))
    assert {"#ndcg", "#hr", "#mrr", "#recall", "#coverage", "#novelty", "#popularity_bias"} <= set(page.links)
    assert all(len(re.findall(r"\S+", sentence)) <= 28 for _, _, said in glossary.GLOSSARY for sentence in re.split(r"[.:;] ", said))
    assert glossary.anchor_of("auc") is None


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("text", "grounds"),
    [
        ("ink", ("ground", "card", "track", "good-wash", "warn-wash", "bad-wash", "calm-wash")),
        ("soft", ("ground", "card", "track")),
        ("thread", ("ground", "card")),
        ("good", ("card", "good-wash")),
        ("warn", ("card", "warn-wash")),
        ("bad", ("card", "bad-wash")),
    ],
)
def test_text_stands_out_from_its_ground(theme, text, grounds):
    """WCAG 2.1 AA asks for a contrast of 4.5 to 1."""
    styles = (Path(figures.__file__).parent / "templates" / "style.css").read_text()
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", re.findall(r":root \{(.*?)\}", styles, re.DOTALL)[theme]))
    for ground in grounds:
        low, high = sorted((_luminance(colours[text]), _luminance(colours[ground])))
        assert (high + 0.05) / (low + 0.05) >= 4.5, f"{text} on {ground}"


def test_the_trade_off_of_the_popularity_penalty_is_drawn_and_the_model_marked():
    page = Page(html := render_html(report(), {}))
    assert "trade-off" in page.anchors
    section = html.partition('<section id="trade-off">')[2].partition("</section>")[0]
    assert section.count("<polyline") == section.count("<circle") == 5
    assert section.count("<polygon") == 1  # the interval, which NDCG alone has
    assert "The model itself has 0.25" in section
    assert "0.0974 at 0.25, 0.1000 without" in section  # between .2 and .3, of .0984 and .0964
    assert "88 users without a history are shown 10 different items" in page.text
    assert "at temperature 0.1, 74 items, NDCG@10 -0.0020 (-0.0110 to +0.0060)" in page.text
    without = report()
    without["trade_off"], without["newcomers"] = {}, {}
    assert "trade-off" not in Page(render_html(without, {})).anchors


def test_what_serves_is_a_table_of_its_parts():
    page = Page(render_html(report("promoted"), {}))
    assert "What serves" in page.headings
    assert "Sequence model and item vectors int8 0.26 MB 30.8 % 0.13 % 99.4 % " in " ".join(page.text.split()) + " "
    assert "Text encoder half 46.10 MB \u2013 \u2013 99.9 %" in " ".join(page.text.split())
    assert "What serves" not in Page(render_html(report("rejected"), {})).headings
