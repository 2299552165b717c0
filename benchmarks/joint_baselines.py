"""The baselines of the label head: logistic regression and LightGBM on its counters and on the item's id, as in `flows.clicks`."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from scipy.special import expit

from nightloom.core.calibration import Line
from nightloom.core.click_metrics import losses, measure
from nightloom.core.sequences import Histories, Sequences
from nightloom.data.preparation.label_questions import LabelQuestions
from nightloom.models.ctr.baselines import Boosted, Logistic
from nightloom.models.ctr.features import Inputs
from nightloom.models.heads.label_counters import LabelCounters
from nightloom.models.heads.piecewise_linear import piecewise_linear, quantiles

FLOORS = ("logistic", "lightgbm")


def ask_baseline(name: str, sequences: Sequences, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Choose a baseline's setting on validation, calibrate it there by a line, and ask the test: as the label head is asked.

    Returns:
        Figures, and the test part's answers: positive, probability.
    """
    began, known = time.process_time(), sequences.train()
    learnt = LabelCounters.of(known, sequences.n_items)
    table = learnt.of_events(known).astype(np.float64)
    centre, scale, bin_edges = table.mean(0), table.std(0) + 1e-9, [quantiles(column) for column in table.T]

    def inputs(rows: np.ndarray, items: np.ndarray) -> Inputs:
        cut = [piecewise_linear(column, one) for column, one in zip(rows.T, bin_edges, strict=True)]
        return Inputs(items[:, None].astype(np.int64), np.column_stack([(rows - centre) / scale, *cut]).astype(np.float32), rows)

    def asked(part: str, events: Histories) -> tuple[LabelQuestions, Inputs]:
        questions, counters = LabelQuestions.of(sequences, part), LabelCounters.of(events, sequences.n_items)
        rows = counters.of_pairs(questions.histories, questions.owner, questions.items).astype(np.float64)
        return questions, inputs(rows, questions.items)

    def model() -> Logistic | Boosted:
        return Logistic(sequences.n_items) if name == "logistic" else Boosted(seed)

    train = inputs(table, known.items)
    questions, validation = asked("validation", known)
    path = model().path(train, known.positive, validation)
    step = int(np.argmin([losses(questions.positive, expit(one)).mean() for one in path]))
    calibration = Line.fit(path[step].astype(np.float32), questions.positive)
    test, rows = asked("test", sequences.train(with_validation=True))
    probability = expit(calibration(model().fit(train, known.positive, step).log_odds(rows)))
    found = {"validation": measure(questions.positive, expit(path[step])), "test": measure(test.positive, probability)}
    return found | {"cpu_seconds": time.process_time() - began}, {"positive": test.positive, "probability": probability}
