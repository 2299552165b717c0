"""The figures of a night that its report shows: only those that it does not draw itself, so that nothing is shown twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import get_args

from nightloom.config.sections import Protocol
from nightloom.report import words

CAPTIONS = {
    "champion": "Challenger minus champion on every metric",
    "calibration": "Calibration of the re-ranker: predicted probability against the observed share",
    "calibration_of_labels": "Calibration of the label head: predicted probability against the observed share",
    "reasons_summary": "Mean share of each field, and of the events at each position of the history",
    "shap_waterfall": "Events of one recommendation (shap: waterfall)",
    "shap_decision": "The same, added up one after the other (shap: decision)",
    "shap_beeswarm": "Fields of the recommended items, a dot a recommendation (shap: beeswarm)",
    "shap_bar": "Mean size of each field's value (shap: bar)",
    "shap_heatmap": "Fields by recommendation (shap: heatmap)",
    "shap_segments": "Mean size of each field's value, for users with short and with long histories (shap: bar)",
    "shap_segments_fields": "The same, a dot a recommendation (shap: beeswarm)",
    "shap_positions": "Events by position of the history, a dot a recommendation (shap: beeswarm)",
    "shap_reranker": "What the re-ranker looks at in the items that it puts first, in log-odds (shap: beeswarm)",
    "shap_reranker_segments": "The same, for users with short and with long histories",
    "shap_words_1": "Words of a recommended item's text (shap: Partition with a masker of texts)",
    "shap_words_2": "Words of another one's",
}
"""Stem of a file's name, without its protocol -> caption. The others are drawn by the report's own tables, bars and curves."""

SHAP = tuple(kind for kind in CAPTIONS if kind.startswith("shap_"))
"""Kinds that shap draws."""


def shown(folders: Iterable[Path], protocols: Iterable[str]) -> dict[str, Path]:
    """The PNG files that the report shows, by name.

    Args:
        folders: folders of stages; their `plots/` are looked through.
        protocols: as in the config.

    Returns:
        Stem of the file's name -> file.
    """
    stems = {stem for kind in CAPTIONS for stem in (kind, *(f"{kind}_{protocol}" for protocol in protocols))}
    found = {path.stem: path for folder in folders for path in sorted((folder / "plots").glob("*.png"))}
    return {stem: path for stem, path in found.items() if stem in stems}


def of_kind(figures: Mapping[str, Path], *kinds: str) -> dict[str, Path]:
    """Caption -> file, of the figures of some kinds, in the order of the kinds."""
    found = {}
    for kind in kinds:
        for stem, path in figures.items():
            protocol = stem.removeprefix(kind).lstrip("_")
            if stem.startswith(kind) and protocol in ("", *get_args(Protocol)):
                found[CAPTIONS[kind] + (f" ({words.split(protocol)})" if protocol else "")] = path
    return found
