"""The whole stage on a small shop: prepared by prepare, trained by training, ranked beside every baseline."""

from __future__ import annotations

import json
import shutil
from copy import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from nightloom.config import RunConfig, config_from_dict
from nightloom.core.attacked import SEARCH
from nightloom.core.errors import InputError
from nightloom.core.metrics import NAMES, from_frame
from nightloom.core.sequences import Histories, Sequences
from nightloom.data.preparation.prepare import prepare
from nightloom.data.tables.schema import Tables
from nightloom.evaluation.evaluate import evaluate
from nightloom.evaluation.membership import measure_membership
from nightloom.evaluation.movers import movers
from nightloom.evaluation.rivals import ANCHOR, CHAMPION, Rival
from nightloom.evaluation.samples import pick
from nightloom.models.scorers.graph import TransitionGraph
from nightloom.models.scorers.score_fusion import NETWORK, fuse, standard
from nightloom.models.sequential.recommender import SequentialRecommender
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.manifest import seal
from nightloom.promotion.gate import decide, with_limits
from nightloom.training.distributed import World
from nightloom.training.run import Training
from nightloom.training.run_json import Run
from tests.sections import of_evaluate, of_prepare

PROTOCOLS = ("temporal", "leave_one_out", "streaming")
N_USERS = 120
BASELINES = ["popularity", "item_knn", "als", "graph"]


