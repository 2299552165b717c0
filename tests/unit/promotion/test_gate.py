"""The gate: what promotes, what does not, and what it says."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightloom.config import PromotionConfig
from nightloom.evaluation.score_interval import holm, loss_p_value
from nightloom.promotion.comparison import Pair
from nightloom.promotion.gate import Decision, decide
from nightloom.promotion.gate_words import FEWEST_USERS

FAST = {"resamples": 200}
ranks = st.lists(st.one_of(st.none(), st.integers(1, 15)), min_size=FEWEST_USERS, max_size=40)


def rows(per_user: list[int | None], slices: list[str] | None = None) -> pd.DataFrame:
    """One held-out item a user."""
    frame = pd.DataFrame(
        {"user_id": [f"u{user:04}" for user in range(len(per_user))], "item_id": "i", "family": "x", "protocol": "temporal"}
    )
    frame["rank"] = pd.array(per_user, dtype="Int32")
    frame["slices"] = slices or ""
    return frame


def gate(
    challenger: list[int | None], champion: list[int | None] | None, baselines: dict[str, list[int | None]] | None = None, **config: Any
) -> Decision:
    against = None if champion is None else rows(champion)
    return decide(
        rows(challenger), against, {name: rows(one) for name, one in (baselines or {}).items()}, PromotionConfig(**(FAST | config))
    )


def test_a_better_challenger_is_promoted_and_called_superior() -> None:
    found = gate([1] * 80 + [3] * 20, [2] * 100)
    assert found.decision == "promote"
    assert found.superior
    assert found.users == 100
    assert found.challenger is not None
    assert found.champion is not None
    assert found.difference == pytest.approx(found.challenger - found.champion)
    assert any("superior" in reason for reason in found.reasons)
    assert found.reasons[0].startswith(
        "ndcg_at_10 0.9000 against 0.6309 of the champion on the same 100 held-out users: difference +0.2691"
    )


@pytest.mark.parametrize("champion", [None, 20], ids=["first", "against a champion"])
def test_a_handful_of_users_decides_nothing(champion: int | None) -> None:
    for users in (1, FEWEST_USERS - 1):
        found = gate([1] * users, None if champion is None else [champion] * users, {"popularity": [9] * users})
        assert found.decision == "reject"
        assert found.challenger == 1.0
        assert found.reasons[0].startswith(f"Only {users} held-out user{'s' if users > 1 else ''} can be judged by, and fewer than 6 say")
    enough = gate([1] * FEWEST_USERS, None if champion is None else [champion] * FEWEST_USERS, {"popularity": [9] * FEWEST_USERS})
    assert enough.decision == "promote"


def test_a_worse_challenger_is_rejected_with_figures() -> None:
    found = gate([2] * 100, [1] * 100)
    assert found.decision == "reject"
    assert found.reasons[0] == (
        "The challenger may be worse than the margin allows: the interval's lower end -0.4004 is below -0.0200 "
        "(2.0% of the champion's 1.0000)."
    )


def test_a_challenger_that_might_be_worse_is_rejected_even_with_an_equal_mean() -> None:
    mixed: list[int | None] = [1, None] * 20
    assert gate(mixed, mixed[::-1]).difference == 0
    assert gate(mixed, mixed[::-1]).decision == "reject"
    assert gate(mixed, mixed[::-1], margin=0.9).decision == "promote"


@given(ranks, st.floats(0, 0.5))
@settings(max_examples=40, deadline=None)
def test_a_challenger_worse_for_every_user_beyond_the_margin_never_passes(champion: list[int | None], margin: float) -> None:
    standing = [rank if rank and rank <= 4 else 1 for rank in champion]  # ndcg of at least .43
    assert gate([rank + 7 if rank > 3 else None for rank in standing], standing, margin=margin).decision == "reject"


@given(ranks, st.sampled_from([0.0, 0.02]))
@settings(max_examples=40, deadline=None)
def test_an_identical_challenger_passes_with_difference_zero(both: list[int | None], margin: float) -> None:
    both[0] = 1
    found = gate(both, both, margin=margin)
    assert (found.decision, found.difference, found.interval, found.superior) == ("promote", 0, (0, 0), False)


@given(ranks, st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_it_depends_on_the_rows_alone_not_on_their_order(one: list[int | None], random) -> None:
    one[0] = 2
    other = random.sample(one, len(one))
    challenger, champion = rows(one, ["a|b" if user % 2 else "a" for user in range(len(one))]), rows(other)
    config = PromotionConfig(**FAST, min_slice_users=5)
    first = decide(challenger, champion, {"f": champion}, config)
    order = random.sample(range(len(one)), len(one))
    assert decide(challenger.iloc[order], champion.iloc[order[::-1]], {"f": champion.iloc[order]}, config) == first


@given(ranks, st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_swapping_the_roles_negates_the_difference(one: list[int | None], random) -> None:
    one[0] = 2
    other = random.sample(one, len(one))
    there, back = gate(one, other), gate(other, one)
    assert there.difference == pytest.approx(-back.difference)  # type: ignore[operator]  # both have a champion
    assert there.interval == pytest.approx((-back.interval[1], -back.interval[0]))  # type: ignore[index]


def test_a_slice_that_lost_much_vetoes_although_the_whole_gained() -> None:
    new = ["new users"] * 80 + ["returning users"] * 320
    challenger, champion = rows([3] * 80 + [1] * 320, new), rows([1] * 80 + [2] * 320, new)
    found = decide(challenger, champion, {}, PromotionConfig(**FAST))
    assert found.superior
    assert found.decision == "reject"
    assert found.guards == ("new users",)
    assert found.reasons[0].startswith("Slice 'new users' (80 users) lost 50.0% (0.5000 against 1.0000), more than the 10% allowed")
    few = decide(challenger[65:], champion[65:], {}, PromotionConfig(**FAST))  # 15 users would hardly show the loss of a fifth
    assert few.decision == "promote"
    assert [(one.name, one.guards) for one in few.slices] == [("new users", False), ("returning users", True)]
    assert decide(challenger, champion, {}, PromotionConfig(**FAST, slice_margin=0.51)).decision == "promote"


def test_a_slice_that_lost_by_chance_does_not_veto() -> None:
    random = np.random.default_rng(1)
    champion = random.permutation([1, None] * 30).tolist()
    challenger = champion.copy()
    challenger[champion.index(1)] = None
    challenger[champion.index(None)] = 10  # the slice loses a little, more than nothing, in an interval around zero
    found = decide(
        rows(challenger + [1] * 500, ["s"] * 60 + [""] * 500), rows(champion + [2] * 500), {}, PromotionConfig(**FAST, slice_margin=0)
    )
    assert found.slices[0].difference < 0 < found.slices[0].high
    assert found.decision == "promote"


def test_slices_of_items_guard_too() -> None:
    """Each user has a head and a tail item; the tail is lost."""
    head, tail = rows([1] * 80).assign(item_slice="head items"), rows([2] * 80).assign(item_slice="tail items", item_id="j")
    champion = pd.concat([head.assign(rank=pd.array([4] * 80, dtype="Int32")), tail])
    challenger = pd.concat([head, tail.assign(rank=pd.array([9] * 80, dtype="Int32"))])
    found = decide(challenger, champion, {}, PromotionConfig(**FAST, margin=0.5))
    assert found.guards == ("tail items",)
    assert found.decision == "reject"


def test_the_first_champion_must_match_every_baseline() -> None:
    baselines: dict[str, list[int | None]] = {"popularity": [9] * 50, "graph": [1] * 50}
    found = gate([2] * 50, None, baselines)
    assert found.decision == "reject"
    assert found.guards == ("graph",)
    assert found.reasons[0].startswith("Baseline 'graph' is not matched: 0.6309 against 1.0000, difference -0.3691")
    assert found.difference is found.interval is found.champion is None
    assert [one.name for one in found.baselines] == ["graph", "popularity"]
    assert gate([2] * 50, None, baselines, must_beat_baselines=False).decision == "promote"
    assert gate([1] * 50, None, baselines).decision == "promote"
    assert gate([1] * 50, None).decision == "promote"


def test_baselines_guard_where_a_champion_stands_too() -> None:
    found = gate([2] * 50, [2] * 50, {"graph": [1] * 50})
    assert (found.decision, found.guards) == ("reject", ("graph",))
    assert "Baseline 'graph' is better: 0.6309 against 1.0000" in found.reasons[0]
    assert gate([2] * 50, [2] * 50, {"graph": [1] * 50}, must_beat_baselines=False).decision == "promote"
    assert gate([2] * 50, [2] * 50, {"graph": [1] * 2 + [2] * 48}).decision == "promote"  # which may be chance


def test_losses_that_the_margin_allows_do_not_add_up() -> None:
    """Each night's challenger is worse than its champion by less than the margin, and the third one by too much in all."""
    nights = [[1] * (2000 - lost) + [None] * lost for lost in (0, 20, 40, 60)]
    best = rows(nights[0])
    config = PromotionConfig(**FAST)
    found = [decide(rows(challenger), rows(champion), {}, config, anchor=best) for champion, challenger in itertools.pairwise(nights)]
    assert [one.decision for one in found] == ["promote", "promote", "reject"]
    assert found[2].guards == ("anchor",)
    assert found[2].reasons[0].startswith("Losses would add up: against the best model of before (0.9700 against 1.0000)")
    assert [one.moves_anchor for one in found] == [False, False, False]
    assert decide(rows(nights[3]), rows(nights[2]), {}, config).decision == "promote"


