"""An opened bundle that answers: the torch predictor on top of the light reader."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from nightloom.core.errors import InputError
from nightloom.core.queries import Query, build_histories
from nightloom.core.ragged import offsets_of, owners
from nightloom.core.recommender import Allowed, Recommender
from nightloom.core.sequences import Histories
from nightloom.data.preparation.catalogue import read_catalogue
from nightloom.data.preparation.items import FeatureSpec
from nightloom.encoders.vectors import Vectors
from nightloom.models.scorers.registry import expect
from nightloom.models.scorers.text_neighbours import TextNeighbours
from nightloom.models.sequential.content_fusion import ItemContent
from nightloom.models.sequential.recommender import SequentialRecommender
from nightloom.packaging.manifest import Manifest
from nightloom.packaging.reader import LANGUAGE_MODEL, SPEC, BundleReader

Answer = list[tuple[str, float]]
"""Item ids and scores, best first."""


class Bundle(BundleReader):
    """A trained model with the ids, descriptions and vocabularies of its catalogue.

    Args:
        folder: the bundle.
        manifest: its `bundle.json`.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        super().__init__(folder, manifest)
        self.recommender = SequentialRecommender.load(folder)

    @cached_property
    def items(self) -> pd.DataFrame:
        """The catalogue as a table: row i describes dense item i."""
        return read_catalogue(self.catalogue)

    @cached_property
    def spec(self) -> FeatureSpec:
        """How attributes are coded."""
        return FeatureSpec.load(self.folder / SPEC)

    def histories(self, queries: Sequence[Query]) -> Histories:
        """Histories of some queries as the model reads them."""
        return build_histories(queries, self.index, self.event_names, self.clock)

    def recommend(self, queries: Sequence[Query], k: int, *, exclude_seen: bool = True, allowed: Allowed | None = None) -> list[Answer]:
        """The k best items for each query.

        Args:
            queries: one a list.
            k: how many.
            exclude_seen: leave out items of the history.
            allowed: bool [items], by dense id: the others are never recommended; bool [queries, items] where that differs. None: all.

        Returns:
            For each query (item id, score) pairs, best first; fewer than k when the catalogue ends.

        Raises:
            InputError: a list of a query does not match its history, the model does not know an event name, or `allowed` has another shape.
        """
        shapes = ((len(self.index),), (len(queries), len(self.index)))
        if allowed is not None and allowed.shape not in shapes:
            raise InputError(f"allowed: its shape is {allowed.shape}. Give one of {shapes[0]}, or of {shapes[1]}.")
        items, scores = self.recommender.recommend(self.histories(queries), k, exclude_seen=exclude_seen, allowed=allowed)
        return [
            [(self.item_ids[item], float(score)) for item, score in zip(row, best, strict=True) if item >= 0]
            for row, best in zip(items.tolist(), scores.tolist(), strict=True)
        ]

    def probabilities(self, queries: Sequence[Query], items: Sequence[Sequence[str]]) -> list[list[float]]:
        """Probabilities, by the label head, that items are liked (clicked, bought) once they are shown.

        Args:
            queries: one a list.
            items: for each query the item ids in question, such as those that `recommend` gave.

        Returns:
            For each query the probabilities of its items.

        Raises:
            InputError: the model has no calibrated label head, an item is not in the catalogue, or the lists do not match.
        """
        if self.recommender.labels is None:
            raise InputError("the model gives no probabilities: train it with training.label_weight on events that are positive or not.")
        unknown = [item for one in items for item in one if item not in self.index]
        if unknown or len(items) != len(queries):
            raise InputError(f"items: {len(items)} lists for {len(queries)} queries, {len(unknown)} items unknown: {unknown[:3]}.")
        offsets = offsets_of([len(one) for one in items])
        dense = np.array([self.index[item] for one in items for item in one], dtype=np.int64)
        found = self.recommender.probabilities(self.histories(queries), owners(offsets), dense)
        return [part.tolist() for part in np.split(found, offsets[1:-1])]

    def answer_probabilities(self, queries: Sequence[Query], answers: Sequence[Answer]) -> dict[str, list[list[float]]]:
        """What the model's calibrated heads say of the answers of `recommend`, between 0 and 1; empty where it has none.

        Args:
            queries: as they were given to `recommend`.
            answers: what `recommend` gave.

        Returns:
            With a re-ranker `probability`: that the item is interacted with next, within as much time as validation held out. With a
            label head `label_probability`: that it is liked (clicked, bought) once it is shown.
        """
        found = {}
        if self.recommender.reranker is not None:  # scores are then log-odds
            penalty = self.recommender.penalty
            off = {} if penalty is None else dict(zip(self.item_ids.tolist(), penalty.values.tolist(), strict=True))
            odds = [[score + off.get(item, 0.0) for item, score in one] for one in answers]
            found["probability"] = [torch.tensor(one, dtype=torch.float64).sigmoid().tolist() for one in odds]
        if self.recommender.labels is not None:
            found["label_probability"] = self.probabilities(queries, [[item for item, _ in one] for one in answers])
        return found

    def reindex(self, items: pd.DataFrame, vectors: Vectors | None) -> Recommender:
        """The same model over the dense ids of another catalogue.

        Items known by id keep all that the model has learned of them. The vectors of the others come from their
        text, pictures and attributes. Scorers keep what they know of the items that both catalogues have, and
        neighbours by text are searched anew, and of new items is expected what is known of theirs.

        Args:
            items: the other catalogue, row i for dense item i: `item_id`, described columns, `text`.
            vectors: of that catalogue's texts and pictures by the pretrained models. A model whose own language model was tuned
                encodes new texts itself. None, or another width: new items count as without text, or without picture.

        Returns:
            A recommender over `len(items)` dense ids.
        """
        ids = items["item_id"].to_numpy(dtype=object)
        here = np.array([self.index.get(item, -1) for item in ids.tolist()], dtype=np.int64)
        content = self.recommender.content
        given = vectors or Vectors.of_text(np.zeros((len(items), 0), dtype=np.float32), np.zeros(len(items), dtype=np.bool_))
        text, has_text = self._new_text(items, here, given)
        image, has_image = _fitting(given.image, given.has_image, content.image.shape[1])
        known = torch.from_numpy(here >= 0)
        mine = torch.from_numpy(here[here >= 0])
        text[known], has_text[known] = content.text[mine], content.has_text[mine]
        image[known], has_image[known] = content.image[mine], content.has_image[mine]
        id_rows = torch.zeros(len(ids), dtype=torch.int64)
        id_rows[known] = content.id_rows[mine]
        other = ItemContent.build(
            self.spec.encode(items), text.numpy(), has_text.numpy(), id_rows.numpy(), image.numpy(), has_image.numpy()
        )
        there = np.full(len(self.index), -1, dtype=np.int64)
        there[here[here >= 0]] = np.flatnonzero(here >= 0)
        recommender = self.recommender
        scorers = {name: one.reindex(there, len(ids)) for name, one in recommender.scorers.items()}
        for one in scorers.values():
            if isinstance(one, TextNeighbours):
                one.read(other.text, other.has_text)
        if recommender.net.fusion.use_text:
            near = scorers.get(TextNeighbours.family)
            expect(scorers.values(), other, here < 0, near if isinstance(near, TextNeighbours) else None)
        reranker = None if recommender.reranker is None else recommender.reranker.reindex(there, len(ids))
        labels = None if recommender.labels is None else recommender.labels.reindex(there, len(ids))
        return SequentialRecommender(
            recommender.config,
            recommender.shape,
            recommender.net,
            other,
            scorers,
            recommender.weights,
            reranker,
            labels,
            recommender.newcomer_weights,
            None if recommender.penalty is None else recommender.penalty.reindex(there, len(ids)),
        )

    def _new_text(self, items: pd.DataFrame, here: NDArray[np.int64], given: Vectors) -> tuple[torch.Tensor, torch.Tensor]:
        """Text vectors and mask of another catalogue in this model's own text space."""
        width = self.recommender.content.text.shape[1]
        text, has_text = _fitting(given.text, given.has_text, width)
        if (self.folder / LANGUAGE_MODEL).is_dir():
            text, has_text = torch.zeros(len(items), width), torch.zeros(len(items), dtype=torch.bool)
            from nightloom.encoders.text import TextEncoder  # only a tuned model needs transformers to answer

            new = np.flatnonzero((here < 0) & items["text"].notna().to_numpy())
            if len(new):
                encoder = TextEncoder.load(str(self.folder / LANGUAGE_MODEL))
                text[new] = torch.from_numpy(encoder.encode(items["text"].iloc[new].tolist()))
                has_text[new] = True
        return text, has_text


def _fitting(vectors: NDArray[np.float32], mask: NDArray[np.bool_], width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors and mask, copied; vectors of another width count as missing."""
    if vectors.shape[1] != width:
        return torch.zeros(len(vectors), width), torch.zeros(len(vectors), dtype=torch.bool)
    return torch.from_numpy(np.asarray(vectors, dtype=np.float32).copy()), torch.from_numpy(mask.copy())
