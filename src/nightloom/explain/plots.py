"""Figures of the reasons as PNG files. Blue counts for the item, red against it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nightloom.core.fonts import drawable, with_fonts
from nightloom.explain.reasons import Reason

FOR, AGAINST, FIELD = "#0072B2", "#D55E00", "#E69F00"
SHOWN = 12
"""Most bars of events, and of fields."""
LONGEST = 44
"""Most letters of a label."""


@with_fonts()
def recommendation(path: Path, title: str, reasons: Sequence[Reason]) -> None:
    """One recommendation: a bar for each event that counts most and for each field, with standard errors.

    Args:
        path: PNG file to write.
        title: above the figure.
        reasons: of one recommendation.
    """
    from matplotlib.figure import Figure

    kinds = [
        (heading, sorted((reason for reason in reasons if reason.kind == kind), key=lambda reason: abs(reason.value))[-SHOWN:])
        for kind, heading in (("event", "Events of the history"), ("field", "Fields of the item"))
    ]
    heights = [len(bars) + 0.8 for _, bars in kinds]
    figure = Figure(figsize=(7.2, 0.3 * sum(heights) + 1.4), layout="constrained")
    figure.suptitle(_short(title), x=0.01, ha="left", fontsize=11, fontweight="bold")
    for axis, (heading, bars) in zip(np.atleast_1d(figure.subplots(len(kinds), 1, height_ratios=heights)), kinds, strict=True):
        values = [bar.value for bar in bars]
        axis.barh(
            range(len(bars)),
            values,
            xerr=[bar.error for bar in bars],
            color=[FOR if value >= 0 else AGAINST for value in values],
            error_kw={"ecolor": "#555555", "elinewidth": 1},
        )
        axis.set_yticks(range(len(bars)), [_label(bar, row) for row, bar in enumerate(bars)], fontsize=8.5)
        axis.axvline(0, color="#333333", linewidth=0.8)
        axis.set_title(heading, loc="left", fontsize=9, color="#555555")
        _plain(axis)
    axis.set_xlabel("Shapley value (logarithm of the item's probability)", fontsize=8.5)
    figure.savefig(path, dpi=130)


@with_fonts()
def summary(path: Path, recommendations: Sequence[Sequence[Reason]]) -> None:
    """Over the sample: the mean share of each field, and of the events at each position of the history.

    Args:
        path: PNG file to write.
        recommendations: the reasons of each.
    """
    from matplotlib.figure import Figure

    everything = [reason for reasons in recommendations for reason in reasons]
    n = len(recommendations)
    by_field: dict[str, float] = {}
    for reason in everything:
        if reason.kind == "field":
            by_field[reason.player] = by_field.get(reason.player, 0.0) + abs(reason.share) / n
    newest = max((reason.position or 0 for reason in everything), default=0)
    ages = np.zeros(newest + any(reason.player == "older" and reason.kind == "event" for reason in everything))
    for reason in everything:
        if reason.kind == "event":
            ages[newest if reason.position is None else reason.position - 1] += abs(reason.share) / n

    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.5])
    names = sorted(by_field, key=by_field.__getitem__)
    left.barh(
        [_short(drawable(name.replace("_", " "), f"field {row}"), 22) for row, name in enumerate(names, start=1)],
        [100 * by_field[name] for name in names],
        color=FIELD,
    )
    left.set_title("Fields of the item", loc="left", fontsize=10)
    right.bar(range(len(ages)), 100 * ages, color=[FOR] * newest + ["#999999"] * (len(ages) - newest))
    marks = [at for at in range(newest) if at == 0 or ((at + 1) % 5 == 0 and at + 1 < newest)]
    right.set_xticks([*marks, *range(newest, len(ages))], [*(str(at + 1) for at in marks), *["older"] * (len(ages) - newest)])
    right.set_title("Events, from the latest on", loc="left", fontsize=10)
    for axis, name in ((left, "xaxis"), (right, "yaxis")):
        getattr(axis, name).set_major_formatter(lambda value, _: f"{value:g} %")
        _plain(axis)
    figure.suptitle(f"Mean share of |Shapley value| over {n} recommendations", x=0.01, ha="left", fontsize=11, fontweight="bold")
    figure.savefig(path, dpi=130)


def _label(bar: Reason, row: int) -> str:
    """The label of a bar; its id or field where no font here can draw the label."""
    return _short(
        drawable(bar.label, bar.player.replace("_", " "), f"event {bar.position}, 1 the latest" if bar.position else f"field {row + 1}")
    )


def _short(text: str, most: int = LONGEST) -> str:
    """A label that fits, without a sign that would start a formula."""
    text = text if len(text) <= most else text[: most - 1].rstrip() + "…"
    return text.replace("$", r"\$")


def _plain(axis) -> None:  # type: ignore[no-untyped-def]  # matplotlib is skipped by mypy
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(length=0, labelsize=8.5)
