"""The watch over nights: divergences, daily signals, when they ring, and the page."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightloom.core.divergence import jensen_shannon, psi
from nightloom.core.errors import InputError
from nightloom.monitoring.alarms import FEWEST, NEEDED, judge
from nightloom.monitoring.course import SILENCE, backfills, costs, past_nights, silent
from nightloom.monitoring.days import signals
from nightloom.monitoring.page import render
from nightloom.monitoring.watch import Found, Watched

COUNTS = st.lists(st.integers(0, 10_000), min_size=3, max_size=3)
START = pd.Timestamp("2026-01-05", tz="UTC")


@given(COUNTS, COUNTS)
def test_divergences_are_symmetric_and_zero_for_equal_shares(one: list[int], other: list[int]) -> None:
    for distance in (psi, jensen_shannon):
        assert distance(one, other) == pytest.approx(distance(other, one), abs=1e-12)
        assert distance(one, other) >= -1e-12
        assert distance(one, one) == pytest.approx(0, abs=1e-12)
    assert jensen_shannon(one, other) <= 1 + 1e-9


def test_divergences_of_known_shares() -> None:
    many = 10**9  # the prior is nothing against it
    assert psi([many, many], [many, 3 * many]) == pytest.approx(0.25 * np.log(3), rel=1e-6)
    assert jensen_shannon([many, 0], [0, many]) == pytest.approx(1, abs=1e-6)


def events(days: int, a_day: int, seed: int = 0) -> pd.DataFrame:
    """Days of events on fifty items, popular ones first, none of which is new after the first days."""
    random = np.random.default_rng(seed)
    many = days * a_day
    seconds = np.repeat(np.arange(days), a_day) * 86_400 + random.integers(0, 86_400, many)
    return pd.DataFrame(
        {
            "user_id": [f"u{user}" for user in random.integers(0, 200, many)],
            "item_id": [f"i{item}" for item in np.minimum(random.geometric(0.1, many), 50)],
            "timestamp": START + pd.to_timedelta(seconds, unit="s"),
        }
    ).sort_values("timestamp", ignore_index=True)


def told(frame: pd.DataFrame, positive: np.ndarray | None = None) -> dict[str, np.ndarray]:
    labels = np.ones(len(frame), bool) if positive is None else positive
    return {one.name: one.values for one in signals(frame, labels)[1]}


def test_a_quiet_feed_does_not_ring_and_a_change_of_each_kind_does() -> None:
    quiet = events(60, 400)
    labels = np.random.default_rng(1).random(len(quiet)) < 0.6
    for name, values in told(quiet, labels).items():
        assert not judge(values, weekly=name in ("events", "users")).rings, name

    late = quiet["timestamp"] >= START + pd.Timedelta(days=56)
    fewer = told(quiet[~late | (np.arange(len(quiet)) % 8 == 0)])
    assert judge(fewer["events"], weekly=True).rings
    renamed = quiet.assign(item_id=quiet["item_id"].where(~late, quiet["item_id"] + "-" + quiet["timestamp"].dt.day.astype(str)))
    assert judge(told(renamed)["new items"]).rings
    assert judge(told(quiet, labels & ~late.to_numpy())["positive"]).rings
    turned = quiet.assign(item_id=quiet["item_id"].where(~late, "i50"))
    assert judge(told(turned)["popularity"], rises=True).rings
    nightly = quiet.assign(timestamp=quiet["timestamp"].where(~late, quiet["timestamp"].dt.floor("D") + pd.Timedelta(hours=3)))
    assert judge(told(nightly)["hours"], rises=True).rings


def test_the_day_that_is_not_over_does_not_count() -> None:
    frame = events(40, 100)
    begun = frame[frame["timestamp"] < START + pd.Timedelta(days=39, hours=2)]
    days, found = signals(begun, np.ones(len(begun), bool))
    assert days[-1] == (START + pd.Timedelta(days=38)).timestamp() // 86_400
    assert found[0].values[-1] == 100


def test_figures_know_nothing_of_later_days() -> None:
    frame = events(50, 100)
    whole = dict(zip(signals(frame, np.ones(len(frame), bool))[0].tolist(), told(frame)["popularity"], strict=True))
    early = frame[frame["timestamp"] < START + pd.Timedelta(days=45)]
    for day, value in zip(signals(early, np.ones(len(early), bool))[0].tolist(), told(early)["popularity"], strict=True):
        assert whole.get(day, value) == pytest.approx(value, nan_ok=True)


def test_one_strange_day_does_not_ring_and_neither_does_one_that_is_over() -> None:
    usual = np.random.default_rng(2).normal(10, 1, 40)
    assert NEEDED == 2
    assert not judge(np.append(usual, 30)).rings
    assert judge(np.append(usual, [30, 31])).rings
    assert not judge(np.append(usual, [30, 31, 10])).rings
    assert not judge(np.append(usual, [-30, -31]), rises=True).rings
    assert not judge(np.append(usual[: FEWEST - 1], [30, 31])).rings  # too few to know what is usual
    assert np.isnan(judge(usual[:3]).usual)


def test_a_weekly_swing_is_usual_and_a_quiet_week_is_not() -> None:
    random = np.random.default_rng(3)
    week = np.where(np.arange(42) % 7 >= 5, 300, 1000) * np.exp(random.normal(0, 0.05, 42))
    for end in range(36, 43):
        assert not judge(week[:end], weekly=True).rings
    quiet = week.copy()
    quiet[-2:] = 300 / 3
    assert judge(quiet, weekly=True).rings


def report(root: Path, night: str, finished: datetime, **more: Any) -> None:
    folder = root / "nights" / "shop" / night
    folder.mkdir(parents=True)
    said = {
        "night": night,
        "finished": finished.isoformat(),
        "outcome": "promoted",
        "protocols": ["streaming"],
        "model": "nightloom",
        "gate": {"metric": "ndcg_at_10"},
        "metrics": {"nightloom": {"streaming": {"ndcg_at_10": 0.1}}},
        "quarantined": {"events": 3, "items": 1},
        "stages": {
            "prepare": {"seconds": 2.0, "peak_mb": 100.0, "cpu_seconds": 3.6, "status": "done"},
            "collect": {"seconds": 0.0, "peak_mb": None, "status": "reused"},
        },
    }
    (folder / "report.json").write_text(json.dumps(said | more), encoding="utf-8")


def test_nights_are_read_and_a_missing_one_is_told(tmp_path: Path) -> None:
    now = datetime(2026, 11, 30, 8, tzinfo=UTC)
    for day in (3, 2, 1):
        report(tmp_path, f"2026112{9 - day}-020000", now - timedelta(days=day))
    said = tmp_path / "nights" / "shop" / "20261127-020000" / "manifests"
    said.mkdir()
    (said / "evaluate.json").write_text(json.dumps({"figures": {"rivals": {"champion": {"knows_share": 0.9}}}}))
    (tmp_path / "nights" / "shop" / "latest").symlink_to("20261128-020000")
    nights = past_nights(tmp_path, "shop")
    assert [one.night for one in nights] == ["20261126-020000", "20261127-020000", "20261128-020000"]
    assert nights[0].quality == 0.1
    assert [one.known for one in nights] == [None, 0.9, None]
    assert nights[0].quarantined == 4
    said = {"stage": "prepare", "seconds": 2.0, "usual": 2.0, "peak_mb": 100.0, "usual_mb": 100.0, "cpu_seconds": 3.6, "usual_cpu": 3.6}
    assert costs(nights) == [said | {"watt_hours": 0.01}]  # 3.6 seconds of 10 W
    assert silent(nights, nights[-1].finished + SILENCE) is None
    assert silent(nights, nights[-1].finished + SILENCE + timedelta(hours=1)) == "no night has ended for 27 hours"
    with pytest.raises(InputError, match="Run one first"):
        past_nights(tmp_path, "other")


def test_cpu_seconds_that_a_night_did_not_note_are_left_out_and_shown_as_blank(tmp_path: Path) -> None:
    now = datetime(2026, 11, 30, 8, tzinfo=UTC)
    old = {"prepare": {"seconds": 2.0, "peak_mb": 100.0, "status": "done"}}  # of a version that did not measure it
    report(tmp_path, "20261126-020000", now - timedelta(days=3), stages=old)
    report(tmp_path, "20261127-020000", now - timedelta(days=2))
    report(tmp_path, "20261128-020000", now - timedelta(days=1))
    nights = past_nights(tmp_path, "shop")
    assert costs(nights)[0]["usual_cpu"] == 3.6
    assert costs(nights[:2])[0]["usual_cpu"] is None
    (row,) = costs(nights[:1])
    assert [row[name] for name in ("cpu_seconds", "usual_cpu", "watt_hours")] == [None, None, None]
    page = render(Found("shop", now, [], [], [], nights[:1], nights[:1], [row], []))
    cells = page[page.index('<section id="costs">') : page.index('<section id="calendar">')].partition("<tbody>")[2]
    assert re.findall(r"<td>(.*?)</td>", cells) == ["2.0", "", "100", "", "", "", ""]


def test_the_page_escapes_what_it_shows_and_draws_every_course(tmp_path: Path) -> None:
    now = datetime(2026, 11, 30, 8, tzinfo=UTC)
    report(tmp_path, "20261129-020000", now, outcome="<script>alert(1)</script>")
    report(tmp_path, "as-of-2026-11-01-20261129-030000", now, outcome="backfill", as_of="2026-11-01")
    days, found = signals(events(40, 50), np.ones(2000, bool))
    daily = [Watched(one, judge(one.values)) for one in found]
    nights = past_nights(tmp_path, "shop")
    page = render(
        Found(
            "<b>shop</b>",
            now,
            [str(day) for day in days],
            daily,
            [],
            nights,
            [*backfills(tmp_path, "shop"), *nights],
            costs(nights),
            ["events: 3 <usually> 400"],
        )
    )
    assert "<script>" not in page
    assert "<b>shop" not in page
    assert page.count("<polyline") == len(found)
    assert "1 alarm" in page
    assert [one.as_of for one in nights] == [None], "a night of a past day is shown, and not watched"
    assert "backfill of 2026-11-01" in page
