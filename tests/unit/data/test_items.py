from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from nightloom.data.preparation.items import FeatureSpec, ItemFeatures, compose_text

KINDS = {"title": "text", "genres": "tags", "made_in": "category", "year": "number", "shelf": "ignore"}
ITEMS = pd.DataFrame(
    {
        "item_id": ["1", "2", "3"],
        "title": ["Toy Story (1995). ", None, None],
        "genres": ["Animation|Comedy", "Comedy| Comedy|", None],
        "made_in": ["US", "FR", None],
        "year": [1990.0, 2000.0, np.nan],
        "shelf": ["x", "y", "z"],
    }
)


def values(spec: FeatureSpec, features: ItemFeatures, row: int) -> list[tuple[str, str]]:
    return [spec.describe()[code] for code in features.codes[features.offsets[row] : features.offsets[row + 1]]]


def test_codes_share_one_space_and_say_what_they_mean() -> None:
    spec = FeatureSpec.fit(ITEMS, KINDS)
    features = spec.encode(ITEMS)
    assert features.n_codes == spec.n_codes == 4
    assert values(spec, features, 0) == [("genres", "Animation"), ("genres", "Comedy"), ("made_in", "US")]
    assert values(spec, features, 1) == [("genres", "Comedy"), ("made_in", "FR")]
    assert values(spec, features, 2) == []
    assert (features.offsets.dtype, features.codes.dtype, features.numbers.dtype) == (np.int64, np.int32, np.float32)


def test_numbers_are_standardised_and_missing_is_zero() -> None:
    features = FeatureSpec.fit(ITEMS, KINDS).encode(ITEMS)
    assert features.numbers[:, 0].tolist() == [-1, 1, 0]
    assert features.numbers_known[:, 0].tolist() == [True, True, False]


def test_a_constant_or_empty_number_column_stays_finite() -> None:
    frame = pd.DataFrame({"same": [3.0, 3.0], "none": [np.nan, np.nan], "odd": [np.inf, 1.0]})
    features = FeatureSpec.fit(frame, dict.fromkeys(frame, "number")).encode(frame)
    assert features.numbers.tolist() == [[0, 0, 0], [0, 0, 0]]
    assert features.numbers_known.tolist() == [[True, False, False], [True, False, True]]


def test_a_later_item_is_coded_the_same_after_reading_back(tmp_path: Path) -> None:
    FeatureSpec.fit(ITEMS, KINDS).save(tmp_path / "spec.json")
    spec = FeatureSpec.load(tmp_path / "spec.json")
    assert spec == FeatureSpec.fit(ITEMS, KINDS)
    later = pd.DataFrame({"genres": ["Western|Comedy"], "year": [2005]}, index=[17])  # an unknown value, no made_in
    features = spec.encode(later)
    assert values(spec, features, 0) == [("genres", "Comedy")]
    assert features.numbers.tolist() == [[2]]


def test_features_read_back_equal_without_pickles(tmp_path: Path) -> None:
    features = FeatureSpec.fit(ITEMS, KINDS).encode(ITEMS)
    features.save(tmp_path / "features.npz")
    back = ItemFeatures.load(tmp_path / "features.npz")
    assert len(back) == 3
    assert back.n_codes == features.n_codes
    for name in ("offsets", "codes", "numbers", "numbers_known"):
        np.testing.assert_array_equal(getattr(back, name), getattr(features, name))


def test_items_without_described_columns() -> None:
    features = FeatureSpec.fit(ITEMS[["item_id"]], {}).encode(ITEMS[["item_id"]])
    assert features.offsets.tolist() == [0, 0, 0, 0]
    assert features.numbers.shape == (3, 0)


def test_tags_may_be_lists() -> None:
    lists = ITEMS.assign(genres=[["Comedy", "Animation"], np.array(["Comedy"], dtype=object), None])
    np.testing.assert_array_equal(FeatureSpec.fit(lists, KINDS).encode(lists).codes, FeatureSpec.fit(ITEMS, KINDS).encode(ITEMS).codes)


def test_text_is_columns_then_attributes_in_words() -> None:
    text = compose_text(ITEMS, KINDS)
    assert text[0] == "Toy Story (1995). genres: Animation, Comedy. made in: US"
    assert text[1] == "genres: Comedy. made in: FR"
    assert text.isna().tolist() == [False, False, True]
