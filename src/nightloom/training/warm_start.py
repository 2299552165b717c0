"""Starting tonight's network from the champion's instead of from probability.

The caller's process decides whether the champion may be used and lays its weights out for tonight's catalogue
(`write_start`); the workers only copy them in (`WarmStart.into`). A champion keeps two sets of weights: `model.safetensors`,
refitted on everything before its test cutoff, and `search.safetensors`, which learned only from what came before its
validation cutoff. Tonight's search starts from the second and tonight's refit from the first, so the epoch and the
fusion are still chosen on events that no weight has seen.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from nightloom.core.errors import InputError
from nightloom.encoders.vectors import Vectors

if TYPE_CHECKING:
    import pandas as pd

    from nightloom.data.preparation.items import FeatureSpec
    from nightloom.models.sequential.network import SequentialNetwork

SEARCH_FILE = "search.safetensors"
START_FILE = "warm_start.safetensors"
PHASES = ("search", "refit")
SAME = 0.99
"""Smallest median cosine of two nights' vectors of the same items: below it another model has made them."""

IDS, CODES, NUMBERS, BIAS, EVENT_TYPES = (
    "fusion.ids.weight", "fusion.codes.weight", "fusion.numbers.weight", "fusion.numbers.bias", "encoder.event_types.weight",
)  # fmt: skip


class ColdStart(Exception):
    """Why a night trains from scratch, in words."""


@dataclass(frozen=True)
class Known:
    """What weights refer to: the catalogue, its vocabularies and its event names.

    Attributes:
        item_ids: object [items], by dense id.
        spec: how attributes are coded.
        event_types: event names by code.
    """

    item_ids: NDArray[np.object_]
    spec: FeatureSpec
    event_types: list[str]


@dataclass(frozen=True)
class WarmStart:
    """Weights remapped out for tonight's catalogue, as a worker reads them.

    Attributes:
        tensors: `<phase>.<name>` -> weights; NaN where the champion knows nothing. Ids have a row for the unknown id, then one
            for each item of the catalogue.
    """

    tensors: dict[str, Tensor]

    @classmethod
    def load(cls, path: Path) -> WarmStart:
        """Read what `write_start` wrote.

        Raises:
            InputError: the file is missing or broken.
        """
        try:
            return cls(load_file(path))
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path}: not readable weights ({error}). Remove the folder and train again.") from error

    @torch.no_grad()
    def into(self, net: SequentialNetwork, phase: int, seen: NDArray[np.int64]) -> None:
        """Copy the weights of a phase into a fresh network; what the champion does not know keeps its fresh start.

        Args:
            net: tonight's network, on the CPU.
            phase: 0 search, 1 refit.
            seen: int64 [ids], dense items with an id of their own, in the order of their rows.
        """
        for name, value in net.state_dict().items():
            place = f"{PHASES[phase]}.{name}"
            if name.startswith("label_head.") and place not in self.tensors:
                continue  # a champion without a label head says all the same what the rest starts from
            given = self.tensors[place]
            if name == IDS and net.fusion.use_ids:
                given = given[torch.from_numpy(np.concatenate([[0], seen + 1]))]
            value.copy_(torch.where(torch.isnan(given), value, given))


def save_search(folder: Path, weights: dict[str, Tensor], id_rows: Tensor, settings: dict[str, Any]) -> None:
    """Keep a bundle's weights from before its validation cutoff, and the settings that a warm start must share.

    Args:
        folder: the bundle.
        weights: state of the network after the search.
        id_rows: int64 [items], rows of the id table in that state.
        settings: what `settings_of` gave.
    """
    tensors = {f"net.{name}": value.detach().cpu().contiguous().clone() for name, value in weights.items()}
    tensors["content.id_rows"] = id_rows.cpu().clone()
    save_file(tensors, folder / SEARCH_FILE, {"settings": json.dumps(settings, sort_keys=True)})


def settings_of(config: dict[str, Any]) -> dict[str, Any]:
    """The settings that shape what weights mean; where they differ from the champion's, a night trains from scratch.

    Args:
        config: the run's config as JSON values.
    """
    free: dict[str, set[str]] = {
        "model": {"scorers", "reranker", "dropout", "id_dropout"},
        "prepare": {"validation_share", "test_share"},
        "pretrained": set(),
    }
    if "image" not in config.get("data", {}).get("features", {}).values():  # without pictures it does not matter how they would be seen
        free["model"].add("use_images")
        free["pretrained"] = {"image_model", "image_sha256"}
    free["pretrained"].add("max_bad_images")
    kept = {
        f"{section}.{key}": value for section, free_keys in free.items() for key, value in config[section].items() if key not in free_keys
    }
    return kept | {"training.tuning": config["training"]["tuning"]}


