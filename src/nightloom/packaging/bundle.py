"""The self-contained folder that goes to the registry: all that answering needs, and no language model unless it was tuned."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from nightloom.core.errors import InputError
from nightloom.core.event_names import EventNames
from nightloom.core.ragged import offsets_of, owners
from nightloom.core.recommender import Recommender
from nightloom.core.sequences import Histories, Links
from nightloom.data.preparation.items import FeatureSpec
from nightloom.encoders.vectors import Vectors
from nightloom.models.scorers.text_neighbours import TextNeighbours
from nightloom.models.sequential.content_fusion import ItemContent
from nightloom.models.sequential.recommender import SequentialRecommender

FILES = ("items.parquet", "feature_spec.json", "meta.json")
LANGUAGE_MODEL = "language_model"


class Bundle:
    """A trained model with the ids, descriptions and vocabularies of its catalogue.

    Args:
        recommender: the trained model.
        source: folder with `items.parquet`, `feature_spec.json` and `meta.json`, those of stage prepare.
    """

    def __init__(self, recommender: SequentialRecommender, source: Path) -> None:
        self.recommender, self.source = recommender, source

    def save(self, folder: Path) -> None:
        """Write the bundle; `source` is copied, so the folder depends on nothing outside it."""
        folder.mkdir(parents=True, exist_ok=True)
        self.recommender.save(folder)
        for name in FILES:
            shutil.copyfile(self.source / name, folder / name)
        if (self.source / LANGUAGE_MODEL).is_dir():
            shutil.copytree(self.source / LANGUAGE_MODEL, folder / LANGUAGE_MODEL, dirs_exist_ok=True)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            InputError: a file is missing or broken.
        """
        missing = [name for name in (*FILES, "recommender.json", "model.safetensors") if not (folder / name).is_file()]
        if missing:
            raise InputError(f"{folder}: not a whole bundle, {', '.join(missing)} missing. Name the bundle folder of a finished run.")
        return cls(SequentialRecommender.load(folder), folder)

    @cached_property
    def items(self) -> pd.DataFrame:
        """Row i describes dense item i: `item_id`, described columns, `text`."""
        return pd.read_parquet(self.source / "items.parquet")

    @cached_property
    def item_ids(self) -> NDArray[np.object_]:
        """Item ids by dense id."""
        return self.items["item_id"].to_numpy(dtype=object)

    @cached_property
    def index(self) -> dict[str, int]:
        """Dense ids by item id."""
        return {item_id: dense for dense, item_id in enumerate(self.item_ids.tolist())}

    @cached_property
    def spec(self) -> FeatureSpec:
        """How attributes are coded."""
        return FeatureSpec.load(self.source / "feature_spec.json")

    @cached_property
    def meta(self) -> dict[str, Any]:
        """Stage prepare's `meta.json`."""
        content: dict[str, Any] = json.loads((self.source / "meta.json").read_text(encoding="utf-8"))
        return content

    @cached_property
    def event_names(self) -> EventNames:
        """The event names that the model knows, and the usual one."""
        return EventNames.of(self.meta)

    def recommend(
        self,
        histories: list[list[str]],
        k: int,
        times: list[list[int]] | None = None,
        request_time: list[int] | None = None,
        exclude_seen: bool = True,
        friends: list[list[list[str]]] | None = None,
        positive: list[list[bool]] | None = None,
        events: list[list[str]] | None = None,
    ) -> list[list[tuple[str, float]]]:
        """The k best items for each history of item ids, oldest first.

        Args:
            histories: item ids; ids that the catalogue lacks are skipped.
            k: how many.
            times: when each event happened, seconds since 1970; without them the model answers from order alone.
            request_time: when each asks, seconds since 1970; by default at the time of the latest event.
            exclude_seen: leave out items of the history.
            friends: for each history those of the people whom its owner is linked to; heard where the model gave friends a share.
            positive: whether each event of each history was positive; without them the event names tell.
            events: the event name of each event of each history; without them all have the one that most positive events of the model's
                own data had, and are positive.

        Returns:
            For each history (item id, score) pairs, best first; fewer than k when the catalogue ends.

        Raises:
            InputError: a list does not match the histories, or the model does not know an event name.
        """
        asked = self.histories(histories, times, request_time, positive, events)
        if friends is not None:
            if len(friends) != len(histories):
                raise InputError(f"friends: given for {len(friends)} of {len(histories)} histories. Give each a list, if an empty one.")
            flat = [one for circle in friends for one in circle]
            offsets = offsets_of([len(circle) for circle in friends])
            asked = replace(asked, links=Links(offsets, np.arange(len(flat)), self.histories(flat)))
        items, scores = self.recommender.recommend(asked, k, exclude_seen=exclude_seen)
        return [
            [(self.item_ids[item], float(score)) for item, score in zip(row, best, strict=True) if item >= 0]
            for row, best in zip(items.tolist(), scores.tolist(), strict=True)
        ]

    def probabilities(
        self,
        histories: list[list[str]],
        items: list[list[str]],
        times: list[list[int]] | None = None,
        request_time: list[int] | None = None,
        positive: list[list[bool]] | None = None,
        events: list[list[str]] | None = None,
    ) -> list[list[float]]:
        """Probabilities that items, once shown, are liked (clicked, bought), by the label head: for each history those of its items.

        Args:
            histories: item ids, oldest first; ids that the catalogue lacks are skipped.
            items: for each history the items that are asked about, such as those of `recommend`.
            times: as in `recommend`.
            request_time: as in `recommend`.
            positive: as in `recommend`.
            events: as in `recommend`.

        Raises:
            InputError: the model has no calibrated label head, an item is not in the catalogue, or the lists do not match.
        """
        if self.recommender.labels is None:
            raise InputError("the model gives no probabilities: train it with training.label_weight on events that are positive or not.")
        unknown = [item for one in items for item in one if item not in self.index]
        if unknown or len(items) != len(histories):
            raise InputError(f"items: {len(items)} lists for {len(histories)} histories, {len(unknown)} items unknown: {unknown[:3]}.")
        asked = self.histories(histories, times, request_time, positive, events)
        offsets = offsets_of([len(one) for one in items])
        found = self.recommender.probabilities(
            asked, owners(offsets), np.array([self.index[item] for one in items for item in one], dtype=np.int64)
        )
        return [part.tolist() for part in np.split(found, offsets[1:-1])]

    def answer_probabilities(
        self,
        histories: list[list[str]],
        answers: list[list[tuple[str, float]]],
        times: list[list[int]] | None = None,
        request_time: list[int] | None = None,
        positive: list[list[bool]] | None = None,
        events: list[list[str]] | None = None,
    ) -> dict[str, list[list[float]]]:
        """What the model's calibrated heads say of the answers of `recommend`, between 0 and 1; nothing where it has none.

        Args:
            histories: as they were asked.
            answers: what `recommend` gave.
            times: as in `recommend`.
            request_time: as in `recommend`.
            positive: as in `recommend`.
            events: as in `recommend`.

        Returns:
            With a re-ranker `probability`: that the item is had next, in as much time as was held out for validation. With a label head
            `label_probability`: that it is liked (clicked, bought) once it is shown.
        """
        found = {}
        if self.recommender.reranker is not None:  # scores are then log-odds
            found["probability"] = [torch.tensor([score for _, score in one], dtype=torch.float64).sigmoid().tolist() for one in answers]
        if self.recommender.labels is not None:
            items = [[item for item, _ in one] for one in answers]
            found["label_probability"] = self.probabilities(histories, items, times, request_time, positive, events)
        return found

    def histories(
        self,
        ids: list[list[str]],
        times: list[list[int]] | None = None,
        request_time: list[int] | None = None,
        positive: list[list[bool]] | None = None,
        events: list[list[str]] | None = None,
    ) -> Histories:
        """Histories of item ids as the model reads them; arguments as in `recommend`."""
        if times is not None and [len(one) for one in times] != [len(one) for one in ids]:
            raise InputError("times: give one time for each event of each history, or none at all.")
        if request_time is not None and len(request_time) != len(ids):
            raise InputError(f"request_time: {len(request_time)} times for {len(ids)} histories. Give one for each, or none at all.")
        if events is not None and [len(one) for one in events] != [len(one) for one in ids]:
            raise InputError("events: give one event name for each event of each history, or none at all.")
        if positive is not None and [len(one) for one in positive] != [len(one) for one in ids]:
            raise InputError("positive: say of each event of each history whether it was, or give none at all.")
        known = [[position for position, item in enumerate(one) if item in self.index] for one in ids]

        def flat(said: list[list[Any]]) -> list[Any]:
            return [one[position] for one, kept in zip(said, known, strict=True) for position in kept]

        names = self.event_names
        if events is None:
            events = [[names.default] * len(one) for one in ids]
        names.check([name for one in events for name in one])
        found = Histories.of_items([[self.index[one[position]] for position in kept] for one, kept in zip(ids, known, strict=True)])
        event_types = names.codes(flat(events))
        liked = names.positive[event_types] if positive is None else np.array(flat(positive), dtype=bool)
        found = replace(found, event_types=event_types, positive=liked, seen=names.seen[event_types])
        if times is None:
            return found
        latest = [max(one, default=0) for one in times] if request_time is None else request_time
        return replace(found, times=np.array(flat(times), dtype=np.int64), request_time=np.array(latest, dtype=np.int64))

    def reindex(self, items: pd.DataFrame, vectors: Vectors | None) -> Recommender:
        """The same model answering the dense ids of another catalogue.

        Items known by id keep all that the model learned of them. The others are vectored from their
        text, pictures and attributes; the scorers keep what they know of the items that
        both catalogues have, and neighbours by text are looked for anew.

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
        reranker = None if recommender.reranker is None else recommender.reranker.reindex(there, len(ids))
        labels = None if recommender.labels is None else recommender.labels.reindex(there, len(ids))
        return SequentialRecommender(
            recommender.config, recommender.shape, recommender.net, other, scorers, recommender.weights, reranker, labels
        )

    def _new_text(self, items: pd.DataFrame, here: NDArray[np.int64], given: Vectors) -> tuple[torch.Tensor, torch.Tensor]:
        """Text vectors and mask of another catalogue in this model's own text space."""
        width = self.recommender.content.text.shape[1]
        text, has_text = _fitting(given.text, given.has_text, width)
        if (self.source / LANGUAGE_MODEL).is_dir():
            text, has_text = torch.zeros(len(items), width), torch.zeros(len(items), dtype=torch.bool)
            from nightloom.encoders.text import TextEncoder  # only a tuned model needs transformers to answer

            new = np.flatnonzero((here < 0) & items["text"].notna().to_numpy())
            if len(new):
                encoder = TextEncoder.load(str(self.source / LANGUAGE_MODEL))
                text[new] = torch.from_numpy(encoder.encode(items["text"].iloc[new].tolist()))
                has_text[new] = True
        return text, has_text


def _fitting(vectors: NDArray[np.float32], mask: NDArray[np.bool_], width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors and mask, copied; where they are of another width nothing is there."""
    if vectors.shape[1] != width:
        return torch.zeros(len(vectors), width), torch.zeros(len(vectors), dtype=torch.bool)
    return torch.from_numpy(np.asarray(vectors, dtype=np.float32).copy()), torch.from_numpy(mask.copy())
