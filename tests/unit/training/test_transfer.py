"""What goes from one domain to another, what does not, and what an adapter may change."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from nightloom.core.errors import InputError
from nightloom.core.sequences import Histories
from nightloom.data.preparation.catalogue import write_catalogue
from nightloom.data.preparation.items import FeatureSpec
from nightloom.packaging.bundle import Bundle
from nightloom.training.distributed import World
from nightloom.training.fine_tune import fine_tune
from nightloom.training.remap_weights import CODES, EVENT_TYPES, IDS, NUMBERS
from nightloom.training.run import Training
from nightloom.training.run_json import Run
from nightloom.training.transfer import Transfer, same_items, zero_shot
from nightloom.training.warm_start import START_FILE
from tests.unit.training.conftest import write_prepared


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def source(tmp_path: Path, settings, write_run) -> Path:
    """The shop's bundle: with ids, attributes and two event_types of events."""
    Training(Run.load(write_run(settings(epochs=2), tmp_path / "source", "leave_one_out")), World())()
    return tmp_path / "source" / "bundle"


@pytest.fixture
def target(tmp_path: Path) -> SimpleNamespace:
    """Another shop whose items are called like the first one's, but are others: other texts, other attributes, other events."""
    other = write_prepared(tmp_path / "other")
    items = pd.read_parquet(other.prepared / "items.parquet").drop(columns="fruit").assign(colour=["red", "blue"] * 15)
    spec = FeatureSpec.fit(items, {"colour": "category", "price": "number"})
    items.to_parquet(other.prepared / "items.parquet", index=False)
    write_catalogue(items, other.prepared)
    spec.save(other.prepared / "feature_spec.json")
    spec.encode(items).save(other.prepared / "item_features.npz")
    (other.prepared / "meta.json").write_text(json.dumps({"event_types": ["like", "view"], "has_time": True}))
    vectors = np.load(other.pretrained / "text_vectors.npy")[::-1].copy()
    vectors[4] = vectors[3]
    np.save(other.pretrained / "text_vectors.npy", vectors)
    mask = np.load(other.pretrained / "text_mask.npy")[::-1].copy()
    mask[4] = mask[3]
    np.save(other.pretrained / "text_mask.npy", mask)
    return other


def test_text_and_encoder_are_carried_and_no_name_of_the_source(tmp_path: Path, settings, source: Path, target) -> None:
    said = Transfer(source, "full").write_start(settings().model, target.prepared, target.pretrained, tmp_path)
    assert (said["file"], said["mode"]) == (START_FILE, "full")
    remapped = {
        name.removeprefix("search."): value for name, value in load_file(tmp_path / START_FILE).items() if name.startswith("search.")
    }
    theirs = Bundle.load(source).recommender.net.state_dict()
    carried = [name for name in theirs if name.startswith(("encoder.", "fusion.whiten", "fusion.text", "fusion.norm", "log"))]
    assert len(carried) > 20
    own = torch.from_numpy(np.load(target.pretrained / "text_vectors.npy")[np.load(target.pretrained / "text_mask.npy")]).mean(0)
    torch.testing.assert_close(remapped["fusion.whiten.mean"], own)  # centred on the target's texts
    for name in set(carried) - {EVENT_TYPES, "fusion.whiten.mean"}:
        torch.testing.assert_close(remapped[name], theirs[name], rtol=0, atol=0)
    ids = remapped[IDS]
    assert len(ids) == 31  # the unknown id and one for each item, all of them as unknown
    assert (ids == theirs[IDS][0]).all()
    assert not any((row == ids).all(1).any() for row in theirs[IDS][1:])
    assert (remapped[CODES] == theirs["fusion.no_codes"]).all()
    assert not remapped[NUMBERS].any()
    torch.testing.assert_close(
        remapped[EVENT_TYPES], torch.stack([torch.zeros(16), theirs[EVENT_TYPES][1]])
    )  # "view" means the same in both


def test_zero_shot_goes_by_text_whatever_an_item_is_called(source: Path, target) -> None:
    recommender = zero_shot(source, target.prepared, target.pretrained)
    asked = Histories.of_items([[0, 7], [12]])
    scores = recommender.scores(asked)
    assert scores.shape == (2, 30)
    assert np.isfinite(scores).all()  # the items that nobody ever had too
    np.testing.assert_allclose(scores[:, 3], scores[:, 4], rtol=1e-5)  # one text, two names: ids i3 and i4 differ in the source
    before = Bundle.load(source).recommender
    assert not np.allclose(before.network_scores(asked)[:, 3], before.network_scores(asked)[:, 4])
    assert set(recommender.weights) <= {"text_neighbours"}  # the others know the source's items alone


def test_an_item_is_the_same_where_its_text_is_and_no_other_has_it() -> None:
    source = pd.Series(["Heat", "Alien", None, "Emma", "Emma", "Up"])
    target = pd.Series(["Up", "Emma", None, "Alien", "Dune", "Heat", "Heat"])
    assert same_items(source, target).tolist() == [5, -1, -1, 1, -1, -1, -1]


