"""Threads that ask and threads that write share one engine: every answer is whole, and nothing is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from nightloom.packaging.serving_artefact import write_serving
from nightloom.serving.items.new_items import NewItem
from nightloom.serving.model.engine import Engine
from tests.serving_bundle import N_ITEMS, START, TEXT_DIM, serving_bundle, some_query

ROUNDS = 60


def test_whoever_asks_meanwhile_gets_whole_answers(tmp_path: Path) -> None:
    write_serving(serving_bundle(tmp_path / "bundle", reranker=True, labels=True), tmp_path / "serving")
    engine, alone = Engine.open(tmp_path / "serving", cache_bytes=200_000), Engine.open(tmp_path / "serving")
    faults: list[BaseException] = []
    texts = np.random.default_rng(0).normal(size=(ROUNDS, TEXT_DIM)).astype(np.float32)

    def acts(target: Engine, user: int) -> None:
        for number in range(ROUNDS):
            target.apply(f"user {user}", f"i{(number * 7 + user) % N_ITEMS}", 1, START + number, positive=True)

    def puts(target: Engine) -> None:
        for number in range(ROUNDS):
            target.put_item(NewItem(f"new {number}", {"genres": "red"}, texts[number]))

    def asks() -> None:
        for number in range(ROUNDS):
            items, scores = engine.recommend(some_query(number % 20), 2 * N_ITEMS, exclude_seen=False)
            assert sorted(items.tolist()) == list(range(len(items)))
            assert len(items) >= N_ITEMS
            assert np.isfinite(scores).all()
            engine.recommend_user(f"user {number % 3}", 10, now=START + ROUNDS)

    def guarded(what: Callable[[], None]) -> None:
        try:
            what()
        except BaseException as error:
            faults.append(error)

    work: list[Callable[[], None]] = [asks, asks, lambda: puts(engine), *(lambda user=user: acts(engine, user) for user in range(3))]  # type: ignore[misc]
    threads = [threading.Thread(target=guarded, args=(one,)) for one in work]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert faults == []
    puts(alone)
    for user in range(3):
        acts(alone, user)
    for mine, wanted in zip(engine.recommend(some_query(30), 50), alone.recommend(some_query(30), 50), strict=True):
        np.testing.assert_allclose(mine, wanted, atol=1e-4)
