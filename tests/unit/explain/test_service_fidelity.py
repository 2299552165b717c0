"""The order in which the service names events is measured, alike for two models whose catalogues number items in another way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nightloom.core.sequences import Histories
from nightloom.explain.fidelity import measures
from nightloom.explain.service_fidelity import as_known_to, fidelity_means, service_fidelity
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.serving_artefact import write_serving
from nightloom.serving.model.engine import Engine
from nightloom.serving.reasons.attribution import Estimator, contributions
from nightloom.serving.reasons.decisive import decisive
from nightloom.serving.reasons.reasons import reasons
from tests.serving_bundle import known_histories, serving_bundle


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Engine]:
    root: Path = tmp_path_factory.mktemp("fidelity")
    write_serving(serving_bundle(root / "bundle"), root / "serving")
    return Bundle.load(root / "bundle"), Engine.open(root / "serving")


@pytest.fixture(scope="module")
def people() -> tuple[Histories, list[str]]:
    histories = replace(known_histories(12, seed=9), request_time=np.full(12, 1_700_000_100))
    return histories, [f"u{one}" for one in range(12)]


def test_what_is_measured_is_the_order_in_which_the_service_names_events(made: Any, people: Any) -> None:
    _, engine = made
    histories, names = people
    rows = service_fidelity(engine, Estimator(), histories, names, "challenger")
    assert rows["user_id"].tolist() == names
    history = histories.take(slice(3, 4))
    game = engine.coalitions_of(history)
    scores = game.scores(np.ones((1, game.events), bool))[0]
    scores[history.items] = -np.inf
    item = int(np.argmax(scores))
    asked = game, np.arange(game.events), np.array([item]), history.items
    found = contributions(*asked)
    (decided,) = decisive(*asked, found, found.values(Estimator()))
    order = decided.order
    sure = Estimator(error=(1e-9, 0.0, 0.0))  # so sure that all events of value which the item falls without are named
    (told,) = reasons(game, np.array([item]), sure, history.items)
    assert told.named == [event for event in order if found.left_out[event, 0] > 0]
    wanted = measures(game, item, {"x": order}, history.items)["x"]
    for name, value in wanted.items():
        assert rows.loc[3, name] == pytest.approx(value)
    means = fidelity_means(rows)["challenger"]
    assert means["users"] == 12
    assert means["cdcg"] == pytest.approx(rows["cdcg"].mean())


def test_a_ranking_turned_around_holds_less(made: Any, people: Any) -> None:
    _, engine = made
    turned = Estimator(weights=(-1 / 6, -4 / 6, -1 / 6))
    good, bad = (service_fidelity(engine, one, *people, "x")["del"].mean() for one in (Estimator(), turned))
    assert good < bad


def test_another_model_knows_the_same_histories_by_its_own_numbers(made: Any, people: Any) -> None:
    bundle, engine = made
    histories, names = people
    order = np.random.default_rng(0).permutation(len(bundle.item_ids))
    tonight = bundle.item_ids[order].tolist()  # tonight's dense item i is the champion's order[i]
    place = np.argsort(order)
    moved = replace(histories, items=place[histories.items].astype(np.int32), event_types=2 - histories.event_types)
    event_types = [engine.names.known[2 - code] for code in range(3)]
    known = as_known_to(engine, moved, tonight, event_types)
    np.testing.assert_array_equal(known.items, histories.items)
    np.testing.assert_array_equal(known.event_types, histories.event_types)
    lacking = [item if item != tonight[int(moved.items[0])] else "unheard of" for item in tonight]
    fewer = as_known_to(engine, moved, lacking, event_types)
    gone = int((moved.items == moved.items[0]).sum())
    assert len(fewer.items) == len(moved.items) - gone
    assert len(fewer) == len(moved)
    assert (service_fidelity(engine, Estimator(), known, names, "champion")["cdcg"] > 0).all()


def test_a_history_of_one_event_is_left_out(made: Any) -> None:
    _, engine = made
    rows = service_fidelity(engine, Estimator(), Histories.of_items([[3], [4, 5, 6], []]), ["a", "b", "c"], "x")
    assert rows["user_id"].tolist() == ["b"]
    assert "pos_at_5_area" in rows.columns