def test_shared_items_bring_their_ids_and_companions(tmp_path: Path, settings, source: Path, target) -> None:
    """The catalogues are the same by text, in another order and under other ids; one item of the target is new."""
    items = pd.read_parquet(target.prepared / "items.parquet")
    items = items.iloc[::-1].reset_index(drop=True).assign(item_id=[f"other{row}" for row in range(len(items))])
    items.loc[0, "text"] = "a text that is new"
    items.to_parquet(target.prepared / "items.parquet", index=False)
    write_catalogue(items, target.prepared)
    bundle = Bundle.load(source)
    same = same_items(bundle.items["text"], items["text"])
    known = np.flatnonzero(same >= 0)
    assert len(known) > 20
    assert 0 not in known
    Transfer(source, "full", shared=True).write_start(settings().model, target.prepared, target.pretrained, tmp_path)
    ids, theirs = load_file(tmp_path / START_FILE)["search." + IDS], bundle.recommender.net.state_dict()[IDS]
    torch.testing.assert_close(ids[1 + known], theirs[bundle.recommender.content.id_rows[same[known]]], rtol=0, atol=0)
    assert (ids[[0, 1]] == theirs[0]).all()  # an unknown item, and the new one
    recommender = zero_shot(source, target.prepared, target.pretrained, shared=True)
    assert recommender.weights == bundle.recommender.weights
    assert set(recommender.scorers) == set(recommender.weights)
    assert np.isfinite(recommender.network_scores(Histories.of_items([known[:3].tolist()]))).all()
    learned = [name for name in recommender.weights if name not in ("text_neighbours", "popularity")]
    assert learned  # else nothing is compared here
    for name in learned:
        mine = recommender.scorers[name].scores(Histories.of_items([known[:3].tolist()]))[0, known]
        its = bundle.recommender.scorers[name].scores(Histories.of_items([same[known[:3]].tolist()]))[0, same[known]]
        np.testing.assert_allclose(mine, its, rtol=1e-5)


@pytest.mark.parametrize("mode", ["adapter", "full"])
def test_a_run_starts_from_zero_shot_and_changes_what_it_may(mode, tmp_path: Path, settings, source: Path, target) -> None:
    config = settings(epochs=3, learning_rate=0.02)
    figures = fine_tune(config, "leave_one_out", target.prepared, target.pretrained, tmp_path / mode, transfer=Transfer(source, mode))
    assert figures["cold_because"] == "the start is another domain's model"
    assert figures["epochs"] == 3  # no warm schedule
    recommender, theirs = Bundle.load(tmp_path / mode / "bundle").recommender, Bundle.load(source).recommender.net.state_dict()
    mine = recommender.net.state_dict()
    changed = {
        name for name, value in mine.items() if name in theirs and value.shape == theirs[name].shape and (value != theirs[name]).any()
    }
    changed -= {IDS, CODES, NUMBERS, EVENT_TYPES, "fusion.numbers.bias", "fusion.whiten.mean"}
    assert figures["best_epoch"] > 0
    if mode == "adapter":
        assert changed == {"log_scale"}
        assert mine["fusion.adapter.up.weight"].any()
        assert (mine[IDS] == theirs[IDS][0]).all()
    else:
        assert {"fusion.text.weight", "encoder.blocks.0.qkv.weight", "encoder.bos"} <= changed
        assert not any(name.startswith("fusion.adapter") for name in mine)
    again = fine_tune(config, "leave_one_out", target.prepared, target.pretrained, tmp_path / mode, transfer=Transfer(source, mode))
    assert again == figures


def test_what_teaches_nothing_leaves_the_zero_shot_model(tmp_path: Path, settings, source: Path, target) -> None:
    """A learning rate of nearly nothing makes no epoch better than the start."""
    for mode in ("adapter", "full"):
        config = settings(epochs=2, learning_rate=1e-12, model={"scorers": []})
        figures = fine_tune(config, "leave_one_out", target.prepared, target.pretrained, tmp_path / mode, transfer=Transfer(source, mode))
        assert figures["best_epoch"] == 0
        asked = Histories.of_items([[0, 7], [12]])
        first = zero_shot(source, target.prepared, target.pretrained).network_scores(asked)
        np.testing.assert_allclose(
            Bundle.load(tmp_path / mode / "bundle").recommender.network_scores(asked), first, atol=0.01
        )  # texts are kept as half floats


def test_what_does_not_fit_is_refused(tmp_path: Path, settings, source: Path, target) -> None:
    with pytest.raises(InputError, match="Train the source with the model settings"):
        Transfer(source, "full").write_start(settings(model={"dim": 32}).model, target.prepared, target.pretrained, tmp_path)
    with pytest.raises(InputError, match="Give both item texts"):
        Transfer(source, "full").write_start(settings(model={"use_text": False}).model, target.prepared, target.pretrained, tmp_path)
    (source / "language_model").mkdir()
    with pytest.raises(InputError, match="its language model was tuned"):
        zero_shot(source, target.prepared, target.pretrained)
    (source / "language_model").rmdir()
    np.save(target.pretrained / "text_vectors.npy", np.zeros((30, 5), dtype=np.float32))
    with pytest.raises(InputError, match="12 wide, the target's 5"):
        zero_shot(source, target.prepared, target.pretrained)
