"""A warm start keeps what the champion knows and never learns from what tonight holds out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from nightloom.data.preparation.items import FeatureSpec
from nightloom.models.sequential.content_fusion import ItemContent
from nightloom.models.sequential.network import SequentialNetwork, Shape
from nightloom.training.remap_weights import Known, remap
from nightloom.training.warm_start import ColdStart, WarmStart, check_cutoffs, settings_of

EVENT_TYPES = {"fruit": "category", "price": "number"}


def catalogue(rows: list[tuple[str, str, float | None]]) -> tuple[pd.DataFrame, Known]:
    table = pd.DataFrame(rows, columns=["item_id", "fruit", "price"])
    return table, Known(table["item_id"].to_numpy(dtype=object), FeatureSpec.fit(table, EVENT_TYPES), ["buy"])


def test_items_known_to_both_keep_their_vectors(settings) -> None:
    """Other order, a new item, a new value, other prices (so another mean and spread), one of them missing."""
    old, before = catalogue([("a", "apple", 1.0), ("b", "pear", 5.0), ("c", "plum", None), ("d", "apple", 9.0)])
    new, tonight = catalogue([("new", "kiwi", 40.0), ("c", "plum", None), ("a", "apple", 1.0), ("b", "pear", 5.0), ("d", "apple", 9.0)])
    config, random = settings().model, np.random.default_rng(0)
    texts = {item: random.normal(size=6).astype(np.float32) for item in new["item_id"]}

    def build(table: pd.DataFrame, known: Known, rows: np.ndarray) -> tuple[SequentialNetwork, ItemContent]:
        text = np.stack([texts[item] for item in table["item_id"]])
        content = ItemContent.build(known.spec.encode(table), text, np.ones(len(table), dtype=bool), rows)
        return SequentialNetwork(config, Shape(6, known.spec.n_codes, content.numbers.shape[1], int(rows.max()), 1, True)), content

    torch.manual_seed(0)
    net, content = build(old, before, np.array([1, 2, 0, 3]))
    net.fusion.whiten.fit(content.text)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter)
    remapped = remap(net.state_dict(), content.id_rows, before, tonight)
    seen = np.array([0, 2, 3, 4])  # c has no id of its own, as before
    rows = np.zeros(5, dtype=np.int64)
    rows[seen] = np.arange(1, 5)
    other, other_content = build(new, tonight, rows)
    WarmStart({f"search.{name}": value for name, value in remapped.items()}).into(other, 0, seen)
    with torch.no_grad():
        was, now = net.fusion(content), other.fusion(other_content)
    where = {item: row for row, item in enumerate(new["item_id"])}
    torch.testing.assert_close(now[[where[item] for item in old["item_id"]]], was, rtol=1e-4, atol=1e-5)
    assert torch.isfinite(now).all()
    torch.testing.assert_close(other.fusion.ids.weight[1], net.fusion.ids.weight[0])  # the new item starts unknown


def meta(validation: int, test: int, *, until: int | None = None, has_time: bool = True) -> dict:
    cutoffs = {"temporal": {"validation": validation, "test": test}}
    return {"has_time": has_time, "cutoffs": cutoffs, "trained_until": {"temporal": test - 1 if until is None else until}}


def test_a_champion_of_an_earlier_night_may_be_used() -> None:
    check_cutoffs(meta(80, 100), meta(90, 110), "temporal")


@pytest.mark.parametrize(
    ("champion", "protocol", "reason"),
    [
        (meta(80, 120), "temporal", "tonight's test begins"),
        (meta(80, 100, until=110), "temporal", "tonight's test begins"),
        (meta(95, 100), "temporal", "tonight's validation begins"),
        (meta(80, 100, has_time=False), "temporal", "without timestamps"),
        (meta(80, 100), "leave_one_out", "leave-one-out"),
        ({"has_time": True}, "temporal", "does not say"),
    ],
)
def test_a_champion_that_has_seen_what_is_held_out_is_not_used(champion: dict, protocol: str, reason: str) -> None:
    with pytest.raises(ColdStart, match=reason):
        check_cutoffs(champion, meta(90, 110), protocol)


def test_labels_and_widths_count_as_settings_and_rates_do_not(settings) -> None:
    base = settings().model_dump(mode="json")
    assert settings_of(base) == settings_of(settings(learning_rate=0.5, epochs=1).model_dump(mode="json"))
    assert settings_of(base) != settings_of(settings(model={"dim": 32}).model_dump(mode="json"))
