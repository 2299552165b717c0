"""Pictures in the fusion: masked where there are none, kept with the model, and read for items that are new."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from nightloom.config import ModelConfig
from nightloom.core.queries import Query
from nightloom.core.sequences import Histories
from nightloom.data.preparation.items import FeatureSpec
from nightloom.encoders.vectors import Vectors
from nightloom.explain.games import PICTURE, field_game, field_players, without_fields
from nightloom.explain.shapley import shapley
from nightloom.models.sequential.content_fusion import ItemContent, ItemFusion
from nightloom.models.sequential.network import SequentialNetwork, Shape
from nightloom.models.sequential.recommender import SequentialRecommender
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.manifest import seal
from nightloom.packaging.write import write_bundle

N, TEXT_DIM, IMAGE_DIM = 9, 5, 7
WITH_IMAGE = np.arange(N) % 3 != 0
ITEMS = pd.DataFrame({"item_id": [f"i{at}" for at in range(N)], "text": ["x"] * N})


def content_of(image: np.ndarray | None = None) -> ItemContent:
    random = np.random.default_rng(0)
    text = random.normal(size=(N, TEXT_DIM)).astype(np.float32)
    pictures = random.normal(size=(N, IMAGE_DIM)).astype(np.float32) * WITH_IMAGE[:, None]
    rows = np.arange(1, N + 1)
    return ItemContent.build(None, text, np.ones(N, dtype=bool), rows, pictures if image is None else image, WITH_IMAGE)


def net_of(content: ItemContent, image_dim: int = IMAGE_DIM, **settings: object) -> SequentialNetwork:
    config = ModelConfig(dim=8, blocks=1, heads=2, max_history=5, id_dropout=0.0, **settings)
    torch.manual_seed(0)
    net = SequentialNetwork(config, Shape(TEXT_DIM, 0, 0, N, 1, False, image_dim=image_dim))
    net.fusion.fit_whitening(content)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return net.eval()


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    source = tmp_path / "source"
    source.mkdir()
    ITEMS.to_parquet(source / "items.parquet", index=False)
    FeatureSpec.fit(ITEMS, {}).save(source / "feature_spec.json")
    (source / "meta.json").write_text(json.dumps({"event_types": ["buy"], "has_time": False}))
    content = content_of()
    net = net_of(content)
    config = ModelConfig(dim=8, blocks=1, heads=2, max_history=5)
    shape = Shape(TEXT_DIM, 0, 0, N, 1, False, image_dim=IMAGE_DIM)
    write_bundle(SequentialRecommender(config, shape, net, content, {}, {}), source, tmp_path / "bundle")
    return Bundle.load(tmp_path / "bundle")


@pytest.mark.parametrize("garbage", [1e9, np.nan, -np.inf])
def test_what_stands_in_a_masked_row_counts_for_nothing(garbage: float) -> None:
    clean, dirty = content_of(), content_of()
    dirty.image[~torch.from_numpy(WITH_IMAGE)] = garbage
    net = net_of(clean)
    torch.testing.assert_close(net_of(dirty).fusion.whiten_image.directions, net.fusion.whiten_image.directions, rtol=0, atol=0)
    gradients = []
    for content in (clean, dirty):
        net.zero_grad()
        vectors = net.fusion(content)
        vectors.pow(3).sum().backward()
        gradients.append([vectors.detach(), *(one.grad.clone() for one in net.fusion.parameters() if one.grad is not None)])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert net.fusion.no_image.grad is not None
    assert net.fusion.no_image.grad.any()


def test_another_picture_is_another_item_and_only_that_one() -> None:
    content = content_of()
    other = content.image.clone()
    other[[1, 3]] += 1  # item 3 has no picture
    net = net_of(content)
    with torch.no_grad():
        moved = (net.fusion(content) != net.fusion(replace(content, image=other))).any(1)
    assert moved.nonzero().flatten().tolist() == [1]


def test_a_missing_picture_is_not_a_zero_one() -> None:
    content = content_of()
    there = replace(content, image=torch.zeros_like(content.image), has_image=torch.ones(N, dtype=torch.bool))
    net = net_of(content)
    with torch.no_grad():
        assert not torch.isclose(net.fusion(content)[0], net.fusion(there)[0]).all()


@pytest.mark.parametrize(("image_dim", "use_images"), [(0, True), (IMAGE_DIM, False)])
def test_without_pictures_the_network_is_the_one_it_always_was(image_dim: int, use_images: bool) -> None:
    config = ModelConfig(dim=8, use_images=use_images)
    torch.manual_seed(3)
    without = ItemFusion(config, TEXT_DIM, 4, 2, N)
    torch.manual_seed(3)
    one = ItemFusion(config, TEXT_DIM, 4, 2, N, image_dim=image_dim)
    assert not one.use_images
    for (name, value), (same, other) in zip(without.state_dict().items(), one.state_dict().items(), strict=True):
        assert name == same
        assert torch.equal(value, other)


def test_a_saved_model_keeps_its_pictures(bundle: Bundle) -> None:
    content = content_of()
    torch.testing.assert_close(bundle.recommender.content.image, content.image.half().float(), rtol=0, atol=0)
    assert bundle.recommender.content.has_image.tolist() == WITH_IMAGE.tolist()
    with torch.no_grad():
        torch.testing.assert_close(bundle.recommender.item_vectors(), net_of(content).fusion(content), atol=2e-3, rtol=0)
    assert len(bundle.recommend([Query(["i0", "i1"]), Query()], 3)[0]) == 3


def test_a_model_from_before_there_were_pictures_is_read(bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    tensors = {name: value for name, value in load_file(folder / "model.safetensors").items() if "image" not in name}
    save_file(tensors, folder / "model.safetensors")
    said = json.loads((folder / "bundle.json").read_text())
    del said["shape"]["image_dim"], said["model"]["use_images"]
    (folder / "bundle.json").write_text(json.dumps(said))
    seal(folder, {})
    old = Bundle.load(folder)
    assert not old.recommender.content.has_image.any()
    assert len(old.recommend([Query(["i0"])], 3)[0]) == 3
    both = Vectors(np.zeros((N, TEXT_DIM), np.float32), np.zeros(N, bool), np.ones((N, IMAGE_DIM), np.float32), np.ones(N, bool))
    moved = old.reindex(ITEMS.assign(item_id=[f"n{at}" for at in range(N)]), both)
    assert np.isfinite(moved.scores(Histories.of_items([[0]]))).all()


def test_onto_another_catalogue_known_items_keep_their_pictures_and_new_ones_are_seen(bundle: Bundle) -> None:
    items = pd.DataFrame({"item_id": ["i4", "new", "blank", "i3"], "text": pd.Series([None] * 4, dtype="str")})
    image = np.full((4, IMAGE_DIM), 9.0, dtype=np.float32)
    image[1] = bundle.recommender.content.image[4].numpy()
    vectors = Vectors(np.zeros((4, TEXT_DIM), np.float32), np.zeros(4, bool), image, np.array([True, True, False, True]))
    moved = bundle.reindex(items, vectors)
    assert isinstance(moved, SequentialRecommender)
    assert moved.content.has_image.tolist() == [True, True, False, False]  # i3 had none when the model was trained
    torch.testing.assert_close(moved.content.image[1], moved.content.image[0], rtol=0, atol=0)
    found = moved.item_vectors()
    torch.testing.assert_close(found[[0, 3]], bundle.recommender.item_vectors()[[4, 3]])
    assert not torch.isclose(found[1], found[2]).all()  # two new items without text: their pictures tell them apart
    other = bundle.reindex(items, replace(vectors, image=np.ones((4, IMAGE_DIM + 1), dtype=np.float32)))  # another vision model's
    assert isinstance(other, SequentialRecommender)
    assert other.content.has_image.tolist() == [True, False, False, False]


def test_a_picture_is_a_reason_among_others(bundle: Bundle) -> None:
    recommender = bundle.recommender
    assert field_players(recommender, bundle.spec, 1) == ["text", PICTURE, "id"]
    assert field_players(recommender, bundle.spec, 0) == ["text", "id"]
    copies = without_fields(recommender.content, 1, bundle.spec, {PICTURE: np.array([False, True])})
    assert copies.has_image.tolist() == [True, False]
    players = field_players(recommender, bundle.spec, 1)
    found = shapley(field_game(recommender, Histories.of_items([[2, 3]]), 1, bundle.spec, players), len(players), samples=64)
    assert abs(found.gap) < 1e-5
    assert abs(found.values[1]) > 1e-4