def test_only_a_superior_challenger_becomes_the_anchor() -> None:
    config = PromotionConfig(**FAST)
    weak, strong = rows([3] * 100), rows([1] * 100)
    assert decide(strong, weak, {}, config).moves_anchor
    assert decide(weak, None, {}, config).moves_anchor
    assert not decide(weak, weak, {}, config).moves_anchor
    assert not decide(rows([3] * 99 + [1]), weak, {}, config, anchor=strong).moves_anchor


def test_where_few_users_differ_what_was_not_seen_may_still_be() -> None:
    """Two of a hundred users lost their hit: the percentile interval ends at the six that a draw of users can hold at most."""
    found = gate([None] * 2 + [1] * 98, [1] * 100, margin=0.06)
    assert found.decision == "reject"
    assert found.interval is not None
    assert found.interval[0] < -0.06
    unseen = gate([1] * 30 + [12] * 70, [1] * 30 + [11] * 70)  # the same hits, by another model
    assert (unseen.decision, unseen.difference) == ("reject", 0)


@given(st.integers(0, 20))
@settings(max_examples=20, deadline=None)
def test_a_mirrored_randomisation_test_sums_to_one_and_the_outcome(seed: int) -> None:
    apart = np.random.default_rng(seed).normal(size=9)
    assert loss_p_value(apart) + loss_p_value(-apart) == pytest.approx(1 + 2 / 2**9, abs=1.5 / 2**9)
    assert loss_p_value(np.zeros(5)) == 1


