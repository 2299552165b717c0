"""The end of a night on the console: what it says, its width, and no escape codes when piped."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from nightloom.report import words
from nightloom.report.console import print_summary, print_unchanged
from nightloom.report.html import render_html
from nightloom.report.markdown import markdown
from nightloom.runs.run_content import outcome_content
from tests.sample_reports import HOSTILE, hostile_report, report

ENDINGS = ("promoted", "first", "rejected", "waits", "dry_run", "disabled", "refused")


def printed(ending: str, terminal: bool = False) -> str:
    out = io.StringIO()
    print_summary(report(ending), Console(file=out, width=80, force_terminal=terminal))
    return out.getvalue()


@pytest.mark.parametrize("ending", ENDINGS)
def test_piped_output_has_no_escape_codes_and_only_paths_are_wide(ending):
    text = printed(ending)
    assert "\x1b" not in text
    for line in text.splitlines():
        assert len(line.rstrip()) <= 80 or line.startswith(
            ("  Report", "  Compare", "  MLflow runs", "  Rows set aside", "Data contract", "Time")
        )


def test_a_terminal_gets_colour(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[" in printed("promoted", terminal=True)


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        ("promoted", "Promoted: version 3 is the new champion"),
        ("first", "Promoted: version 1 is the first champion"),
        ("rejected", "Rejected: the challenger did not pass the gate, version 2 stays champion"),
        ("waits", "Passed: version 3 waits for a second person to type"),
        ("dry_run", "Dry run: the challenger would be promoted; nothing was registered"),
        ("disabled", "promotion is disabled, so nothing was registered"),
        ("refused", "Stopped at validate: the input was refused and nothing was changed"),
    ],
)
def test_every_ending_says_what_happened(ending, said):
    assert said in printed(ending)
    assert said in markdown(report(ending))


def test_the_champion_and_the_interval_are_shown():
    lines = [line.split() for line in printed("promoted").splitlines()]
    assert ["challenger", "0.0925", "0.0851", "to", "0.0999"] in lines
    assert ["champion", "0.0901", "0.0829", "to", "0.0973"] in lines
    assert ["difference", "+0.0024", "-0.0009", "to", "+0.0058"] in lines


def test_without_a_champion_there_is_no_difference():
    assert not any(line.startswith(("difference", "champion ")) for line in printed("first").splitlines())


def test_reused_stages_are_counted_and_take_no_time():
    assert "Time: 2 min 50 s (fine tune 2 min 23 s), peak memory 0.9 GiB, 2 stages reused" in printed("promoted").splitlines()
    assert "Time: 1.2 s, peak memory 0.4 GiB" in " ".join(words_of_a_night_that_made_one_stage())


def words_of_a_night_that_made_one_stage() -> list[str]:
    content = report("refused")
    content["stages"]["collect"]["status"] = "done"
    out = io.StringIO()
    print_summary(content, Console(file=out, width=80))
    return out.getvalue().splitlines()


def test_a_refused_night_says_which_rows_and_what_to_do():
    text = " ".join(printed("refused").split())
    assert "5,000 of 100,000 rows (5.0 %) are not between 1 and 5" in text
    assert "Correct the rows." in text
    assert "Model and baselines" not in text
    assert "1 stopped the night" in text


def test_the_rules_and_the_change_of_the_lists_are_summed_up():
    text = " ".join(printed("promoted").split())
    assert "Data contract: 3 of 5 rules passed, 1 set rows aside, 1 gave a warning." in text
    assert "7.2 of the first ten items are in both lists on average, and 50 % of the lists begin with the same item." in text
    assert "in both lists" not in printed("first")
    assert "3 of 5 rules passed" in markdown(report("promoted"))


def test_where_to_look_next_is_not_folded():
    text = printed("promoted")
    assert "/nowhere/mlruns/nights/films/20261124-020000/report.html" in text
    assert "nightloom compare films/20261124-020000 films/20261124-020000 --family-b champion" in text
    assert "--family-b graph" in printed("first")
    assert "make ui" in text
    assert "f00d" not in text.replace("runs/f00d", ""), "an address says more than an id"
    assert "Rows set aside  /nowhere/mlruns/nights/films/20261124-020000/quarantine" in printed("refused")


def test_unchanged_says_why_and_how_to_force_it():
    out = io.StringIO()
    print_unchanged(
        "data 8f2c and config 93aa are those of 20261123-020000",
        Path("/x/latest"),
        "bin/nightloom night mine.yaml --force",
        Console(file=out, width=80),
    )
    text = out.getvalue()
    assert "Nothing to do" in text
    assert "data 8f2c and config 93aa" in text
    assert "bin/nightloom night mine.yaml --force" in text
    assert "/x/latest/report.html" in text


def test_markup_in_names_is_printed_as_it_is():
    content = report("refused")
    content["refused"]["message"] = "events[bold].csv: column [red]x[/red] is missing"
    out = io.StringIO()
    print_summary(content, Console(file=out, width=80))
    assert "events[bold].csv: column [red]x[/red] is missing" in out.getvalue()


def test_markdown_marks_the_best_and_keeps_cells_whole():
    content = report("promoted")
    content["gate"]["reasons"] = ["a | b\nc"]
    text = markdown(content)
    assert "- a \\| b c\n" in text
    assert "| **nightloom** | **0.1943** | **0.0925** | **0.0740** |" in text
    assert "[http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning]" in text


@pytest.mark.parametrize("ending", ["promoted", "first", "rejected", "refused"])
def test_markdown_renders_what_data_say_as_text(ending):
    made = MarkdownIt("gfm-like", {"linkify": False}).render(markdown(hostile_report(ending)))
    tags = set(re.findall(r"<(\w+)", made))
    assert tags <= {"h1", "h2", "p", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "strong", "code", "a"}
    assert all(link.startswith("http") for link in re.findall(r'href="([^"]*)"', made))
    assert "**c**" in made
    note = outcome_content("promoted", {}, f"Declined by {HOSTILE}", [HOSTILE])[0]["mlflow.note.content"]
    assert set(re.findall(r"<(\w+)", MarkdownIt().render(note))) == {"p", "strong", "ul", "li"}


@pytest.mark.parametrize(
    ("seconds", "said"), [(None, words.DASH), (0.04, "0.0 s"), (12.4, "12 s"), (59.6, "1 min 00 s"), (7800, "2 h 10 min")]
)
def test_durations(seconds, said):
    assert words.duration(seconds) == said


@pytest.mark.parametrize(("name", "said"), [("ndcg_at_10", "NDCG@10"), ("recall_at_5", "Recall@5"), ("auc", "AUC")])
def test_metric_labels(name, said):
    assert words.metric_label(name) == said


def test_the_anchor_stands_with_the_champion_before_the_baselines() -> None:
    content = report()
    content["metrics"]["anchor"] = {"streaming": dict.fromkeys(content["metrics"]["champion"]["streaming"], 0.0)}
    assert words.models(content, "streaming")[:3] == [content["model"], "champion", "anchor"]


def test_how_many_were_asked_and_how_many_of_them_are_strangers_is_said_everywhere():
    said = (
        "3,071 events of 512 users were asked about, 96 of them without any history. "
        "They are drawn from 4,410 events, at most 100 of a user."
    )
    for text in (printed("promoted"), markdown(report()), render_html(report(), {})):
        assert said in " ".join(text.split())
        assert "nightloom, scorers kept up to date" in " ".join(text.split())
    assert "Means over 3,071 events of 512 users" in render_html(report(), {})
    assert "of 512 users, streaming queries" in render_html(report(), {})


def test_where_a_user_is_asked_once_users_are_counted():
    content = report()
    content["asked"]["streaming"] |= {"test_queries": 512, "sampled_from": None}
    assert "512 users were asked, 96 of them without any history." in " ".join(markdown(content).split())
    assert words.measured_on(content, "streaming") == "512 held-out users"
