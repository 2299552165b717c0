"""The rivals of the service's reasons in `benchmarks.fidelity` are what they are called."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.other_reasons import Inside, chosen, clustered, oracle, paths
from nightloom.core.sequences import Histories
from nightloom.models.sequential.attend import attend
from nightloom.models.sequential.attention import bias_table
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.serving_artefact import write_serving
from nightloom.serving.model.engine import Engine
from tests.serving_bundle import known_histories, serving_bundle


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Engine]:
    root: Path = tmp_path_factory.mktemp("rivals")
    write_serving(serving_bundle(root / "bundle"), root / "serving")
    return Bundle.load(root / "bundle"), Engine.open(root / "serving")


@pytest.fixture
def history() -> Histories:
    histories = known_histories(30, seed=4)
    longest = int(np.argmax(histories.lengths))
    return replace(histories.take(slice(longest, longest + 1)), request_time=np.array([1_700_000_100]))


def test_attention_is_the_model_s_own(made: tuple[Bundle, Engine], history: Histories) -> None:
    model = made[0].recommender
    inside = Inside(model, history)
    weights = inside.attention()
    encoder = model.net.encoder
    assert weights.shape == (len(encoder.blocks), len(history.items))
    assert (weights > 0).all()
    assert (weights.sum(1) < 1).all()  # BOS has the rest
    with torch.no_grad():
        x = inside._input(inside.tokens)
        tables = bias_table(encoder.position_bias, encoder.time_bias).split(encoder.heads)
        for block, table, mine in zip(encoder.blocks, tables, weights, strict=True):
            qkv = block.qkv(block.attention_norm(x))
            dim = qkv.shape[1] // 3
            marks = torch.zeros(len(qkv), dim)  # values that say which event they are of: what comes out are the weights
            width = dim // encoder.heads
            for at, place in enumerate(inside.places[: width - 1].tolist()):
                marks[place, at::width] = 1
            seen = attend(torch.cat([qkv[:, : 2 * dim], marks], 1), table, inside.batch.place, inside.batch.inside, inside.batch.spans)
            told = seen[inside.last[0]].view(encoder.heads, width).mean(0)[: width - 1].numpy()
            np.testing.assert_allclose(mine[: width - 1], told[: len(mine)], atol=1e-6)
            x = block(x, inside.batch, table, None)


def test_a_path_adds_up_to_what_changes_between_its_ends(made: tuple[Bundle, Engine], history: Histories) -> None:
    model, item = made[0].recommender, 7
    inside = Inside(model, history, 400)
    nothing = torch.zeros(len(history.items), inside.items.shape[1])
    (values,) = inside.gradients(item, [nothing], [(np.arange(400) + 0.5) / 400])
    whole = torch.log_softmax(torch.from_numpy(model.network_scores(history)), 1)[0, item].item()
    x = inside.tokens.clone()
    x[inside.places] = 0
    with torch.no_grad():
        users = inside.encoder(x, inside.batch, None, inside.last[:1]) * model.net.log_scale.exp()
        empty = torch.log_softmax(users @ inside.items.T, 1)[0, item].item()
    assert values.sum() == pytest.approx(whole - empty, abs=0.02 * abs(whole - empty) + 1e-3)
    found = paths(model, history, item, known_histories().items, seed=0)
    assert len(found) == 11
    assert all(len(one) == len(history.items) for one in found)
    assert np.corrcoef(found[0], values)[0, 1] > 0.95


def test_clusters_share_what_their_group_adds(made: tuple[Bundle, Engine], history: Histories) -> None:
    engine = made[1]
    game = engine.coalitions_of(history)
    values = clustered(game, 7, engine.catalogue.vectors[history.items], seed=0)
    ends = np.stack([np.ones(game.events, bool), np.zeros(game.events, bool)])
    whole, none = game.log_probabilities(ends, np.array([7]))[:, 0]
    assert values.sum() == pytest.approx(whole - none, abs=1e-4)
    assert len(np.unique(values.round(9))) <= 8


def test_the_oracle_is_no_candidate_and_the_choice_is_one() -> None:
    candidates = {"a": {"cdcg": 0.2, "ins": 1.0, "ins_area": 3.0}, "b": {"cdcg": 0.4, "ins": 2.0, "ins_area": 1.0}}
    assert chosen(candidates) == "a"
    assert oracle(candidates) == {"cdcg": 0.2, "ins": 2.0, "ins_area": 3.0}