def test_holm_stops_at_the_first_that_stands() -> None:
    assert holm([0.04, 0.001, 0.02], 0.05) == [True, True, True]
    assert holm([0.04, 0.001, 0.03], 0.05) == [False, True, False]
    assert holm([], 0.05) == []


def test_nights_of_few_users_are_pooled_each_user_once() -> None:
    random = np.random.default_rng(3)

    def night(first: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        champion = random.choice([1, 2, 12], 400)
        challenger = np.where(random.random(400) < 0.1, random.choice([1, 1, 2, 12], 400), champion)
        frames = [rows([int(rank) for rank in ranks]) for ranks in (challenger, champion)]
        names = [f"u{first + user}" for user in range(400)]
        return frames[0].assign(user_id=names), frames[1].assign(user_id=names)

    nights = [night(300 * number) for number in range(9)]  # 100 users come again the next night
    earlier = [{"challenger": mine, "champion": its} for mine, its in nights[1:]]
    config = PromotionConfig(**FAST)
    alone, pooled = (decide(*nights[0], {}, config, earlier=before) for before in ((), earlier))
    assert (alone.users, alone.nights) == (400, 1)
    assert pooled.users == 400 + 300 * (pooled.nights - 1)
    assert 1 < pooled.nights <= 7
    assert alone.equal_passes < 0.5  # type: ignore[operator]  # there is a champion
    assert pooled.equal_passes > alone.equal_passes  # type: ignore[operator]
    assert pooled.smallest_loss < alone.smallest_loss  # type: ignore[operator]
    assert any("are pooled" in reason for reason in pooled.reasons)
    assert any("That is little" in reason for reason in alone.reasons)


@pytest.mark.parametrize("champion", [None, [1, 2]])
def test_what_can_not_be_judged_is_rejected(champion: list[int | None] | None) -> None:
    assert "no held-out users" in gate([], champion).reasons[0]
    unrankable = gate([None, None], champion)
    assert unrankable.decision == "reject"
    assert "could rank none of the 2 held-out items" in unrankable.reasons[0]
    standing = None if champion is None else rows(champion)
    for broken in (np.inf, 0.0, -3.0):
        found = decide(rows([1, 2]).assign(rank=[1.0, broken]), standing, {}, PromotionConfig(**FAST))
        assert found.decision == "reject"
        assert "not whole numbers" in found.reasons[0]


def test_only_shared_users_count() -> None:
    found = gate([1] * 40, [1] * 35)
    assert found.users == 35
    assert any(reason.startswith("5 of the challenger's 40 held-out users have no lists") for reason in found.reasons)
    strangers = decide(rows([1, 2]), rows([1, 2]).assign(user_id=["x", "y"]), {}, PromotionConfig(**FAST))
    assert strangers.decision == "reject"
    assert "share no held-out user" in strangers.reasons[0]


def test_results_of_several_families_are_rejected() -> None:
    mixed = pd.concat([rows([1, 2]), rows([1, 2]).assign(family="y")])
    for champion in (None, rows([1, 2])):
        found = decide(mixed, champion, {}, PromotionConfig(**FAST))
        assert found.decision == "reject"
        assert "can not be compared" in found.reasons[0]


def test_few_users_are_pointed_out_and_the_mode_is_carried() -> None:
    found = gate([1] * 3, [1] * 3, mode="dry_run")
    assert found.mode == "dry_run"
    assert "With only 3 held-out users the interval is rough." in found.reasons


def test_of_users_with_many_events_all_count_and_are_named() -> None:
    """One user of forty has half of all events, on which the challenger lost: over users it gained, over events it may have lost."""
    users = [0] * 40 + list(range(1, 41))
    frame = rows([1] * 40 + [2] * 40).assign(user_id=[f"u{user}" for user in users], query=list(range(40)) + [0] * 40)
    champion = frame.assign(rank=pd.array([1] * 80, dtype="Int32"))
    challenger = frame.assign(rank=pd.array([3] * 40 + [1] * 40, dtype="Int32"))
    found = decide(challenger, champion, {}, PromotionConfig(**FAST))
    assert (found.users, found.queries) == (41, 80)
    assert found.challenger == pytest.approx(0.75)
    assert found.difference == pytest.approx(-0.25)
    assert "on the same 80 events of 41 users" in " ".join(found.reasons)
    alone = decide(challenger, None, {"graph": champion}, PromotionConfig(**FAST))
    assert "0.7500 on 80 events of 41 users." in " ".join(alone.reasons)


@given(st.lists(st.integers(1, 6), min_size=3, max_size=12), st.integers(1, 5), st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_pooled_nights_weigh_by_their_events(many: list[int], factor: int, seed: int) -> None:
    random = np.random.default_rng(seed)

    def night(name: str, counts: list[int]) -> tuple[pd.DataFrame, pd.DataFrame]:
        users = [f"{name}{user}" for user, events in enumerate(counts) for _ in range(events)]
        queries = [place for events in counts for place in range(events)]
        frame = rows([1] * len(users)).assign(user_id=users, query=queries)
        return tuple(frame.assign(rank=pd.array(random.integers(1, 15, len(users)), dtype="Int32")) for _ in range(2))  # type: ignore[return-value]

    tonight, before = night("a", many), night("b", [factor * one for one in many])
    pooled = Pair.of(*tonight, "ndcg_at_10").with_earlier(Pair.of(*before, "ndcg_at_10"))
    together = Pair.of(*(pd.concat(one, ignore_index=True) for one in zip(tonight, before, strict=True)), "ndcg_at_10")
    assert pooled.nights == 2
    np.testing.assert_array_equal(pooled.queries, together.queries)
    np.testing.assert_allclose(pooled.mine, together.mine, atol=1e-12)
    np.testing.assert_allclose(pooled.its, together.its, atol=1e-12)
