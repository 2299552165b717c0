"""Training with pictures: what only they tell is learned, and weights are carried from night to night and domain to domain."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from nightloom.config import RunConfig, config_from_dict
from nightloom.core.ranking import ranks
from nightloom.core.sequences import Sequences
from nightloom.data.preparation.prepare import prepare
from nightloom.data.tables.pictures import PICTURES, take_in
from nightloom.data.tables.schema import Tables
from nightloom.encoders.load_pretrained import load_pretrained
from nightloom.encoders.vectors import Vectors
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.manifest import seal
from nightloom.training.distributed import World
from nightloom.training.run import Training
from nightloom.training.run_json import Run
from nightloom.training.transfer import Transfer, zero_shot
from nightloom.training.warm_start import START_FILE, ColdStart, settings_of, write_start
from tests.pictures import COLOURS, picture
from tests.sections import of_prepare
from tests.tiny_models import tiny_vit

ITEMS, OLD, USERS, STEPS = 200, 160, 100, 8
"""Items 160 to 199 come with the test's time: nobody had them before."""


def config(vit: Path, **changes: Any) -> RunConfig:
    sections: dict[str, Any] = {
        "name": "shop",
        "data": {"events": "events.csv", "features": {"photo": "image"}},
        "prepare": {"test_share": 0.25, "validation_share": 0.1},
        "evaluation": {"protocols": ["temporal"]},
        "pretrained": {"image_model": str(vit)},
        "model": {"dim": 16, "blocks": 1, "heads": 2, "scorers": [], "dropout": 0.1, "id_dropout": 0.3},
        "training": {"epochs": 12, "patience": 12, "workers": 1, "learning_rate": 0.01, "refit": False, "precision": "fp32"},
    }
    for name, keys in changes.items():
        sections[name] = sections[name] | keys
    return config_from_dict(sections)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A shop where people want one colour, and only the pictures tell it: no titles, no attributes."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("colours")
    colour = np.arange(ITEMS) % len(COLOURS)
    random, rows = np.random.default_rng(0), []
    for user in range(USERS):
        wanted = user % len(COLOURS)
        for step in range(STEPS):
            late = step >= STEPS - 2
            mine = np.flatnonzero(colour == wanted)
            item = random.choice(mine[mine >= OLD] if late else mine[mine < OLD])
            rows.append((f"u{user}", f"i{item}", 1_600_000_000 + 100_000 * step + user))
    events = pd.DataFrame(rows, columns=["user_id", "item_id", "at"])
    events["timestamp"] = pd.to_datetime(events.pop("at"), unit="s", utc=True).astype("datetime64[ms, UTC]")
    photos = [picture([*COLOURS][colour[item]], seed=item) for item in range(ITEMS)]
    items = pd.DataFrame({"item_id": [f"i{item}" for item in range(ITEMS)], "photo": pd.Series(photos, dtype=object)})
    items, places = take_in(items, ["photo"], None, folder / "store")
    places.to_parquet(folder / PICTURES)
    tables = Tables(events.assign(event="buy"), items, features={"photo": "image"}, pictures=folder / PICTURES)
    run = config(tiny_vit(folder / "vit"))
    prepared, pretrained = folder / "prepared", folder / "pretrained"
    prepared.mkdir()
    pretrained.mkdir()
    prepare(tables, prepared, **of_prepare(run))
    assert load_pretrained(run.pretrained, prepared, folder / "mlruns", pretrained)["images"]["with_image"] == ITEMS
    return SimpleNamespace(prepared=prepared, pretrained=pretrained, config=run, folder=folder)


def train(shop: SimpleNamespace, out: Path, **changes: Any) -> Bundle:
    out.mkdir(parents=True, exist_ok=True)
    run = config(Path(shop.config.pretrained.image_model), **changes).model_dump(mode="json")
    places = {"prepared": str(shop.prepared), "pretrained": str(shop.pretrained), "out": str(out)}
    (out / "run.json").write_text(json.dumps({"config": run, "protocol": "temporal"} | places))
    Training(Run.load(out / "run.json"), World())()
    return Bundle.load(out / "bundle")


