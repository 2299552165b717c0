"""Which words of an item's text count: shap's Partition explainer with its masker of texts, where the language model is at hand.

Words are masked, the text is encoded anew, and the item is scored with that text for one history. A few items only: each evaluation is
an encoding. Nothing of this is done by the service.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from nightloom.core.errors import NightloomError
from nightloom.core.sequences import Histories
from nightloom.explain.shap_library import same_draws, shap_library
from nightloom.explain.shap_plots import SHOWN, saved, shown_name
from nightloom.models.sequential.network import inference
from nightloom.models.sequential.recommender import SequentialRecommender
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.reader import LANGUAGE_MODEL
from nightloom.serving.reasons.coalitions import log_softmax

EVALUATIONS = 48
"""Encodings of an item's text."""
LONGEST = 40
"""Words beyond are left out: a tree of many words needs more evaluations."""


class Reads(Protocol):
    """What encodes texts."""

    tokenizer: Any
    dim: int

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """A vector a text."""
        ...


def encoder_of(bundle: Bundle) -> Reads | None:
    """The language model by which a bundle reads texts; None where it reads none, or the model is not on this machine."""
    from nightloom.encoders.text import TextEncoder

    said = bundle.manifest.encoder.get("text")
    tuned = bundle.folder / LANGUAGE_MODEL
    try:
        if tuned.is_dir():
            return TextEncoder.load(str(tuned))
        if not said or not said.get("model"):
            return None
        return TextEncoder.load(said["model"], pooling=said["pooling"], max_tokens=said["max_tokens"], sha256=said["sha256"])
    except NightloomError:
        return None


def has_words(text: str | None) -> bool:
    """Whether a text has words whose values could be told apart: of one alone there is nothing to say."""
    return len(re.findall(r"\w+", " ".join((text or "").split()[:LONGEST]))) > 1


def explain_text(encoder: Reads, model: SequentialRecommender, history: Histories, item: int, text: str) -> Any:
    """Values of the words of an item's text for one history, in the logarithm of its probability, as a `shap.Explanation`.

    Args:
        encoder: reads texts.
        model: scores.
        history: one query.
        item: dense item, with a text.
        text: its text, which `has_words`.
    """
    shap = shap_library()

    words = " ".join(text.split()[:LONGEST])
    masker = shap.maskers.Text(r"\W+")  # by words: a word piece says little to a person
    with same_draws():
        explainer = shap.explainers.Partition(worth_of_text(encoder, model, history, item), masker, seed=0)
        return explainer([words], max_evals=EVALUATIONS, batch_size=EVALUATIONS, silent=True)[0]


def worth_of_text(
    encoder: Reads, model: SequentialRecommender, history: Histories, item: int
) -> Callable[[Sequence[str]], NDArray[np.float64]]:
    """A function: texts -> log-probability of the item with each in the place of its own."""
    network, scorers = model.network_scores(history), model.scorer_scores(history)
    user = model.user_vectors(history, model.item_vectors())

    def worth(texts: Sequence[str]) -> NDArray[np.float64]:
        read = torch.from_numpy(np.asarray(encoder.encode([str(one) for one in texts]), dtype=np.float32))
        copies = model.content.take(torch.full((len(texts),), item))
        given = torch.tensor([bool(str(one).strip()) for one in texts])
        copies = replace(copies, text=read.to(copies.text.dtype), has_text=given)
        with torch.no_grad(), inference(model.net):
            logits = (model.net.fusion(copies) @ user[0]).numpy()
        by_network = np.repeat(network, len(texts), 0)
        by_network[:, item] = logits
        repeated = history.take(np.zeros(len(texts), dtype=np.int64))
        final = model.finish(by_network, {name: np.repeat(one, len(texts), 0) for name, one in scorers.items()}, repeated)
        return log_softmax(final, np.array([item]))[:, 0].astype(np.float64)

    return worth


def draw_text(found: Any, folder: Path, number: int, title: str) -> None:
    """`shap_words_<number>.png`: a bar a word, under the item's title."""
    shap = shap_library()
    from matplotlib import pyplot

    words = [str(word).strip(" .,;:()") or "·" for word in found.data]
    names = [shown_name(word, f"word {place}") for place, word in enumerate(words, start=1)]
    shown = shap.Explanation(found.values, found.base_values, feature_names=names)

    def plot() -> None:
        shap.plots.bar(shown, max_display=SHOWN, show=False)
        pyplot.title(shown_name(title, f"recommendation {number}"), loc="left", fontsize=11)

    saved(folder / f"shap_words_{number}.png", plot)
