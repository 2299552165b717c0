"""Stage explain from a prepared folder and a bundle to files, and the sentences."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from nightloom.config import config_from_dict
from nightloom.core.blocklist import Blocklist
from nightloom.core.sequences import Sequences
from nightloom.core.streaming import queries_of
from nightloom.explain.explain import COLUMNS, explain
from nightloom.explain.reasons import HIDDEN, Reason, sentence, shares
from nightloom.packaging.serving_artefact import write_serving
from tests.described_bundle import described_bundle, described_prepared
from tests.sections import of_explain


def config(protocol="temporal", **explain_section):
    return config_from_dict(
        {
            "name": "shop",
            "data": {"events": "e.csv"},
            "evaluation": {"protocols": [protocol]},
            "explain": {"users": 5, "max_events": 4, "samples": 64} | explain_section,
        }
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("explained")
    bundle = described_bundle(root / "bundle")
    prepared = described_prepared(root / "prepared")
    lines: list[str] = []
    (root / "out").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", saving_what_it_says(root / "said.jsonl"))
        figures = explain(prepared, root / "bundle", root / "out", lines.append, **of_explain(config()))
    return root, bundle, figures, lines


def saving_what_it_says(path):
    """`Figure.savefig` that also writes down the texts of the figure."""
    save = Figure.savefig

    def saved(figure, place, **more):
        texts = [text.get_text() for text in figure.findobj(Text) if text.get_visible()]
        with path.open("a") as file:
            file.write(json.dumps([Path(place).name, texts]) + "\n")
        return save(figure, place, **more)

    return saved


def test_figures_that_mlflow_and_the_report_keep_name_no_person(made):
    """Nobody could be taken out of them later."""
    root, *_ = made
    said = dict(json.loads(line) for line in (root / "said.jsonl").read_text().splitlines())
    sample = json.loads((root / "out" / "reasons.json").read_text())["sample"]
    kept = [name for name in said if name.startswith("shap_") or name == "reasons_summary.png"]
    title = sample[0]["title"].replace("$", r"\$")
    assert title in said["shap_waterfall.png"]
    assert title in said["shap_decision.png"]
    assert f"for user {sample[0]['user_id']}" in " ".join(said["reasons_1.png"]), "the stage's own, which go with it"
    for name in kept:
        text = " ".join(said[name])
        assert "user" not in set(re.findall(r"[\w-]+", text))
        assert not [one["user_id"] for one in sample if one["user_id"] in text]
    page = (root / "out" / "plots" / "shap_text.html").read_text()
    assert not [one["user_id"] for one in sample if one["user_id"] in page]


def test_figures_and_files(made):
    root, _, figures, lines = made
    assert figures["users"] == 5
    assert figures["largest_gap"] < 1e-5
    assert figures["model_evaluations"] > 0
    assert lines[-1] == "explained 5 of 5 recommendations"
    assert sorted(path.name for path in (root / "out" / "plots").iterdir()) == [
        *(f"reasons_{number}.png" for number in (1, 2, 3, 4)),
        "reasons_summary.png",
        *(f"shap_{name}.png" for name in ("bar", "beeswarm", "decision", "heatmap", "positions")),
        "shap_text.html",
        "shap_waterfall.png",
    ]
    assert json.loads((root / "out" / "explainer.json").read_text())["weights"]


def test_the_table_holds_every_player_and_adds_up(made):
    root, bundle, _, _ = made
    table = pd.read_parquet(root / "out" / "reasons.parquet")
    assert table.columns.tolist() == COLUMNS
    sample = json.loads((root / "out" / "reasons.json").read_text())["sample"]
    for one in sample:
        mine = table[table["user_id"] == one["user_id"]]
        events = mine[mine["player_kind"] == "event"]
        assert events["player"].tolist()[0] == "older"
        assert events["position"].tolist()[1:] == [4, 3, 2, 1]
        assert events["age_days"].tolist()[1:] == [4.0, 3.0, 2.0, 1.0]
        assert events["value"].sum() == pytest.approx(one["log_probability"] - one["log_probability_without_history"], abs=1e-5)
        assert events["share"].abs().sum() == pytest.approx(1)
        assert set(mine[mine["player_kind"] == "field"]["player"]) <= {"text", "genres", "maker", "price", "id"}
        assert one["item_id"] in bundle.index


def test_what_is_explained_is_what_is_recommended(made):
    root, bundle, _, _ = made
    queries = Sequences.load(root / "prepared" / "sequences_temporal.npz").queries("test")
    best = bundle.recommender.recommend(queries.histories, 1)[0][:, 0]
    expected = {f"user/{user}": bundle.item_ids[item] for user, item in zip(queries.users, best, strict=True)}
    sample = json.loads((root / "out" / "reasons.json").read_text())["sample"]
    assert sample
    assert all(expected[one["user_id"]] == one["item_id"] for one in sample)


def test_a_user_who_is_asked_often_is_explained_as_of_the_last_time(made, tmp_path):
    root, bundle, _, _ = made
    explain(root / "prepared", root / "bundle", tmp_path, **of_explain(config("streaming")))
    queries = queries_of("streaming", Sequences.load(root / "prepared" / "sequences_streaming.npz"), "test", exclude_seen=True)
    last = {int(user): row for row, user in enumerate(queries.users)}
    assert len(last) < len(queries)
    best = bundle.recommender.recommend(queries.histories.take(np.array([*last.values()])).packed(), 1)[0][:, 0]
    expected = {f"user/{user}": bundle.item_ids[item] for user, item in zip(last, best, strict=True)}
    sample = json.loads((tmp_path / "reasons.json").read_text())["sample"]
    assert len(sample) == 5
    assert all(expected[one["user_id"]] == one["item_id"] for one in sample)
    for one in sample:
        table = pd.read_parquet(tmp_path / "reasons.parquet")
        events = table[(table["user_id"] == one["user_id"]) & (table["player_kind"] == "event")]
        assert events["value"].sum() == pytest.approx(one["log_probability"] - one["log_probability_without_history"], abs=1e-5)


def test_labels_are_for_people(made):
    root, _, _, _ = made
    labels = set(pd.read_parquet(root / "out" / "reasons.parquet")["label"])
    assert "3 older events" in labels
    assert labels & {"genres (blue, red)", "genres (blue)", "genres (green, red)"}
    assert any(label.startswith("Title $") for label in labels)


def test_the_same_night_explains_the_same(made, tmp_path):
    root, _, figures, _ = made
    assert explain(root / "prepared", root / "bundle", tmp_path, **of_explain(config())) == figures
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert [name for name in files if (tmp_path / name).read_bytes() != (root / "out" / name).read_bytes()] == []
    assert {"reasons.json", "shap_beeswarm.png", "shap_text.html"} <= {name.name for name in files}


def test_what_is_blocked_is_neither_explained_nor_named(made, tmp_path):
    root, bundle, _, _ = made
    sample = json.loads((root / "out" / "reasons.json").read_text())["sample"]
    named = {bundle.index[event["player"]] for one in sample for event in one["events"] if event["player"] in bundle.index}
    blocked = {bundle.item_ids[item] for item in sorted(named)[::2]} | {one["item_id"] for one in sample[:2]}
    explain(root / "prepared", root / "bundle", tmp_path, **of_explain(config()), blocklist=Blocklist(items=frozenset(blocked)))
    titles = {bundle.titles()[bundle.index[item]] for item in blocked}
    table = pd.read_parquet(tmp_path / "reasons.parquet")
    assert len(table)
    assert not {*table["item_id"], *table["player"]} & blocked
    assert not {*table["title"], *table["label"]} & titles
    assert HIDDEN in set(table["label"])
    for path in (tmp_path / "reasons.json", tmp_path / "plots" / "shap_text.html"):
        said = path.read_text()
        assert not [one for one in titles if re.search(rf"{re.escape(one)}(?!\d)", said)], path
    for one in json.loads((tmp_path / "reasons.json").read_text())["sample"]:  # values still add up
        events = table[(table["user_id"] == one["user_id"]) & (table["player_kind"] == "event")]
        assert events["value"].sum() == pytest.approx(one["log_probability"] - one["log_probability_without_history"], abs=1e-5)
        assert HIDDEN not in one["sentence"]


def test_no_users_asked_for_gives_empty_files(made, tmp_path):
    root, _, _, _ = made
    assert explain(root / "prepared", root / "bundle", tmp_path, **of_explain(config(users=0)))["users"] == 0
    assert pd.read_parquet(tmp_path / "reasons.parquet").empty
    assert json.loads((tmp_path / "reasons.json").read_text())["sample"] == []


def reason(kind, label, share):
    return Reason(kind, label, label, share, 0.0, share)


def test_a_sentence_names_what_counts_most():
    found = [reason("event", "Fargo", 0.3), reason("event", "Casino", 0.6), reason("event", "Up", 0.01), reason("field", "its text", 0.9)]
    assert sentence("Heat", found, 3.0, 0.5) == (
        "Heat is recommended because of Casino and Fargo in the history. Of the item itself, its text counts most."
    )


def test_a_sentence_names_what_speaks_against():
    found = [reason("event", "Casino", 0.6), reason("event", "Up", -0.4)]
    assert sentence("Heat", found, 3.0, 0.5).endswith("What counts against it: Up.")


def test_a_sentence_owns_up_where_the_history_hardly_counts():
    assert sentence("Heat", [reason("event", "Up", 0.02)], 3.0, 0.5).startswith("Heat is recommended for the history as a whole")
    assert sentence("Heat", [reason("event", "Up", 0.6)], 3.0, 2.9).startswith("Heat is as likely for every user at this time")
    assert sentence("Heat", [reason("event", "Up", 0.6)], 3.0, 3.2).startswith("Heat is as likely for every user at this time")
    assert sentence("Heat", [reason("event", "Up", 0.6)], 3.0, 3.4) == (
        "Heat is likely for every user at this time, and likelier without this history; of the history, Up adds most."
    )


def test_a_sentence_names_no_event_that_is_not_sure_or_without_which_the_item_does_not_fall():
    found = [replace(reason("event", "Up", 0.5), error=0.3), replace(reason("event", "Fargo", 0.5), drop=-0.1)]
    assert sentence("Heat", found, 3.0, 0.5) == "Heat is recommended for the history as a whole; no single event stands out."


def test_shares_add_up_in_absolute_terms_and_nothing_is_shared_as_nothing():
    np.testing.assert_allclose(shares(np.array([3.0, -1.0])), [0.75, -0.25])
    np.testing.assert_array_equal(shares(np.zeros(2)), [0, 0])


def test_the_service_s_estimates_are_measured_for_the_champion_on_the_same_users(made, tmp_path):
    root, _, figures, _ = made
    assert figures["service_fidelity"] == {}  # the estimator was fitted to everybody else
    write_serving(root / "bundle", tmp_path / "serving")
    (tmp_path / "out").mkdir()
    said = of_explain(config(users=2, fit_users=3, fidelity_users=6))
    again = explain(root / "prepared", root / "bundle", tmp_path / "out", **said, champion=tmp_path / "serving")
    rows = pd.read_parquet(tmp_path / "out" / "fidelity.parquet")
    by_family = {family: one.drop(columns="family").reset_index(drop=True) for family, one in rows.groupby("family")}
    assert set(by_family) == {"challenger", "champion"}
    assert 0 < len(by_family["champion"]) <= 6
    pd.testing.assert_frame_equal(by_family["challenger"], by_family["champion"])  # the same model, and no estimator of its own
    assert again["service_fidelity"]["champion"] == again["service_fidelity"]["challenger"]
    table = pd.read_parquet(tmp_path / "out" / "reasons.parquet")
    assert not set(rows["user_id"]) & set(table["user_id"])  # nor those whom the estimator was fitted to
