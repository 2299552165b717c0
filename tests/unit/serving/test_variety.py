"""Whoever has no history: one list a day, pages without repeats, another list for somebody else; nothing without the setting."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nightloom.core.exploration import DAY, HEAD, lift
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.serving_artefact import write_serving
from tests.service_app import Worker, event, ids, make_served, name_champion
from tests.serving_bundle import N_ITEMS, START, serving_bundle

NOW = START - START % DAY + 9 * 3600


@pytest.fixture(scope="module", params=[False, True], ids=["fused", "reranked"])
def served(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_served(tmp_path_factory.mktemp("explores"), exploration=0.5, reranker=request.param)


def reranked(worker: Worker) -> bool:
    """Whether scores depend on the moment of the request and on what else may be shown, as a re-ranker's do."""
    return worker.service.model.engine.reranked


@pytest.fixture
def explorer(served: Path, tmp_path: Path) -> Iterator[Worker]:
    name_champion(tmp_path, served)
    with Worker(tmp_path) as found:
        yield found


def test_a_newcomer_has_one_list_a_day_and_others_have_others(explorer: Worker) -> None:
    first = ids(explorer.ask(user_id="anna", now=NOW))
    if not reranked(explorer):
        assert ids(explorer.ask(user_id="anna", now=NOW + 12 * 3600)) == first
    assert ids(explorer.ask(user_id="anna", now=NOW, k=5)) == first[:5]
    assert ids(explorer.ask(user_id="anna", now=NOW + DAY)) != first
    lists = [ids(explorer.ask(user_id=f"visitor{n}", now=NOW)) for n in range(30)]
    assert len({tuple(one) for one in lists}) == 30
    assert len({item for one in lists for item in one}) > (10 if reranked(explorer) else 30)
    plain = {tuple(ids(explorer.ask(history=[], now=NOW))) for _ in range(2)}
    assert len(plain) == 1  # nobody can be told apart without an id


def test_pages_go_on_without_repeats_and_are_the_long_list(explorer: Worker) -> None:
    whole = ids(explorer.ask(user_id="anna", now=NOW, k=60))
    answer, seen = explorer.ask(user_id="anna", now=NOW, k=20), list[str]()
    for _ in range(3):
        seen += ids(answer)
        answer = explorer.ask(user_id="anna", now=NOW, k=20, page=answer["next"])
    assert len(set(seen)) == 60
    if not reranked(explorer):
        assert seen == whole


def test_scores_are_the_model_s_own_and_come_from_the_head(served: Path, explorer: Worker) -> None:
    bundle = Bundle.load(served / "bundle")
    from nightloom.core.queries import Query

    (cold,) = bundle.recommend([Query(request_time=NOW)], N_ITEMS)
    own, place = dict(cold), {item: at for at, (item, _) in enumerate(cold)}
    answer = explorer.ask(user_id="anna", now=NOW, k=20)
    for line in answer["items"]:
        assert line["score"] == pytest.approx(own[line["item_id"]], abs=1e-4)
        assert place[line["item_id"]] < HEAD
        assert ("probability" in line) == (bundle.recommender.reranker is not None)
        if "probability" in line:
            assert line["probability"] == pytest.approx(1 / (1 + np.exp(-line["score"])), rel=1e-6)
    scores = bundle.recommender.scores(bundle.histories([Query(request_time=NOW)]))[0]
    head = np.array([bundle.index[item] for item, _ in cold[:HEAD]])
    drawn = scores + lift(head, "anna", NOW, N_ITEMS, 0.5 * bundle.recommender.fused_unit)
    assert [bundle.index[item] for item in ids(answer)] == np.argsort(-drawn, kind="stable")[:20].tolist()


def test_filters_hold_and_the_first_event_ends_it(explorer: Worker) -> None:
    red = {"in": {"genres": ["red"]}}
    lists = [ids(explorer.ask(user_id=f"v{n}", now=NOW, k=5, filter=red)) for n in range(8)]
    assert len({tuple(one) for one in lists}) > 2
    allowed = set(ids(explorer.ask(history=[], k=N_ITEMS, filter=red, exclude_seen=False)))
    assert {item for one in lists for item in one} <= allowed
    for person in ("anna", "bea"):
        explorer.tell(event(f"{person}1", person, "i3", at=NOW - 60))
    assert ids(explorer.ask(user_id="anna", now=NOW)) == ids(explorer.ask(user_id="bea", now=NOW))


def test_without_the_setting_all_newcomers_get_the_same(worker: Worker) -> None:
    assert len({tuple(ids(worker.ask(user_id=f"visitor{n}", now=NOW))) for n in range(5)}) == 1


def test_an_artefact_of_before_draws_nothing(tmp_path: Path) -> None:
    from nightloom.serving.model.engine import Engine
    from nightloom.serving.model.variety import variety

    write_serving(serving_bundle(tmp_path / "bundle"), tmp_path / "serving")
    engine = Engine.open(tmp_path / "serving")
    assert engine.exploration == 0
    assert variety(engine, "anna", NOW, NOW, None) is None