def check_cutoffs(champion: dict[str, Any], tonight: dict[str, Any], protocol: str) -> None:
    """The leak rule: weights must not have learned from what tonight holds out.

    Args:
        champion: its `meta.json`.
        tonight: tonight's `meta.json`.
        protocol: which split.

    Raises:
        ColdStart: the champion has seen held-out events, or nobody can tell.
    """
    if protocol != "temporal":
        raise ColdStart("leave-one-out holds out each user's last events, and a model of an earlier night has learned from them")
    if not (champion.get("has_time") and tonight.get("has_time")):
        raise ColdStart("without timestamps it can not be told which events the champion has learned from")
    theirs, ours = (meta.get("cutoffs", {}).get(protocol) for meta in (champion, tonight))
    seen = champion.get("trained_until", {}).get(protocol)
    if not theirs or not ours or seen is None:
        raise ColdStart("the champion does not say until when it was trained under the temporal split")
    if seen >= ours["test"] or theirs["test"] > ours["test"]:
        raise ColdStart(f"the champion has learned from events until {_day(seen)}, and tonight's test begins at {_day(ours['test'])}")
    if theirs["validation"] > ours["validation"]:
        raise ColdStart(
            f"the champion's search learned from events until {_day(theirs['validation'])}, and tonight's validation begins at "
            f"{_day(ours['validation'])}"
        )


def write_start(config: dict[str, Any], protocol: str, prepared: Path, pretrained: Path, champion: Path, out: Path) -> dict[str, Any]:
    """Write the champion's weights as tonight's workers read them, to `out / START_FILE`.

    Args:
        config: tonight's config as JSON values.
        protocol: which split.
        prepared: tonight's folder of stage prepare.
        pretrained: tonight's folder of stage load_pretrained.
        champion: its bundle.
        out: gets the file.

    Returns:
        Figures: `sha256` of the file, `items_kept` and `items_new` (of tonight's catalogue, by whether the champion has
        learned their id), `trained_until` of the champion.

    Raises:
        ColdStart: tonight must train from scratch; says why.
        InputError: the champion is no whole bundle.
    """
    from nightloom.models.sequential.network import SequentialNetwork
    from nightloom.packaging.bundle import Bundle

    bundle, meta = Bundle.load(champion), json.loads((prepared / "meta.json").read_text(encoding="utf-8"))
    check_cutoffs(bundle.meta, meta, protocol)
    phases = _weights(champion, bundle, config)
    tonight = _known(prepared, meta)
    _check_vectors(bundle, tonight, Vectors.load(pretrained))
    before = Known(bundle.item_ids, bundle.spec, bundle.meta["event_types"])
    tensors = {
        f"{phase}.{name}": value for phase, (net, rows) in phases.items() for name, value in remap(net, rows, before, tonight).items()
    }
    sizes = (tonight.spec.n_codes, 2 * len(tonight.spec.scales), len(tonight.item_ids), len(tonight.event_types))
    shape = bundle.recommender.shape.__class__(
        bundle.recommender.shape.text_dim,
        *sizes,
        True,
        image_dim=bundle.recommender.shape.image_dim,
        labelled=bundle.recommender.shape.labelled,
    )
    for name, value in SequentialNetwork(bundle.recommender.config, shape).state_dict().items():
        for phase in PHASES:
            given = tensors.get(f"{phase}.{name}")
            if given is None or given.shape != value.shape:
                was = "none" if given is None else tuple(given.shape)
                raise ColdStart(f"layer {name} has the shape {tuple(value.shape)} tonight, the champion's is {was}")
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, out / START_FILE)
    kept = int((_rows(before.item_ids, tonight.item_ids, phases["refit"][1]) > 0).sum())
    return {
        "sha256": sha256((out / START_FILE).read_bytes()).hexdigest(),
        "items_kept": kept,
        "items_new": len(tonight.item_ids) - kept,
        "trained_until": bundle.meta["trained_until"][protocol],
    }


def remap(net: dict[str, Tensor], id_rows: Tensor, before: Known, tonight: Known) -> dict[str, Tensor]:
    """Weights over another catalogue: the vectors of items, values and event names that both know stay what they were.

    Args:
        net: the network's state.
        id_rows: int64 [items of before], rows of the id table.
        before: what the state refers to.
        tonight: what the result refers to.

    Returns:
        The state, NaN where only tonight knows a value; the id table has one row for the unknown id and one for each item, and
        an item that was not known starts from the unknown id.
    """
    state = dict(net)
    if len(state[IDS]) > 1:
        rows = _rows(before.item_ids, tonight.item_ids, id_rows)
        state[IDS] = torch.cat([state[IDS][:1], state[IDS][torch.from_numpy(rows)]])
    if CODES in state:
        state[CODES] = by_name(state[CODES], before.spec.describe(), tonight.spec.describe())
    if EVENT_TYPES in state:
        state[EVENT_TYPES] = by_name(state[EVENT_TYPES], before.event_types, tonight.event_types)
    if NUMBERS in state:
        state[NUMBERS], state[BIAS] = _rescaled(state[NUMBERS], state[BIAS], before.spec, tonight.spec)
    return state


