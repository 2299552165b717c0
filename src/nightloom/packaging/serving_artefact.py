"""The serving artefact: what the service needs of a bundle, laid out so that it answers without torch (see `serving_format`).

It is made at promotion, where torch is at hand. Weights are transposed, split and scaled as the kernels of `nightloom.serving` read
them, and the graph's division by popularity is undone, so that every event can count.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from nightloom.core.columns import CATALOGUE
from nightloom.core.digests import digest
from nightloom.core.errors import InputError
from nightloom.core.files import whole_folder, write_json
from nightloom.core.int8_rows import int8_rows
from nightloom.core.moments import VectorMoments
from nightloom.core.queries import Query
from nightloom.core.ragged import owners
from nightloom.models.heads.item_counters import DAY, ItemCounters
from nightloom.models.heads.label_head import SCALE
from nightloom.models.heads.reranker import CANDIDATES, WINDOWS, Reranker
from nightloom.models.scorers.als import ALS
from nightloom.models.scorers.graph import TransitionGraph
from nightloom.models.scorers.item_graph import ItemGraph
from nightloom.models.scorers.popularity import Popularity
from nightloom.models.scorers.text_neighbours import TextNeighbours
from nightloom.models.scorers.trend import Trend
from nightloom.models.sequential.attention import position_bucket
from nightloom.models.sequential.recommender import SequentialRecommender
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.manifest import FILE as BUNDLE_FILE
from nightloom.packaging.reader import SPEC
from nightloom.packaging.rounding import rounded
from nightloom.packaging.serving_format import (
    EXPLAINER,
    LABELS,
    NETWORK,
    NEW_ITEMS,
    PENALTY,
    PROBES,
    RERANKER,
    SCORERS,
    TEXT_ENCODER,
    TEXTS,
    ServingManifest,
)
from nightloom.packaging.serving_precision import SINGLE, Precisions, stored

Arrays = dict[str, NDArray[Any]]
PROBED = 20
"""Items of a probe's answer."""


def write_serving(
    bundle: Path,
    folder: Path,
    text_encoder: Mapping[str, Any] | None = None,
    files: Path | None = None,
    explainer: Path | None = None,
    sequence: Mapping[str, Any] | None = None,
) -> ServingManifest:
    """Make the serving artefact of a bundle. The same bundle gives the same files.

    Args:
        bundle: a bundle folder.
        folder: where to; it must not be there yet, and is there only whole.
        text_encoder: see `ServingManifest`.
        files: folder of the text encoder where it shall lie in the artefact.
        explainer: `explainer.json` of stage explain; None where nothing was fitted.
        sequence: see `ServingManifest`; the network is kept in the precisions that it names.

    Returns:
        The artefact's manifest.

    Raises:
        InputError: the bundle is damaged, or is one of before graphs kept how often items were seen.
    """
    reader = Bundle.load(bundle)
    precisions = SINGLE if sequence is None else Precisions(sequence["encoder"], sequence["vectors"])
    if precisions != SINGLE:
        reader.recommender = rounded(reader.recommender, precisions)
    recommender = reader.recommender
    with whole_folder(folder) as made, torch.no_grad():
        _save(made / NETWORK, stored(network_arrays(recommender), precisions))
        _save(made / SCORERS, scorer_arrays(recommender, bundle))
        _save(made / NEW_ITEMS, new_item_arrays(recommender))
        if recommender.reranker is not None:
            _save(made / RERANKER, reranker_arrays(recommender.reranker))
        if recommender.labels is not None:
            _save(made / LABELS, label_arrays(recommender))
        if text_encoder is not None:
            _save(made / TEXTS, text_arrays(recommender))
            if files is not None:
                shutil.copytree(files, made / TEXT_ENCODER)
        write_json(made / PROBES, probes(reader))
        if explainer is not None:
            shutil.copyfile(explainer, made / EXPLAINER)
        shutil.copyfile(reader.folder / CATALOGUE, made / CATALOGUE)
        config = recommender.config
        return ServingManifest.seal(
            made,
            bundle=digest(reader.folder / BUNDLE_FILE),
            model={
                "dim": config.dim,
                "heads": config.heads,
                "blocks": config.blocks,
                "max_history": config.max_history,
                "labelled": recommender.net.label_head is not None,
                "exploration": getattr(config, "exploration", 0.0) * recommender.fused_unit,  # a model of before has none
            },
            weights=dict(recommender.weights),
            newcomer_weights=dict(recommender.weights if recommender.newcomer_weights is None else recommender.newcomer_weights),
            scorers={name: _settings(recommender.scorers[name]) for name in recommender.weights},
            reranker=_reranker_settings(recommender.reranker),
            labels=_label_settings(recommender),
            meta=dict(reader.meta),
            features=json.loads((reader.folder / SPEC).read_text(encoding="utf-8")),
            encoder=dict(reader.manifest.encoder),
            text_encoder=None if text_encoder is None else dict(text_encoder),
            sequence=None if sequence is None else dict(sequence),
        )


