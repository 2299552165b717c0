"""Figures of an evaluation as PNG files. Colours are those of Okabe and Ito, told apart with any colour vision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nightloom.core import click_metrics as clicks
from nightloom.core.click_metrics import BoolArray, FloatArray
from nightloom.core.fonts import drawable, with_fonts
from nightloom.evaluation.statistics import Difference

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MODEL, OTHER, CHAMPION, BETTER, WORSE = "#0072B2", "#999999", "#E69F00", "#009E73", "#D55E00"
SHOWN = ("hr_at_10", "ndcg_at_10", "mrr_at_10")


def models(
    path: Path,
    metrics: Mapping[str, Mapping[str, float]],
    intervals: Mapping[str, Mapping[str, tuple[float, float]]],
    model: str,
    title: str,
) -> None:
    """Bars of the model, the champion and the baselines with confidence intervals, the best NDCG@10 on top.

    Args:
        path: PNG file to write.
        metrics: family -> metric -> value.
        intervals: family -> metric -> (low, high).
        model: the family that is the challenger.
        title: above the figure.
    """
    names = sorted(metrics, key=lambda family: metrics[family]["ndcg_at_10"])
    colours = {model: MODEL, "champion": CHAMPION}
    with figure(path, title, 0.45 * len(names) + 1.6, columns=len(SHOWN)) as axes:
        for axis, metric in zip(axes, SHOWN, strict=True):
            values = [metrics[family][metric] for family in names]
            spans = [intervals[family][metric] for family in names]
            errors = [  # a mean over queries and that of users' parts of it differ by a rounding error
                [max(v - low, 0.0) for v, (low, _) in zip(values, spans, strict=True)],
                [max(h - v, 0.0) for v, (_, h) in zip(values, spans, strict=True)],
            ]
            error_style = {"ecolor": "#333333", "elinewidth": 1, "capsize": 3}
            axis.barh(names, values, xerr=errors, color=[colours.get(family, OTHER) for family in names], error_kw=error_style)
            for row, (value, (_, high)) in enumerate(zip(values, spans, strict=True)):
                axis.annotate(f"{value:.3f}", (high, row), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8)
            axis.margins(x=0.2)
            axis.set_xlim(left=0)
            axis.set_xlabel(_label(metric))


def calibration(path: Path, answers: Mapping[str, tuple[BoolArray, FloatArray]], colours: Mapping[str, str], title: str) -> None:
    """Mean predicted probability against the observed share, in bins of equal mass, one line a model.

    Args:
        path: PNG file to write.
        answers: family -> what happened, bool [rows], and the predicted probabilities, float64 [rows].
        colours: family -> colour.
        title: above the figure.
    """
    with figure(path, title, 4.5) as (axis,):
        most = 0.0
        for family, (happened, probability) in answers.items():
            curve = clicks.calibration(happened, probability)
            axis.plot(curve.probability, curve.rate, "o-", color=colours[family], label=family, markersize=4)
            most = max(most, float(curve.probability.max()), float(curve.rate.max()))
        axis.plot([0, most], [0, most], color="#333333", linewidth=1, linestyle="--", label="perfect calibration")
        axis.set_xlabel("mean predicted probability")
        axis.set_ylabel("observed share")
        axis.figure.legend(loc="outside upper right", frameon=False, ncols=4, fontsize=9)


def slices(
    path: Path,
    model: Mapping[str, Mapping[str, Any]],
    other: Mapping[str, Mapping[str, Any]],
    names: tuple[str, str],
    metric: str,
    title: str,
) -> None:
    """Bars of the model and of the best baseline on every slice.

    Args:
        path: PNG file to write.
        model: slice -> {"users", metric ...}.
        other: the same of the baseline.
        names: what to call the two.
        metric: metric to draw.
        title: above the figure.
    """
    shown = list(model)[::-1]
    with figure(path, title, 0.42 * len(shown) + 1.4) as (axis,):
        for values, shift, colour, name in ((model, 0.2, MODEL, names[0]), (other, -0.2, OTHER, names[1])):
            places = [row + shift for row in range(len(shown))]
            axis.barh(places, [values[one][metric] for one in shown], 0.38, color=colour, label=name)
        named = [drawable(one, f"slice {len(shown) - row} of {len(shown)}") for row, one in enumerate(shown)]
        axis.set_yticks(range(len(shown)), [f"{name} ({model[one]['users']:,})" for name, one in zip(named, shown, strict=True)])
        axis.set_ylim(-0.6, len(shown) - 0.4)
        axis.set_xlabel(f"{_label(metric)}, users of the slice in brackets")
        axis.figure.legend(loc="outside upper right", frameon=False, ncols=2, fontsize=9)


def differences(path: Path, found: Mapping[str, Difference], confidence: float, margin: float, title: str) -> None:
    """Challenger minus champion with its interval for every metric, as a share of the champion's mean.

    Args:
        path: PNG file to write.
        found: metric -> difference; metrics on which the champion scores zero are left out.
        confidence: of the intervals, for the label.
        margin: the gate's margin, drawn as a line.
        title: above the figure.
    """
    shown = [(name, one) for name, one in found.items() if one.b > 0][::-1]
    with figure(path, title, 0.32 * len(shown) + 1.4) as (axis,):
        for row, (_, one) in enumerate(shown):
            colour = BETTER if one.low > 0 else WORSE if one.high < 0 else "#555555"
            axis.plot([100 * one.low / one.b, 100 * one.high / one.b], [row, row], color=colour, linewidth=2, solid_capstyle="butt")
            axis.plot(100 * one.difference / one.b, row, "o", color=colour, markersize=6)
        axis.axvline(0, color="#333333", linewidth=1)
        axis.axvline(-100 * margin, color=WORSE, linewidth=1, linestyle="--", label="margin of the gate")
        axis.set_yticks(range(len(shown)), [_label(name) for name, _ in shown])
        axis.set_xlabel(f"challenger minus champion, % of the champion, {confidence:.0%} intervals")
        axis.figure.legend(loc="outside upper right", frameon=False, fontsize=9)


def learning_curve(path: Path, curves: Sequence[Mapping[str, Any]], title: str) -> None:
    """Loss and validation NDCG@10 by epoch, the best epoch marked.

    Args:
        path: PNG file to write.
        curves: rows of curves.json.
        title: above the figure.
    """
    epochs = [line["epoch"] for line in curves]
    measured = [(line["epoch"], line["validation_ndcg_at_10"]) for line in curves if line["validation_ndcg_at_10"] is not None]
    with figure(path, title, 3.4, columns=2, sharey=False) as (loss, quality):
        loss.plot(epochs, [line["loss"] for line in curves], ".-", color=WORSE)
        loss.set_ylabel("training loss")
        if measured:
            best, value = max(measured, key=lambda point: point[1])
            quality.plot(*zip(*measured, strict=True), ".-", color=MODEL)
            quality.plot(best, value, "o", color=MODEL, markersize=9, fillstyle="none")
            quality.set_title(f"best {value:.4f} in epoch {best}", fontsize=9)
        quality.set_ylabel("validation NDCG@10")
        for axis in (loss, quality):
            axis.set_xlabel("epoch")
            axis.locator_params(axis="x", integer=True)


@contextmanager
def figure(path: Path, title: str, height: float, *, columns: int = 1, sharey: bool = True) -> Iterator[Sequence[Axes]]:
    """A figure with panels side by side, saved when the block ends."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # only here, since most of nightloom draws nothing
    from matplotlib.figure import Figure

    with with_fonts():
        figure = Figure(figsize=(9, height), layout="constrained", dpi=120)
        FigureCanvasAgg(figure)  # no display and no global state, unlike pyplot
        figure.suptitle(title, fontsize=11, x=0.01, ha="left")
        axes = figure.subplots(1, columns, sharey=sharey, squeeze=False)[0]
        for axis in axes:
            axis.spines[["top", "right"]].set_visible(False)
            axis.grid(axis="x", color="#dddddd", linewidth=0.6)
            axis.set_axisbelow(True)
            axis.tick_params(labelsize=9)
        yield axes
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


def _label(metric: str) -> str:
    """`ndcg_at_10` -> `NDCG@10`, `recall_at_10` -> `recall@10`."""
    stem, _, k = metric.partition("_at_")
    return f"{stem if stem == 'recall' else stem.upper()}@{k}"