def unseen_hits(shop: SimpleNamespace, bundle: Bundle) -> float:
    """Share of held-out items that nobody had before which are in the first quarter, where one colour of four would fit."""
    queries = Sequences.load(shop.prepared / "sequences_temporal.npz").queries("test", exclude_seen=True)
    ranked = ranks(bundle.recommender, queries, exclude_seen=True)
    unseen = ~np.isin(queries.targets, Sequences.load(shop.prepared / "sequences_temporal.npz").train(with_validation=True).items)
    assert unseen.sum() > 50
    found = np.asarray(ranked.ranks)[unseen]
    return float(((found > 0) & (found <= ITEMS // 4)).mean())


@pytest.fixture(scope="module")
def seeing(shop: SimpleNamespace) -> Bundle:
    return train(shop, shop.folder / "seeing")


def test_items_that_nobody_has_had_are_found_by_their_pictures(shop: SimpleNamespace, seeing: Bundle, tmp_path: Path) -> None:
    blind = train(shop, tmp_path, model={"use_images": False})
    assert not blind.recommender.net.fusion.use_images
    with_pictures, without = unseen_hits(shop, seeing), unseen_hits(shop, blind)
    assert with_pictures > 0.7
    assert with_pictures > 2 * without


def other_pictures(shop: SimpleNamespace, folder: Path, vectors: Vectors) -> Path:
    folder.mkdir()
    for name in ("text", "image"):
        np.save(folder / f"{name}_vectors.npy", getattr(vectors, name))
        np.save(folder / f"{name}_mask.npy", getattr(vectors, f"has_{name}"))
    return folder


def test_another_vision_model_starts_cold(shop: SimpleNamespace, seeing: Bundle, tmp_path: Path) -> None:
    run, champion = shop.config.model_dump(mode="json"), seeing.folder
    found = Vectors.load(shop.pretrained)
    # The champion is of tonight's own data here, which the leak rule forbids: let it be of an earlier night.
    meta = json.loads((champion / "meta.json").read_text())
    meta["trained_until"]["temporal"] = meta["cutoffs"]["temporal"]["test"] - 1
    (champion / "meta.json").write_text(json.dumps(meta))
    seal(champion, {})
    laid = write_start(run, "temporal", shop.prepared, shop.pretrained, champion, champion.parent / "search.safetensors", tmp_path)
    assert laid["items_kept"] > 40
    tensors = load_file(tmp_path / START_FILE)
    torch.testing.assert_close(tensors["refit.fusion.image.weight"], seeing.recommender.net.fusion.image.weight)
    narrow = other_pictures(shop, tmp_path / "narrow", Vectors(found.text, found.has_text, found.image[:, :5], found.has_image))
    with pytest.raises(ColdStart, match="image vectors are 5 wide tonight, the champion's are 32"):
        write_start(run, "temporal", shop.prepared, narrow, champion, champion.parent / "search.safetensors", tmp_path)
    turned = other_pictures(shop, tmp_path / "turned", Vectors(found.text, found.has_text, found.image[:, ::-1].copy(), found.has_image))
    with pytest.raises(ColdStart, match="another vision model has seen the pictures"):
        write_start(run, "temporal", shop.prepared, turned, champion, champion.parent / "search.safetensors", tmp_path)
    renamed = run | {"pretrained": run["pretrained"] | {"image_model": "another"}}
    with pytest.raises(ColdStart, match=r"pretrained\.image_model"):
        write_start(renamed, "temporal", shop.prepared, shop.pretrained, champion, champion.parent / "search.safetensors", tmp_path)


def test_where_there_are_no_pictures_their_settings_keep_nobody_from_a_warm_start() -> None:
    plain = config_from_dict({"name": "mine", "data": {"events": "e.csv"}}).model_dump(mode="json")
    other = plain | {"pretrained": plain["pretrained"] | {"image_model": "another", "max_bad_images": 0.5}}
    assert settings_of(plain) == settings_of(other)
    assert not [key for key in settings_of(plain) if "image" in key]


def test_pictures_are_carried_to_another_domain_or_begin_there(shop: SimpleNamespace, seeing: Bundle, tmp_path: Path) -> None:
    """The domains meet in text, so both are given some; the pictures go with it."""
    found = Vectors.load(shop.pretrained)
    texts = np.random.default_rng(1).normal(size=(ITEMS, 6)).astype(np.float32)
    both = Vectors(texts, np.ones(ITEMS, dtype=bool), found.image, found.has_image)
    here = SimpleNamespace(prepared=shop.prepared, config=shop.config, pretrained=other_pictures(shop, tmp_path / "both", both))
    blind = SimpleNamespace(prepared=shop.prepared, config=shop.config, pretrained=tmp_path / "blind")
    blind.pretrained.mkdir()
    for name in ("text_vectors.npy", "text_mask.npy"):
        (blind.pretrained / name).write_bytes((here.pretrained / name).read_bytes())
    quick = {"training": {"epochs": 1}}
    sees, sees_not = train(here, tmp_path / "sees", **quick), train(blind, tmp_path / "sees-not", **quick)

    def laid(source: Bundle, target: SimpleNamespace) -> dict[str, torch.Tensor]:
        (out := tmp_path / f"{source.folder.parent.name}-{target.pretrained.name}").mkdir()
        Transfer(source.folder, "full").write_start(shop.config.model, target.prepared, target.pretrained, out)
        return {name.removeprefix("search."): value for name, value in load_file(out / START_FILE).items() if name.startswith("search.")}

    carried = laid(sees, here)
    torch.testing.assert_close(carried["fusion.image.weight"], sees.recommender.net.fusion.image.weight)
    torch.testing.assert_close(carried["fusion.whiten_image.mean"], torch.from_numpy(found.image).mean(0))
    begun = laid(sees_not, here)
    assert not begun["fusion.image.weight"].any()  # at first they add nothing ...
    assert torch.isnan(begun["fusion.whiten_image.directions"]).all()  # ... and are whitened as the target's own
    assert not [name for name in laid(sees, blind) if "image" in name]
    for source, target in ((sees, here), (sees_not, here), (sees, blind)):
        scores = zero_shot(source.folder, target.prepared, target.pretrained).network_scores(
            Sequences.load(shop.prepared / "sequences_temporal.npz").train()
        )
        assert np.isfinite(scores).all()