def network_arrays(recommender: SequentialRecommender) -> Arrays:
    """Item vectors with their moments, and the encoder's weights, float32; matrices are [in, out], so that rows are read in order."""
    net, config = recommender.net, recommender.config
    encoder, width = net.encoder, config.dim // config.heads
    vectors = _of(recommender.item_vectors())
    moments = VectorMoments(vectors)
    blocks: dict[str, list[NDArray[np.float32]]] = {name: [] for name in ("attention_norm", "kv", "qg", "out", "ffn_norm", "up", "down")}
    every: Any = encoder.blocks  # torch types its modules as tensors
    for block in every:
        query, key, value = block.qkv.weight.T.chunk(3, 1)
        parts: dict[str, torch.Tensor] = {
            "attention_norm": torch.stack([block.attention_norm.weight, block.attention_norm.bias]),
            "kv": torch.cat([key, value], 1),
            "qg": torch.cat([query * width**-0.5, block.gate.weight.T], 1),  # the scale of attention is the query's from here on
            "out": block.out.weight.T,
            "ffn_norm": torch.stack([block.ffn_norm.weight, block.ffn_norm.bias]),
            "up": torch.cat([block.up_gate.weight.T, block.up.weight.T], 1),
            "down": block.down.weight.T,
        }
        for name, part in parts.items():
            blocks[name].append(_of(part))
    near = encoder.position_bias[:, position_bucket(torch.arange(config.max_history).flip(0))]  # in the order of the keys
    dim, rows = config.dim, config.blocks * config.heads
    head = net.label_head
    return {
        "vectors": vectors,
        "mean": moments.mean,
        "covariance": moments.covariance,
        "bos": _of(encoder.bos),
        "event_types": _of(encoder.event_types.weight) if encoder.has_event_types else np.zeros((1, dim), np.float32),
        "gaps": _of(encoder.gaps.weight) if encoder.use_time else np.zeros((0, dim), np.float32),
        "negative": _of(head.negative) if head is not None else np.zeros(dim, np.float32),
        "near_bias": _of(near),
        "time_bias": _of(encoder.time_bias) if encoder.use_time else np.zeros((rows, 1), np.float32),
        "out_norm": _of(torch.stack([encoder.out_norm.weight, encoder.out_norm.bias]) * net.log_scale.exp()),
        **{name: np.stack(parts) for name, parts in blocks.items()},
    }


def scorer_arrays(recommender: SequentialRecommender, bundle: Path) -> Arrays:
    """Edges, counts and factors of the scorers that have a weight, `<scorer>.<array>`; the graph's edges are counts, not yet divided."""
    found: Arrays = {}
    for name in recommender.weights:
        one = recommender.scorers[name]
        if isinstance(one, ItemGraph):
            parts: Arrays = {"offsets": one.offsets, "targets": one.targets, "weights": one.weights, "popularity": one.popularity}
            if isinstance(one, TransitionGraph):
                if one.seen is None:
                    raise InputError(
                        f"{bundle}: its graph does not say how often items were seen, so no event can update it. It was made by an earlier "
                        "version of Nightloom: run the night again."
                    )
                seen = np.maximum(one.seen, 1).astype(np.float64)
                parts["weights"] = (one.weights * np.sqrt(seen[owners(one.offsets)] * seen[one.targets])).astype(np.float32)
                parts["seen"] = one.seen
            found |= {f"{name}.{part}": array for part, array in parts.items()}
        elif isinstance(one, Popularity):
            found |= {f"{name}.counts": one.counts, f"{name}.expected": one.expected}
        elif isinstance(one, ALS):
            found |= {f"{name}.vectors": one.vectors, f"{name}.gram": one.gram}
    if recommender.penalty is not None:
        found |= {f"{PENALTY}.values": recommender.penalty.values, f"{PENALTY}.unseen": np.array([recommender.penalty.unseen], np.float32)}
    return found


