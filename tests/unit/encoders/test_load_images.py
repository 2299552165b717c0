"""The pictures' part of stage load_pretrained: what is read, what is kept, and what is masked and told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nightloom.config import PretrainedConfig
from nightloom.core.errors import ContractBroken, InputError
from nightloom.data.preparation.items import FeatureSpec
from nightloom.data.tables.pictures import PICTURES, take_in
from nightloom.encoders.images import ImageEncoder
from nightloom.encoders.load_images import UNREAD
from nightloom.encoders.load_pretrained import fingerprints, load_pretrained, replaced
from nightloom.encoders.vectors import Vectors
from tests.pictures import paint, picture
from tests.tiny_models import DIM, tiny_vit

COLUMNS = {"photo": "image", "back": "image"}


@pytest.fixture
def stage(tmp_path: Path):
    """A function: front and back pictures of items -> the stage's figures and vectors."""
    model = tiny_vit(tmp_path / "vit")
    prepared, folder = tmp_path / "prepared", tmp_path / "out"
    prepared.mkdir()
    folder.mkdir()

    def run(photos: list[object], backs: list[object] | None = None, **config):
        cells = pd.DataFrame({"photo": photos, "back": backs or [None] * len(photos)}, dtype=object)
        cells.insert(0, "item_id", [f"i{at}" for at in range(len(photos))])
        items, places = take_in(cells, list(COLUMNS), tmp_path, tmp_path / "store")
        places.to_parquet(prepared / PICTURES)
        items.assign(text=pd.Series([None] * len(items), dtype="str")).to_parquet(prepared / "items.parquet")
        FeatureSpec.fit(items, COLUMNS).save(prepared / "feature_spec.json")
        settings = PretrainedConfig(**({"image_model": str(model), "max_bad_images": 1.0} | config))
        figures = load_pretrained(settings, prepared, tmp_path / "mlruns", folder)["images"]
        return figures, Vectors.load(folder)

    run.prepared, run.folder, run.model = prepared, folder, model
    return run


def test_each_item_gets_its_picture_s_vector_or_none(stage, tmp_path: Path) -> None:
    red, blue = paint(tmp_path / "red.png", "red"), picture("blue")
    (tmp_path / "page.png").write_bytes(b"<html>")
    figures, found = stage(["red.png", blue, None, "page.png", "gone.png", "red.png"])
    expected = ImageEncoder.load(str(stage.model)).encode([red.read_bytes, lambda: blue])
    assert found.has_image.tolist() == [True, True, False, False, False, True]
    assert found.image.dtype == np.float32
    np.testing.assert_allclose(found.image[[0, 1, 5]], expected[[0, 1, 0]], atol=1e-5)
    assert not found.image[~found.has_image].any()
    wanted = {"dim": DIM, "items": 6, "with_image": 3, "pictures": 5, "encoded": 2, "reused": 0, "unreadable": 2, "source": "folder"}
    assert {name: figures[name] for name in wanted} == wanted
    told = pd.read_csv(stage.folder / UNREAD)
    assert told[["item_id", "column", "path"]].to_numpy().tolist() == [
        ["i3", "photo", str(tmp_path / "page.png")],
        ["i4", "photo", "gone.png"],
    ]
    assert "not a format that Pillow knows" in told["reason"][0]
    assert told["reason"][1] == "no such file"
    assert figures["examples"] == [f"{path}: {reason}" for path, reason in zip(told["path"], told["reason"], strict=True)]


def test_several_pictures_of_an_item_are_one_vector(stage) -> None:
    front, back = picture("red"), picture("green")
    _, found = stage([front, None, front], [back, back, b"broken"])
    one = stage([front, back])[1].image
    np.testing.assert_allclose(found.image, [one.mean(0), one[1], one[0]], atol=1e-5)
    assert found.has_image.all()


def test_a_second_reading_asks_no_model_and_opens_no_file(stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for at, colour in enumerate(("red", "blue")):
        paint(tmp_path / f"{at}.png", colour)
    first = stage(["0.png", "1.png"])[1].image
    with monkeypatch.context() as patch:
        patch.setattr(ImageEncoder, "from_weights", lambda *_: pytest.fail("the model was loaded"))
        patch.setattr("nightloom.encoders.load_images.content", lambda *_: pytest.fail("a picture was opened"))
        figures, again = stage(["1.png", "0.png", "1.png"])
    assert (figures["encoded"], figures["reused"]) == (0, 2)
    np.testing.assert_array_equal(again.image, first[[1, 0, 1]])
    paint(tmp_path / "1.png", "green")  # another picture under the same name
    figures, changed = stage(["0.png", "1.png"])
    assert (figures["encoded"], figures["reused"]) == (1, 1)
    np.testing.assert_array_equal(changed.image[0], first[0])
    assert np.abs(changed.image[1] - first[1]).max() > 0.1


def test_another_model_has_its_own_vectors(stage, tmp_path: Path) -> None:
    first = stage([picture("red")])[1].image
    figures, other = stage([picture("red")], image_model=str(tiny_vit(tmp_path / "other", seed=1)))
    assert figures["encoded"] == 1
    assert not np.allclose(first, other.image)


def test_too_many_lost_pictures_stop_the_night(stage) -> None:
    photos = [picture("red", seed) for seed in range(9)]
    assert stage([*photos, "gone.png"], max_bad_images=0.1)[0]["unreadable"] == 1
    message = r"items\.photo: 2 of 11 pictures can not be read, the limit is 10\.00% \(pretrained\.max_bad_images\)"
    with pytest.raises(ContractBroken, match=message) as refused:
        stage([*photos, "gone.png", b"no picture"], max_bad_images=0.1)
    for word in ("i9: gone.png: no such file", "i10", UNREAD, "raise the limit"):
        assert word in str(refused.value)
    assert len(pd.read_csv(stage.folder / UNREAD)) == 2


def test_a_replaced_vision_model_is_noticed_where_there_is_a_picture_to_see(stage) -> None:
    config = PretrainedConfig(image_model=str(stage.model))
    stage(["gone.png", None])
    assert fingerprints(config, stage.prepared) == {}
    stage(["gone.png", picture("red")])
    known = fingerprints(config, stage.prepared)
    assert list(known) == ["image_model"]
    assert not replaced(config, known)
    tiny_vit(stage.model, seed=1)
    assert replaced(config, known)
    assert fingerprints(config, stage.prepared) != known


def test_a_catalogue_whose_pictures_are_all_lost_needs_no_model(stage) -> None:
    figures, found = stage(["gone.png", None], image_model="no-one/has-this")
    assert (figures["dim"], figures["with_image"], figures["unreadable"]) == (0, 0, 1)
    assert found.image.shape == (2, 0)
    assert not found.has_image.any()


def test_without_the_list_of_pictures_an_image_column_is_refused(stage) -> None:
    stage([picture("red")])
    (stage.prepared / PICTURES).unlink()
    with pytest.raises(InputError, match=r"pictures\.parquet is missing"):
        load_pretrained(PretrainedConfig(image_model=str(stage.model)), stage.prepared, stage.folder, stage.folder)


def test_a_catalogue_without_image_columns_has_no_files_of_pictures(tmp_path: Path) -> None:
    pd.DataFrame({"item_id": ["a"], "text": pd.Series([None], dtype="str")}).to_parquet(tmp_path / "items.parquet")
    assert load_pretrained(PretrainedConfig(image_model="no-one/has-this"), tmp_path, tmp_path, tmp_path)["images"] is None
    assert not list(tmp_path.glob("image_*"))
    assert Vectors.load(tmp_path).image.shape == (1, 0)
