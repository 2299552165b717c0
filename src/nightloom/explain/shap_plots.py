"""Own estimates as `shap.Explanation`, and shap's plots of them. shap is a library of the night, and is imported here alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightloom.core.files import write_text
from nightloom.core.fonts import drawable, with_fonts
from nightloom.explain.reasons import Reason
from nightloom.explain.shap_library import same_draws, shap_library
from nightloom.explain.shapley import Shapley

SHOWN = 12
"""Most players of a plot."""
LONGEST = 34
"""Most letters of a label."""
LATEST = 12
"""Latest events that the plot over positions tells apart."""
TEXT_PLOT = "shap_text.html"


def to_shap(found: Shapley, names: Sequence[str], data: NDArray[Any] | None = None) -> Any:
    """One game's values as a `shap.Explanation` of one row.

    Args:
        found: the values.
        names: of the players.
        data: what each player is, for plots that show it.
    """
    shap = shap_library()

    shown = None if data is None else np.asarray(data)
    return shap.Explanation(values=found.values, base_values=found.none, data=shown, feature_names=list(names))


def table_to_shap(rows: Sequence[tuple[float, Mapping[str, float]]], names: Sequence[str], data: NDArray[np.float64] | None = None) -> Any:
    """Many games' values as a `shap.Explanation`, a row each; a player that a game lacks adds nothing.

    Args:
        rows: the worth of nobody, and player -> value, of each game.
        names: the columns: players, in order.
        data: float64 [rows, names], what the dots are coloured by; NaN is grey. None: grey.
    """
    shap = shap_library()

    values = np.array([[players.get(name, 0.0) for name in names] for _, players in rows]).reshape(len(rows), len(names))
    shown = np.full(values.shape, np.nan) if data is None else data
    return shap.Explanation(values=values, base_values=np.array([base for base, _ in rows]), data=shown, feature_names=list(names))


@with_fonts()
def draw(
    folder: Path,
    title: str,
    first: Shapley,
    reasons: Sequence[Reason],
    fields: Sequence[tuple[float, Mapping[str, float]]],
    events: Sequence[tuple[float, Mapping[str, float]]],
) -> None:
    """Draw shap's plots into a folder: waterfall, decision and text of one recommendation, beeswarm, bar and heatmap of many.

    Args:
        folder: gets `shap_*.png` and `shap_text.html`.
        title: which recommendation the first three are of.
        first: the events of one recommendation.
        reasons: their labels, in order.
        fields: of each recommendation, the worth without any field, and field -> value.
        events: likewise, of the events by position, 1 the latest.
    """
    import matplotlib as mpl

    mpl.use("agg")  # shap draws by pyplot, which would look for a screen
    shap = shap_library()

    labels = [_label(one, place) for place, one in enumerate(reasons, start=1)]
    one = to_shap(first, labels)
    saved(folder / "shap_waterfall.png", lambda: shap.plots.waterfall(one, max_display=SHOWN, show=False), title)
    saved(
        folder / "shap_decision.png",
        lambda: shap.plots.decision(
            one.base_values, one.values[None], feature_names=labels, feature_display_range=slice(-1, -SHOWN - 1, -1), show=False
        ),
        title,
    )
    words = to_shap(first, labels, np.array([f"{label} · " for label in labels], dtype=object))
    with same_draws():
        write_text(folder / TEXT_PLOT, _text_page(shap.plots.text(words, display=False)))
    if len(fields) > 1:
        names = sorted({name for _, players in fields for name in players})
        table = table_to_shap(fields, [shown_name(name, f"field {at}") for at, name in enumerate(names)])
        table.values = table_to_shap(fields, names).values
        saved(folder / "shap_beeswarm.png", lambda: shap.plots.beeswarm(table, max_display=SHOWN, show=False, color="#0072B2"))
        saved(folder / "shap_bar.png", lambda: shap.plots.bar(table, max_display=SHOWN, show=False))
        saved(folder / "shap_heatmap.png", lambda: shap.plots.heatmap(table, max_display=SHOWN, show=False))
        positions = table_to_shap(events, [str(place) for place in range(1, LATEST + 1)])
        positions.feature_names = [f"event {place}, 1 the latest" if place == 1 else f"event {place}" for place in range(1, LATEST + 1)]
        saved(
            folder / "shap_positions.png",
            lambda: shap.plots.beeswarm(positions, order=np.arange(LATEST), max_display=LATEST, show=False, color="#0072B2"),
        )


def draw_segments(folder: Path, segments: Mapping[str, Sequence[tuple[float, Mapping[str, float]]]]) -> None:
    """Fields by segment of users: `shap_segments.png`, mean sizes, and `shap_segments_fields.png`, dots; nothing without segments.

    Args:
        folder: where to.
        segments: name -> of each recommendation, the worth without any field, and field -> value.
    """
    shap = shap_library()

    if not segments:
        return
    names = sorted({name for rows in segments.values() for _, players in rows for name in players})
    shown = [shown_name(name, f"field {at}") for at, name in enumerate(names, start=1)]
    tables = {segment: table_to_shap(rows, names) for segment, rows in segments.items()}
    for table in tables.values():
        table.feature_names = shown
    saved(folder / "shap_segments.png", lambda: shap.plots.bar(tables, max_display=SHOWN, show=False))
    beeswarms(folder / "shap_segments_fields.png", tables, color="#0072B2")


def beeswarms(path: Path, parts: Mapping[str, Any], color: str | None = None) -> None:
    """One of shap's beeswarms for each of some explanations of the same players, side by side, in the same order; nothing without parts.

    Args:
        path: PNG file to write.
        parts: heading -> `shap.Explanation`.
        color: of all dots; None: by the players' data.
    """
    shap = shap_library()
    from matplotlib import pyplot

    if not parts:
        return
    sizes = np.abs(np.concatenate([one.values for one in parts.values()])).mean(0)

    def plot() -> None:
        shown = min(SHOWN, len(sizes))
        figure, axes = pyplot.subplots(1, len(parts), figsize=(7.5 * len(parts), 0.4 * shown + 1.5), layout="constrained", sharex=True)
        for axis, (heading, one) in zip(np.atleast_1d(axes), parts.items(), strict=True):
            said = {"max_display": shown, "order": np.argsort(-sizes, kind="stable"), "plot_size": None, "color": color, "show": False}
            shap.plots.beeswarm(one, ax=axis, color_bar=color is None and axis is figure.axes[len(parts) - 1], **said)
            axis.set_title(f"{heading} ({len(one.values)})", loc="left", fontsize=11)

    saved(path, plot)


def saved(path: Path, plot: Callable[[], Any], title: str = "") -> None:
    """Draw with pyplot, on a figure of its own where the plot makes none, with a title above it, and close it."""
    from matplotlib import pyplot

    try:
        with same_draws():
            plot()
        if title:
            pyplot.gcf().suptitle(title.replace("$", r"\$"), x=0.02, y=1.0, ha="left", va="bottom", fontsize=12)
        pyplot.gcf().savefig(path, dpi=110, bbox_inches="tight")
    finally:
        pyplot.close("all")


def _text_page(body: str) -> str:
    return f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Events</title></head><body>{body}</body></html>\n'


def shown_name(name: str, otherwise: str) -> str:
    """The name of a column or field that fits a plot; what stands for it where no font here can draw it."""
    return _short(drawable(name.replace("_", " "), otherwise))


def _label(one: Reason, place: int) -> str:
    return _short(drawable(one.label, one.player.replace("_", " "), f"event {place}"))


def _short(text: str) -> str:
    text = text if len(text) <= LONGEST else text[: LONGEST - 1].rstrip() + "…"
    return text.replace("$", r"\$")