def new_item_arrays(recommender: SequentialRecommender) -> Arrays:
    """The weights of item fusion; where neighbours by text count, the whitening and the unit vectors that they are found by.

    They count as a scorer, or say what others expect of a new item; `neighbours.known` marks the items that somebody has acted on.
    """
    found: Arrays = {f"fusion.{name}": _of(value) for name, value in recommender.net.fusion.state_dict().items() if name != "ids.weight"}
    scorers = [recommender.scorers[name] for name in recommender.weights]
    found["fusion.unknown_id"] = _of(recommender.net.fusion.ids.weight[0])
    counts = [one.popularity if isinstance(one, ALS) else one.counts for one in scorers if isinstance(one, ALS | Popularity)]
    if TextNeighbours.family in recommender.weights or (counts and recommender.net.fusion.use_text):
        content = recommender.content
        space = TextNeighbours.space(content.text, content.has_text)
        found |= {f"neighbours.{name}": _of(value) for name, value in space.arrays().items()}
        found["neighbours.unit"] = _of(space(content.text, content.has_text))
        found["neighbours.known"] = counts[0] > 0 if counts else np.zeros(len(content), dtype=np.bool_)
    return found


def text_arrays(recommender: SequentialRecommender) -> Arrays:
    """Directions of the items' texts, int8 with a scale for each row; zero without text."""
    content = recommender.content
    directions, scale = int8_rows(_of(content.text.masked_fill(~content.has_text[:, None], 0)))
    return {"directions": directions, "scale": scale}


def reranker_arrays(reranker: Reranker) -> Arrays:
    """Weights of the ensemble, how its inputs are made, and its counters."""
    found: Arrays = {name: _of(value) for name, value in reranker.net.state_dict().items() if name != "codes"}
    found |= {"centre": reranker.numbers.centre, "scale": reranker.numbers.scale}
    found |= {f"bin_edges.{place}": one for place, one in enumerate(reranker.numbers.bin_edges)}
    return found | _counters("counters", reranker.item_counters)


def label_arrays(recommender: SequentialRecommender) -> Arrays:
    """Weights of the label head and its counters; the scale of the counters is in `context`.

    Raises:
        ValueError: the model has no calibrated label head.
    """
    head, labels = recommender.net.label_head, recommender.labels
    if head is None or labels is None:
        raise ValueError("the model has no calibrated label head, so there are no arrays of one")
    found = {
        "user": _of(head.user.weight.T),
        "item": _of(head.item.weight.T),
        "context": _of(head.context.weight.T / SCALE),
        "context_bias": _of(head.context.bias),
        "hidden": _of(head.hidden.weight.T),
        "hidden_bias": _of(head.hidden.bias),
        "last": _of(head.last.weight[0]),
        "last_bias": _of(head.last.bias),
        "direct": _of(head.direct.weight[0]),
    }
    return found | _counters("shown", labels.counters.shown) | _counters("positive", labels.counters.positive)


def probes(bundle: Bundle) -> list[dict[str, Any]]:
    """Requests with histories of several lengths, and the bundle's answers: fields of `Query`, then `items` and `scores`."""
    random, found = np.random.default_rng(0), []
    latest = bundle.clock.latest or 1_700_000_000
    for events in (0, 1, 50, bundle.recommender.config.max_history + 1):
        times = np.sort(latest - random.integers(0, 90 * DAY, events))
        said: dict[str, Any] = {
            "history": [bundle.item_ids[item] for item in random.integers(0, len(bundle.item_ids), events)],
            "times": times.tolist() if bundle.clock.has_time else None,
            "event_types": [bundle.event_names.known[code] for code in random.integers(0, len(bundle.event_names.known), events)],
            "request_time": latest + 1 if bundle.clock.has_time else None,
        }
        (answer,) = bundle.recommend([Query(**said)], PROBED)
        found.append(said | {"items": [item for item, _ in answer], "scores": [score for _, score in answer]})
    return found


def _counters(name: str, counters: ItemCounters) -> Arrays:
    return {f"{name}.{part}": np.asarray(getattr(counters, part)) for part in counters.__dataclass_fields__}


def _reranker_settings(reranker: Reranker | None) -> dict[str, Any] | None:
    if reranker is None:
        return None
    return {
        "members": reranker.members,
        "exclude_seen": reranker.exclude_seen,
        "calibration": [reranker.calibration.slope, reranker.calibration.offset],
        "fallback": [reranker.fallback.slope, reranker.fallback.offset],
        "candidates": CANDIDATES,
        "windows": WINDOWS,
    }


def _label_settings(recommender: SequentialRecommender) -> dict[str, Any] | None:
    if recommender.labels is None:
        return None
    line = recommender.labels.calibration
    return {"calibration": [line.slope, line.offset]}


def _settings(scorer: Any) -> Mapping[str, Any]:
    return {name: getattr(scorer, name) for name in scorer.settings} if isinstance(scorer, ItemGraph | ALS | Trend) else {}


def _of(tensor: torch.Tensor) -> NDArray[np.float32]:
    """A tensor as a float32 array of its own."""
    return np.ascontiguousarray(tensor.detach().float().cpu().numpy())


def _save(path: Path, arrays: Arrays) -> None:
    save_file({name: np.ascontiguousarray(one) for name, one in arrays.items()}, path)