def _rescaled(weight: Tensor, bias: Tensor, before: FeatureSpec, tonight: FeatureSpec) -> tuple[Tensor, Tensor]:
    """The layer of numbers under tonight's means and spreads, giving what it gave: a linear layer takes up a linear change.

    With z = (x - m) / s before and z' = (x - m') / s' tonight, z = z' s'/s + (m' - m)/s; the constant goes to the bias and, since a
    missing number is 0 under both, is taken back by the weight of "missing".
    """
    old, new = list(before.scales), list(tonight.scales)
    out, shifted = weight.new_full((len(weight), 2 * len(new)), torch.nan), bias.clone()
    for column, name in enumerate(new):
        if name not in old:
            continue
        (mean, spread), (mean_now, spread_now) = before.scales[name], tonight.scales[name]
        known, missing = weight[:, old.index(name)], weight[:, len(old) + old.index(name)]
        constant = known * ((mean_now - mean) / spread)
        out[:, column], out[:, len(new) + column] = known * (spread_now / spread), missing - constant
        shifted += constant
    return out, shifted


def by_name(table: Tensor, before: list[Any], tonight: list[Any]) -> Tensor:
    """Rows of an embedding in tonight's order; NaN for names that are new."""
    where = {name: row for row, name in enumerate(before)}
    rows = torch.tensor([where.get(name, -1) for name in tonight], dtype=torch.int64)
    return torch.where((rows >= 0)[:, None], table[rows.clamp(min=0)], torch.nan)


def _rows(before: NDArray[np.object_], tonight: NDArray[np.object_], id_rows: Tensor) -> NDArray[np.int64]:
    """Row of the champion's id table for each of tonight's items, 0 where it has none; int64 [items]."""
    where = {item: dense for dense, item in enumerate(before.tolist())}
    here = np.array([where.get(item, -1) for item in tonight.tolist()], dtype=np.int64)
    return np.where(here >= 0, id_rows.numpy()[np.maximum(here, 0)], 0)


def _weights(champion: Path, bundle: Any, config: dict[str, Any]) -> dict[str, tuple[dict[str, Tensor], Tensor]]:
    """Phase -> state of the network and rows of its id table."""
    if config["training"]["tuning"] != "frozen":
        raise ColdStart("the language model is tuned too, and its tuning starts anew each night")
    path = champion / SEARCH_FILE
    if not path.is_file():
        raise ColdStart("the champion keeps no weights from before its validation cutoff")
    with safe_open(path, "pt") as file:
        theirs: dict[str, Any] = json.loads((file.metadata() or {}).get("settings", "{}"))
    ours = json.loads(json.dumps(settings_of(config)))
    differ = sorted(key for key in theirs | ours if theirs.get(key) != ours.get(key))
    if differ:
        raise ColdStart(
            "these settings are not the champion's: " + ", ".join(f"{key} ({theirs.get(key)} -> {ours.get(key)})" for key in differ)
        )
    tensors = load_file(path)
    search = {name[4:]: value for name, value in tensors.items() if name.startswith("net.")}
    return {
        "search": (search, tensors["content.id_rows"]),
        "refit": (bundle.recommender.net.state_dict(), bundle.recommender.content.id_rows),
    }


def _known(prepared: Path, meta: dict[str, Any]) -> Known:
    import pandas as pd

    from nightloom.data.preparation.items import FeatureSpec

    items: pd.DataFrame = pd.read_parquet(prepared / "items.parquet", columns=["item_id"])
    return Known(items["item_id"].to_numpy(dtype=object), FeatureSpec.load(prepared / "feature_spec.json"), meta["event_types"])


def _check_vectors(bundle: Any, tonight: Known, vectors: Vectors) -> None:
    """Whether the same models have read texts and pictures: most items that both nights have must have the same vectors."""
    here, content = np.array([bundle.index.get(item, -1) for item in tonight.item_ids.tolist()], dtype=np.int64), bundle.recommender.content
    for kind, said in (("text", "language model has read the texts"), ("image", "vision model has seen the pictures")):
        ours, mask = getattr(vectors, kind), getattr(vectors, f"has_{kind}")
        theirs, had = getattr(content, kind).numpy(), getattr(content, f"has_{kind}").numpy()
        if ours.shape[1] != theirs.shape[1]:
            raise ColdStart(f"{kind} vectors are {ours.shape[1]} wide tonight, the champion's are {theirs.shape[1]}")
        both = np.flatnonzero((here >= 0) & mask & had[np.maximum(here, 0)])
        if len(both):
            a, b = ours[both], theirs[here[both]]
            cosine = (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-12)
            if np.median(cosine) < SAME:
                raise ColdStart(f"another {said} since the champion was trained")


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
