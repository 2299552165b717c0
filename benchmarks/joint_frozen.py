"""The ablation of the joint loss: the same head, fitted after retrieval on a network that no longer moves."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from nightloom.core.calibration import Line
from nightloom.core.click_metrics import losses, measure
from nightloom.core.errors import TrainingError
from nightloom.core.sequences import Sequences
from nightloom.data.preparation.label_questions import LabelQuestions
from nightloom.models.heads.label_counters import LabelCounters
from nightloom.packaging.bundle import Bundle
from nightloom.training.distributed import World
from nightloom.training.run import SEARCH, Training
from nightloom.training.run_json import Run
from nightloom.training.trainer import Fitter

EPOCHS = 30
"""Most epochs of the head; how many are best is chosen by its validation log-loss, where a joint run's are chosen by the ranking."""


def ask_frozen(retrieval: Path, sequences: Sequences, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fit the head of a finished run without one, calibrate it on validation, and ask the test.

    Args:
        retrieval: folder of the run, with `run.json` and `bundle/`.
        sequences: all events with the split's borders.
        folder: gets the `run.json` of the head.

    Returns:
        Figures, and the test part's answers: positive, probability.
    """
    began = time.process_time()
    said = json.loads((retrieval / "run.json").read_text(encoding="utf-8"))
    said["config"]["training"]["label_weight"], said["out"] = 1.0, str(folder.resolve())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(said), encoding="utf-8")
    training, known = Training(Run.load(folder / "run.json"), World()), sequences.train()
    recommender, fitter = training._start(known, SEARCH)
    recommender.net.load_state_dict(Bundle.load(retrieval / "bundle").recommender.net.state_dict(), strict=False)
    for name, parameter in recommender.net.named_parameters():
        parameter.requires_grad_(name.startswith("label_head.") and not name.endswith("negative"))  # retrieval knew no marks either
    fitter = Fitter(recommender.net, recommender.content, known, training.config, World())
    asked, counters = LabelQuestions.of(sequences, "validation"), LabelCounters.of(known, recommender.n_items)
    found, least = None, np.inf
    for epoch in range(EPOCHS):
        fitter.run_epoch()
        with fitter.averaged():
            answers = recommender.label_log_odds(asked.histories, asked.owner, asked.items, counters)
        loss = float(losses(asked.positive, expit(answers.astype(np.float64))).mean())
        if loss < least:
            least, found = loss, (epoch + 1, answers, [one.clone() for one in fitter.average])
        elif found is not None and epoch + 1 - found[0] >= 5:
            break
    if found is None:
        raise TrainingError("no epoch has a finite loss on validation")
    epochs, answers, weights = found
    fitter.keep(weights)
    test, known = LabelQuestions.of(sequences, "test"), sequences.train(with_validation=True)
    log_odds = recommender.label_log_odds(test.histories, test.owner, test.items, LabelCounters.of(known, recommender.n_items))
    probability = expit(Line.fit(answers, asked.positive)(log_odds.astype(np.float64)))
    result = {"validation": measure(asked.positive, expit(answers.astype(np.float64))), "test": measure(test.positive, probability)}
    return result | {"epochs": epochs, "cpu_seconds": time.process_time() - began}, {"positive": test.positive, "probability": probability}
