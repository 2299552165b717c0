"""Calibration of the label head on events of the test."""

from __future__ import annotations

from pathlib import Path

from nightloom.core.click_metrics import measure
from nightloom.core.sequences import Sequences
from nightloom.data.preparation.label_questions import LabelQuestions
from nightloom.evaluation import plots
from nightloom.models.sequential.recommender import SequentialRecommender

MOST_QUESTIONS = 20_000
"""Most test events that are scored, since each needs the user vector of its own history."""


def measure_labels(recommender: SequentialRecommender, sequences: Sequences, path: Path, title: str) -> dict[str, float]:
    """Score events of the test with the label head, positive or not, and draw its calibration.

    Args:
        recommender: a model with a calibrated label head.
        sequences: all events with the cutoffs of the split.
        path: PNG file to write.
        title: above the figure.

    Returns:
        AUC, log-loss, normalised entropy and expected calibration error, `rows` and the share of them that was `positive`.
    """
    events = LabelQuestions.of(sequences, "test", MOST_QUESTIONS)
    probability = recommender.probabilities(events.histories, events.owner, events.items)
    plots.calibration(path, {recommender.family: (events.positive, probability)}, {recommender.family: plots.MODEL}, title)
    return measure(events.positive, probability) | {"rows": len(probability), "positive": float(events.positive.mean())}
