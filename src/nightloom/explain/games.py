"""The game of an item's fields. That of the history's events is `nightloom.serving.reasons.coalitions`, which the service plays too.

The worth of a coalition is the logarithm of the item's probability: the softmax of final scores over the catalogue. It says why this
item is recommended rather than others: what raises all scores alike explains nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from nightloom.core.ragged import offsets_among, owners
from nightloom.core.sequences import Histories
from nightloom.data.preparation.items import FeatureSpec
from nightloom.explain.shapley import Game
from nightloom.models.scorers.text_neighbours import TextNeighbours
from nightloom.models.sequential.content_fusion import ItemContent
from nightloom.models.sequential.network import inference
from nightloom.models.sequential.recommender import SequentialRecommender
from nightloom.serving.reasons.coalitions import log_softmax

CELLS = 4_000_000
"""Most scores (histories times items) in memory at once."""

ID = "id"
TEXT = "text"
PICTURE = "(picture)"  # no column has this name

Masks = NDArray[np.bool_]


def field_players(recommender: SequentialRecommender, spec: FeatureSpec, item: int) -> list[str]:
    """The fields of an item that the model reads: text, picture, each attribute column and the id; only those that the item has."""
    content, fusion = recommender.content, recommender.net.fusion
    players = [TEXT] if fusion.use_text and bool(content.has_text[item]) else []
    players += [PICTURE] if fusion.use_images and bool(content.has_image[item]) else []
    if fusion.use_codes:
        own = content.codes[content.code_offsets[item] : content.code_offsets[item + 1]].numpy()
        players += [column for column, (first, last) in code_spans(spec).items() if ((own >= first) & (own < last)).any()]
    if fusion.use_numbers:
        missing = content.numbers[item, len(spec.scales) :]
        players += [column for column, gone in zip(spec.scales, missing.tolist(), strict=True) if not gone]
    return [*players, ID]


def field_game(recommender: SequentialRecommender, history: Histories, item: int, spec: FeatureSpec, players: list[str]) -> Game:
    """The game of the fields of the recommended item, for one history.

    A field outside the coalition is missing, as it may be for any item: no text, no picture, no attribute, an unknown id.
    Without its id the scorers and the re-ranker's counters do not know the item either.
    Without its text it has no text neighbours. All other items stay as they are.
    """
    network, scorers = recommender.network_scores(history), recommender.scorer_scores(history)
    user = recommender.user_vectors(history, recommender.item_vectors())

    def worth(coalitions: Masks) -> NDArray[np.float64]:
        content = without_fields(recommender.content, item, spec, {name: ~coalitions[:, at] for at, name in enumerate(players)})
        with torch.no_grad(), inference(recommender.net):
            logits = (recommender.net.fusion(content) @ user[0]).numpy()
        step = max(1, CELLS // recommender.n_items)
        found = []
        for at in range(0, len(coalitions), step):
            part = coalitions[at : at + step]
            by_network = np.repeat(network, len(part), 0)
            by_network[:, item] = logits[at : at + step]
            by_scorer = {name: np.repeat(scores, len(part), 0) for name, scores in scorers.items()}
            for name, scores in by_scorer.items():
                needs = TEXT if name == TextNeighbours.family else ID
                if needs in players:
                    scores[~part[:, players.index(needs)], item] = -np.inf
            repeated = history.take(np.zeros(len(part), dtype=np.int64))
            final = recommender.finish(by_network, by_scorer, repeated)
            if (recommender.reranker is not None or recommender.penalty is not None) and ID in players:
                named = part[:, players.index(ID)]
                final = np.where(named[:, None], final, recommender.finish(by_network, by_scorer, repeated, ablated=item))
            found.append(log_softmax(final, np.array([item]))[:, 0])
        return np.concatenate(found)

    return worth


def without_fields(content: ItemContent, item: int, spec: FeatureSpec, out: Mapping[str, Masks]) -> ItemContent:
    """Copies of one item, each with some fields missing.

    Args:
        content: the catalogue.
        item: dense id.
        spec: how the catalogue's attributes are coded.
        out: field -> bool [n], whether copy i lacks it.
    """
    n = len(next(iter(out.values())))
    copies = content.take(torch.full((n,), item))
    has_text, has_image, id_rows, numbers = (getattr(copies, name).clone() for name in ("has_text", "has_image", "id_rows", "numbers"))
    spans, columns = code_spans(spec), list(spec.scales)
    keep = torch.ones(len(copies.codes), dtype=torch.bool)
    owner = torch.from_numpy(owners(copies.code_offsets.numpy()))
    for name, gone in out.items():
        lacks = torch.from_numpy(gone)
        if name == TEXT:
            has_text[lacks] = False
        elif name == PICTURE:
            has_image[lacks] = False
        elif name == ID:
            id_rows[lacks] = 0
        elif name in spans:
            first, last = spans[name]
            keep &= ~(lacks[owner] & (copies.codes >= first) & (copies.codes < last))
        else:
            at = columns.index(name)
            numbers[lacks, at] = 0
            numbers[lacks, len(columns) + at] = 1
    offsets = torch.from_numpy(offsets_among(copies.code_offsets.numpy(), keep.numpy()))
    codes = copies.codes[keep]
    return replace(copies, has_text=has_text, has_image=has_image, code_offsets=offsets, codes=codes, numbers=numbers, id_rows=id_rows)


def code_spans(spec: FeatureSpec) -> dict[str, tuple[int, int]]:
    """Column -> the range of its codes in the shared code space."""
    spans, first = {}, 0
    for column, vocabulary in spec.vocabularies.items():
        spans[column] = (first, first + len(vocabulary))
        first += len(vocabulary)
    return spans