def tables(n_items: int, events: tuple[str, ...]) -> Tables:
    """Users walk through the catalogue from a random start."""
    random = np.random.default_rng(3)
    lengths = random.integers(4, 14, N_USERS)
    user = np.repeat(np.arange(N_USERS), lengths)
    step = np.arange(len(user)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    item = (np.repeat(random.integers(0, n_items, N_USERS), lengths) + step) % n_items
    when = 1_700_000_000 + np.repeat(random.integers(0, 50_000, N_USERS), lengths) + 3600 * step
    content = {"user_id": [f"u{one}" for one in user], "item_id": [f"i{one}" for one in item], "event": random.choice(events, len(user))}
    frame = pd.DataFrame(content | {"timestamp": pd.Series(pd.to_datetime(when, unit="s", utc=True)).astype("datetime64[ms, UTC]")})
    items = pd.DataFrame({"item_id": [f"i{one}" for one in range(n_items)], "title": [f"thing {one % 5}" for one in range(n_items)]})
    users = pd.DataFrame({"user_id": [f"u{one}" for one in range(N_USERS)], "sex": ["F", "M"] * (N_USERS // 2)})
    return Tables(frame, items, users, features={"title": "text"})


def config(**evaluation: object) -> RunConfig:
    return config_from_dict(
        {
            "name": "shop",
            "data": {"events": "e.csv"},
            "model": {"dim": 16, "max_history": 8},
            "training": {"epochs": 2, "batch_users": 16, "workers": 1},
            "evaluation": {"protocols": list(PROTOCOLS)} | evaluation,
            "promotion": {"min_slice_users": 20, "resamples": 200},
        }
    )


def night(folder: Path, n_items: int, events: tuple[str, ...], protocols: tuple[str, ...]) -> SimpleNamespace:
    """What the stages before evaluate leave."""
    prepared, pretrained = folder / "prepared", folder / "pretrained"
    prepared.mkdir()
    pretrained.mkdir()
    prepare(tables(n_items, events), prepared, **of_prepare(config()))
    np.save(pretrained / "text_vectors.npy", np.random.default_rng(1).normal(size=(n_items, 12)).astype(np.float32))
    np.save(pretrained / "text_mask.npy", np.ones(n_items, dtype=bool))
    for protocol in protocols:
        out = folder / protocol
        out.mkdir()
        content = {"config": config().model_dump(mode="json"), "protocol": protocol, "prepared": str(prepared)}
        (out / "run.json").write_text(json.dumps(content | {"pretrained": str(pretrained), "out": str(out)}))
        Training(Run.load(out / "run.json"), World())()
    return SimpleNamespace(prepared=prepared, pretrained=pretrained, bundles={name: folder / name / "bundle" for name in protocols})


@pytest.fixture(scope="module")
def tonight(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Tonight's model, and a champion of a smaller catalogue that knew the event names in another order."""
    last = tmp_path_factory.mktemp("last")
    champion = night(last, 24, ("view", "wish"), ("temporal",)).bundles["temporal"]
    made = night(tmp_path_factory.mktemp("tonight"), 30, ("buy", "view", "wish"), PROTOCOLS)
    folder = tmp_path_factory.mktemp("evaluate")
    lines: list[str] = []
    figures = evaluate(made.prepared, made.bundles, {CHAMPION: champion}, made.pretrained, folder, lines.append, **of_evaluate(config()))
    read = {name: json.loads((folder / f"{name}.json").read_text()) for name in ("metrics", "intervals", "slices")}
    return SimpleNamespace(
        **vars(made), folder=folder, figures=figures, lines=lines, rows=pd.read_parquet(folder / "per_user.parquet"), **read
    )


def test_every_family_is_ranked_on_the_same_rows(tonight: SimpleNamespace) -> None:
    assert set(tonight.metrics) == {"nightloom", CHAMPION, *BASELINES}
    assert set(tonight.metrics[CHAMPION]) == {"temporal"}
    for protocol, of_protocol in tonight.rows.groupby("protocol"):
        key = ["user_id", "query", "item_id"]
        asked = {family: frozenset(one[key].itertuples(index=False, name=None)) for family, one in of_protocol.groupby("family")}
        assert len(set(asked.values())) == 1
        assert len(asked) == (6 if protocol == "temporal" else 5)
        assert len(of_protocol) == len(asked) * tonight.figures["test_rows"][protocol]
        assert of_protocol["user_id"].nunique() == tonight.figures["test_users"][protocol]
    assert len(tonight.lines) == 16


def test_histograms_are_kept_for_the_watch_over_nights(tonight: SimpleNamespace) -> None:
    kept = tonight.figures["drift"]
    assert set(kept) == {"texts", "scores", "champion's scores"}
    assert {sum(counts) for counts in kept["texts"]} == {30}
    asked = tonight.figures["test_queries"]["temporal"]
    assert [sum(*kept[whose]) for whose in ("scores", "champion's scores")] == [asked, asked]
    json.dumps(kept)


def test_metrics_can_be_recomputed_from_the_rows(tonight: SimpleNamespace) -> None:
    sliced = set()
    for (family, protocol), rows in tonight.rows.groupby(["family", "protocol"]):
        for name, value in from_frame(rows)[list(NAMES)].mean().items():
            assert tonight.metrics[family][protocol][name] == pytest.approx(value)
            low, high = tonight.intervals[family][protocol][name]
            assert low <= value <= high
            for label in ("sex=F", "tail items", "history of 1 to 5 events", "items up to 7 days old"):
                part = rows[rows["slices"].str.split("|").map(lambda names: label in names) | (rows["item_slice"] == label)]  # noqa: B023
                figures = tonight.slices[family][protocol].get(label)
                assert (figures is None) == part.empty or (figures["users"], figures["events"]) == (part["user_id"].nunique(), len(part))
                if figures:
                    assert figures["users"] == part["user_id"].nunique()
                    assert figures[name] == pytest.approx(from_frame(part)[name].mean())
                    sliced.add(label)
    assert sliced >= {"sex=F", "tail items", "history of 1 to 5 events"}


def test_streaming_rows_tell_each_event_what_was_known_before_it(tonight: SimpleNamespace) -> None:
    events = tables(30, ("buy", "view", "wish")).events.sort_values(["user_id", "timestamp"], kind="stable")
    place = events.assign(place=events.groupby("user_id").cumcount(), time=events["timestamp"].astype("int64") // 1000)
    rows = tonight.rows[(tonight.rows["protocol"] == "streaming") & (tonight.rows["family"] == "graph")]
    found = rows.merge(place, on=["user_id", "item_id", "time"], how="left", validate="one_to_one")
    assert (found["history"] == found["place"]).all()
    assert (found["query"] == found["place"]).all()
    assert not rows.duplicated(["user_id", "query"]).any()
    figures = {name: tonight.figures[name]["streaming"] for name in ("test_users", "test_queries", "test_rows", "sampled_from")}
    assert figures == {"test_users": rows["user_id"].nunique(), "test_queries": len(rows), "test_rows": len(rows), "sampled_from": None}
    strangers = rows[rows["history"] == 0]
    assert tonight.figures["without_history"]["streaming"] == {"queries": len(strangers), "users": strangers["user_id"].nunique()}
    assert rows["user_id"].nunique() < len(rows)


def test_the_scorers_that_are_kept_up_to_date_have_a_figure_of_their_own(tonight: SimpleNamespace) -> None:
    assert set(tonight.figures["live"]) == {"streaming"}
    live, frozen = tonight.figures["live"]["streaming"], tonight.metrics["nightloom"]["streaming"]
    assert set(live["metrics"]) <= set(frozen)
    for name, (low, high) in live["intervals"].items():
        assert low <= live["metrics"][name] <= high


def test_the_membership_attack_is_measured_on_what_ships_and_with_the_weights_before_the_refit(tonight: SimpleNamespace) -> None:
    assert set(tonight.figures["membership"]) == {"temporal", "streaming"}  # leave-one-out is not refitted
    for protocol, found in tonight.figures["membership"].items():
        assert SEARCH in found["events"]
        assert not (tonight.bundles[protocol] / "search.safetensors").exists()
        assert (tonight.bundles[protocol].parent / "search.safetensors").exists()
        shipped = {name: value for name, value in found["events"].items() if name != SEARCH}
        assert found["shipped_events"] == max(shipped.values())
        assert all(0 <= value <= 1 for unit in ("events", "users") for value in found[unit].values())


def test_the_attack_tells_a_model_that_learned_by_heart(tonight: SimpleNamespace) -> None:
    """Item-to-item steps of everything before the test, of one person each: the attack on them is far from chance."""
    bundle = Bundle.load(tonight.bundles["streaming"])
    sequences = Sequences.load(tonight.prepared / "sequences_streaming.npz")
    random = np.random.default_rng(0)
    scattered = replace(sequences, items=random.integers(0, 30, len(sequences.items)).astype(np.int32))
    model = copy(bundle.recommender)
    known = scattered.train(with_validation=True)
    by_heart = TransitionGraph(reach=1, recency=0.01).fit(known, 30)
    model.scorers, model.weights, model.newcomer_weights = {"graph": by_heart}, {"graph": 1.0}, {"graph": 1.0}
    ask = {"exclude_seen": False, "seed": 0}
    found = measure_membership(model, scattered, "streaming", tonight.prepared / "none", **ask)
    assert found is not None
    assert found["shipped_events"] > 0.7
    fresh = TransitionGraph(reach=1, recency=0.01).fit(scattered.train(), 30)
    model.scorers = {"graph": fresh}
    unlearned = measure_membership(model, scattered, "streaming", tonight.prepared / "none", **ask)
    assert unlearned is not None
    assert abs(unlearned["events"]["fused"] - 0.5) < 0.1


def test_the_gate_draws_users_with_all_their_events(tonight: SimpleNamespace, tmp_path: Path) -> None:
    only = config(protocols=["streaming"], baselines=["graph"])
    bundle = tonight.bundles["streaming"]
    evaluate(tonight.prepared, {"streaming": bundle}, {CHAMPION: bundle}, tonight.pretrained, tmp_path, **of_evaluate(only))
    rows = pd.read_parquet(tmp_path / "per_user.parquet")
    by_family = dict(iter(rows.groupby("family")))
    found = decide(by_family["nightloom"], by_family[CHAMPION], {}, only.promotion)
    users, queries = tonight.figures["test_users"]["streaming"], tonight.figures["test_queries"]["streaming"]
    assert (found.users, found.queries, found.decision) == (users, queries, "promote")
    assert found.challenger == pytest.approx(tonight.metrics["nightloom"]["streaming"]["ndcg_at_10"])
    assert f"on the same {queries:,} events of {users:,} users" in found.reasons[0]
    lists = json.loads((tmp_path / "sample_lists.json").read_text())
    assert len({user["user_id"] for user in lists["users"]}) == 4


def test_ids_are_those_of_the_source_and_what_was_seen_is_not_ranked(tonight: SimpleNamespace) -> None:
    events = tables(30, ("buy", "view", "wish")).events
    last = events.groupby("user_id")["item_id"].last()
    asked = tonight.rows[(tonight.rows["protocol"] == "leave_one_out") & (tonight.rows["family"] == "popularity")].set_index("user_id")
    assert asked["item_id"].to_dict() == last[asked.index].to_dict()
    assert (asked["history"] == events.groupby("user_id").size()[asked.index] - 1).all()
    assert (asked["rank"] <= 30 - asked["history"]).all()


def test_lists_are_measured_and_plots_drawn(tonight: SimpleNamespace) -> None:
    assert {"coverage_at_10", "novelty_at_10", "popularity_bias_at_10", "gini_at_10"} <= set(tonight.metrics["als"]["temporal"])
    drawn = {f"{plot}_{protocol}.png" for plot in ("models", "slices", "learning_curve") for protocol in PROTOCOLS} | {
        "champion_temporal.png",
        "calibration_streaming.png",  # there alone validation has queries enough for a re-ranker
    }
    assert {path.name for path in (tonight.folder / "plots").iterdir()} == drawn
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (tonight.folder / "plots").iterdir())


def test_what_moves_is_told_by_the_parts_of_the_score(tonight: SimpleNamespace, tmp_path: Path) -> None:
    bundle = Bundle.load(tonight.bundles["temporal"])
    other = copy(bundle.recommender)
    other.weights = dict.fromkeys(bundle.recommender.scorers, 0.9 / len(bundle.recommender.scorers))
    other.newcomer_weights = None
    held = Sequences.load(tonight.prepared / "sequences_temporal.npz").queries("test")
    rival = Rival(bundle, other, np.zeros(len(held.targets), dtype=np.bool_), 1.0)
    found = movers(bundle, rival, held, exclude_seen=True, seed=7)
    assert found["users"] > 20
    assert found["rises"] or found["falls"]
    rows = pick(held, 200, 7)
    histories = held.histories.take(rows).packed()
    fused = [fuse(members_of(one, histories), one.weights_at(histories.lengths)) for one in (bundle.recommender, other)]
    for one in (*found["rises"], *found["falls"]):
        item = bundle.index[one["item_id"]]
        free = ~np.array([item in histories.items[histories.offsets[row] : histories.offsets[row + 1]] for row in range(len(rows))])
        assert sum(one["parts"].values()) == pytest.approx((fused[0] - fused[1])[free, item].mean(), abs=1e-4)
    assert all(one["rank"] < one["champion_rank"] for one in found["rises"])
    assert all(one["rank"] > one["champion_rank"] for one in found["falls"])
    same = movers(bundle, replace(rival, model=bundle.recommender), held, exclude_seen=True, seed=7)
    assert (same["rises"], same["falls"]) == ([], [])
    assert json.loads((tonight.folder / "movers.json").read_text())["users"] > 0


def members_of(model: SequentialRecommender, histories: Histories) -> dict[str, np.ndarray]:
    scorers = model.scorer_scores(histories)
    return {NETWORK: standard(model.network_scores(histories)), **{name: standard(one) for name, one in scorers.items()}}


def test_a_sample_of_lists_is_set_beside_the_champions(tonight: SimpleNamespace, tmp_path: Path) -> None:
    found = json.loads((tonight.folder / "sample_lists.json").read_text())
    assert (found["protocol"], len(found["users"])) == ("temporal", 4)
    assert 0 <= found["shared_at_10"] <= 10
    known = set(tonight.rows["user_id"])
    for user in found["users"]:
        assert set(user) == {"user_id", "challenger", "champion"}, "nothing of a user but the id"
        assert user["user_id"] in known
        assert [one["rank"] for one in user["challenger"]] == list(range(1, 11))
        its = {one["item_id"]: one["rank"] for one in user["champion"]}
        for one in user["challenger"]:
            assert one["title"].startswith("thing ")
            assert one["item_id"] not in its or one["other_rank"] == its[one["item_id"]]
    alone = config(protocols=["temporal"], baselines=[])
    evaluate(tonight.prepared, tonight.bundles, {}, tonight.pretrained, tmp_path, **of_evaluate(alone))
    first = json.loads((tmp_path / "sample_lists.json").read_text())
    assert [one["user_id"] for one in first["users"]] == [one["user_id"] for one in found["users"]], "the seed draws the same users"
    assert [one["challenger"][0]["title"] for one in first["users"]] == [one["challenger"][0]["title"] for one in found["users"]]
    assert first["shared_at_10"] is None
    assert all(one["champion"] == [] for one in first["users"])


def test_the_gate_reads_the_rows(tonight: SimpleNamespace) -> None:
    rows = tonight.rows[tonight.rows["protocol"] == "temporal"]
    by_family = {family: rows[rows["family"] == family] for family in tonight.metrics}
    found = decide(by_family["nightloom"], by_family[CHAMPION], {name: by_family[name] for name in BASELINES}, config().promotion)
    assert found.users == tonight.figures["test_users"]["temporal"]
    assert found.challenger == pytest.approx(tonight.metrics["nightloom"]["temporal"]["ndcg_at_10"])
    assert found.champion == pytest.approx(tonight.metrics[CHAMPION]["temporal"]["ndcg_at_10"])
    assert {one.name for one in found.slices} >= {"sex=F", "sex=M"}


def test_the_same_model_as_champion_is_promoted_without_a_difference(tonight: SimpleNamespace, tmp_path: Path) -> None:
    only = config(protocols=["temporal"], baselines=[])
    evaluate(tonight.prepared, tonight.bundles, {CHAMPION: tonight.bundles["temporal"]}, tonight.pretrained, tmp_path, **of_evaluate(only))
    rows = pd.read_parquet(tmp_path / "per_user.parquet")
    found = decide(rows[rows["family"] == "nightloom"], rows[rows["family"] == CHAMPION], {}, only.promotion)
    assert (found.decision, found.difference) == ("promote", pytest.approx(0, abs=1e-9))
    lists = json.loads((tmp_path / "sample_lists.json").read_text())
    assert (lists["shared_at_10"], lists["same_first"]) == (10, 1)
    assert all(one["rank"] == one["other_rank"] for user in lists["users"] for one in user["challenger"])


def aged(bundle: Path, folder: Path, until: int) -> Path:
    """A registered model as if it had been trained until another time."""
    shutil.copytree(bundle, folder)
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | {"trained_until": {"temporal": until}}))
    seal(folder, {})
    return folder


def test_held_out_events_that_a_champion_may_have_learned_from_are_no_comparison(tonight: SimpleNamespace, tmp_path: Path) -> None:
    only = config(protocols=["temporal"], baselines=[])
    times = Sequences.load(tonight.prepared / "sequences_temporal.npz").queries("test").times
    half, end = int(np.median(times)), int(times.max())
    rivals = {
        CHAMPION: aged(tonight.bundles["temporal"], tmp_path / "half", half),
        ANCHOR: aged(tonight.bundles["temporal"], tmp_path / "all", end),
    }
    (tmp_path / "out").mkdir()
    figures = evaluate(tonight.prepared, tonight.bundles, rivals, tonight.pretrained, tmp_path / "out", **of_evaluate(only))
    rows = pd.read_parquet(tmp_path / "out" / "per_user.parquet")
    assert (rows["family"] == CHAMPION).sum() == (times > half).sum() < (rows["family"] == "nightloom").sum()
    assert not (rows["family"] == ANCHOR).any()
    assert figures["rivals"][CHAMPION]["learned_share"] == pytest.approx((times <= half).mean())
    assert figures["rivals"][ANCHOR]["learned_share"] == 1
    found = with_limits(
        decide(rows[rows["family"] == "nightloom"], rows[rows["family"] == ANCHOR], {}, only.promotion), {ANCHOR: figures["rivals"][ANCHOR]}
    )
    assert found.decision == "reject"
    assert "may have learned from 100% of tonight's held-out events" in found.reasons[-1]


def test_a_champion_of_another_catalogue_says_how_little_it_knows(tonight: SimpleNamespace) -> None:
    known = tonight.figures["rivals"][CHAMPION]["knows_share"]
    assert known == pytest.approx(24 / 30)
    assert with_limits(
        decide(tonight.rows[:0], None, {}, config().promotion), {CHAMPION: {"learned_share": 0.0, "knows_share": 0.0, "note": ""}}
    ).reasons[-1] == ("The champion knows 0% of tonight's catalogue: it ranks the other items by text and attributes alone.")


def test_a_night_without_held_out_users_ends_at_the_gate(tonight: SimpleNamespace, tmp_path: Path) -> None:
    prepared = tmp_path / "prepared"
    shutil.copytree(tonight.prepared, prepared)
    whole = Sequences.load(prepared / "sequences_temporal.npz")
    replace(whole, validation_end=whole.offsets[1:]).save(prepared / "sequences_temporal.npz")
    only = config(protocols=["temporal"])
    figures = evaluate(
        prepared, tonight.bundles, {CHAMPION: tonight.bundles["temporal"]}, tonight.pretrained, tmp_path, **of_evaluate(only)
    )
    assert figures["test_users"] == {"temporal": 0}
    assert json.loads((tmp_path / "sample_lists.json").read_text())["users"] == []
    assert json.loads((tmp_path / "metrics.json").read_text())["als"] == {"temporal": {}}
    found = decide(pd.read_parquet(tmp_path / "per_user.parquet"), None, {}, only.promotion)
    assert (found.decision, found.users) == ("reject", 0)


def test_a_bundle_that_is_not_whole_is_refused(tonight: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a whole bundle"):
        evaluate(tonight.prepared, dict.fromkeys(PROTOCOLS, tmp_path), {}, tonight.pretrained, tmp_path, **of_evaluate(config()))
