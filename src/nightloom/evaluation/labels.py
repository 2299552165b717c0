"""How true the label head's probabilities are, on events of the test: was this one positive?"""

from __future__ import annotations

from pathlib import Path

from nightloom.core.click_metrics import measure
from nightloom.core.sequences import Sequences
from nightloom.data.preparation.label_questions import LabelQuestions
from nightloom.evaluation import plots
from nightloom.models.sequential.recommender import SequentialRecommender

MOST_QUESTIONS = 20_000
"""Test events that are asked about: each needs the vector of its own history."""


def measure_labels(recommender: SequentialRecommender, sequences: Sequences, path: Path, title: str) -> dict[str, float]:
    """Ask the label head about events of the test, positive or not, and draw its calibration.

    Args:
        recommender: a model with a calibrated label head.
        sequences: all events with the split's borders.
        path: PNG file to write.
        title: above the figure.

    Returns:
        AUC, log-loss, normalised entropy and expected calibration error, `rows` and the share of them that was `positive`.
    """
    asked = LabelQuestions.of(sequences, "test", MOST_QUESTIONS)
    probability = recommender.probabilities(asked.histories, asked.owner, asked.items)
    plots.calibration(path, {recommender.family: (asked.positive, probability)}, {recommender.family: plots.MODEL}, title)
    return measure(asked.positive, probability) | {"rows": len(probability), "positive": float(asked.positive.mean())}
