"""Starting tonight's network from the champion's weights instead of random ones.

The caller's process decides whether the champion may be used and remaps its weights to tonight's catalogue
(`write_start`); the workers only copy them in (`WarmStart.into`). Two sets of weights are known of a champion:
`model.safetensors` in its bundle, refitted on everything before its test cutoff, and `search.safetensors` beside the
bundle in the stage's folder, which learned only from what came before its validation cutoff. The second is not
registered: who has both sees what the refit has learned. Tonight's search starts from the second and tonight's refit
from the first. So the epoch and the fusion weights are still chosen on events that no weight has seen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
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
from nightloom.core.streaming import IN_TIME, cut_in_time
from nightloom.encoders.vectors import Vectors
from nightloom.training.curves import PHASES
from nightloom.training.remap_weights import IDS, Known, id_rows_of, remap

if TYPE_CHECKING:
    import pandas as pd

    from nightloom.models.sequential.network import SequentialNetwork

SEARCH_FILE = "search.safetensors"
START_FILE = "warm_start.safetensors"
SAME = 0.99
"""Smallest median cosine between two nights' vectors of the same items; below it another model made them."""


class ColdStart(Exception):
    """Why a night trains from scratch, in words."""


@dataclass(frozen=True)
class WarmStart:
    """Weights remapped to tonight's catalogue, as a worker reads them.

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
                continue  # of a champion without a label head, the rest still counts
            given = self.tensors[place]
            if name == IDS and net.fusion.use_ids:
                given = given[torch.from_numpy(np.concatenate([[0], seen + 1]))]
            value.copy_(torch.where(torch.isnan(given), value, given))


def save_search(folder: Path, weights: dict[str, Tensor], id_rows: Tensor, settings: dict[str, Any]) -> None:
    """Keep the weights from before the validation cutoff, and the settings that a warm start must share.

    Args:
        folder: where to, beside the bundle.
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
        "model": {"scorers", "min_support", "reranker", "dropout", "id_dropout"},
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


def check_cutoffs(champion: Mapping[str, Any], tonight: Mapping[str, Any], protocol: str) -> None:
    """The leak rule: weights must not have learned from what tonight holds out.

    Args:
        champion: its `meta.json`.
        tonight: tonight's `meta.json`.
        protocol: which split.

    Raises:
        ColdStart: the champion has seen held-out events, or that can not be ruled out.
    """
    if protocol not in IN_TIME:
        held_out = "each user's last events" if protocol == "leave_one_out" else "events of any time"
        raise ColdStart(
            f"the {protocol.replace('_', '-')} split holds out {held_out}, and a model of an earlier night has learned from them"
        )
    if not (champion.get("has_time") and tonight.get("has_time")):
        raise ColdStart("without timestamps the events that the champion has learned from are unknown")
    theirs, ours, seen = cut_in_time(champion, "cutoffs"), cut_in_time(tonight, "cutoffs"), cut_in_time(champion, "trained_until")
    if not theirs or not ours or seen is None:
        raise ColdStart("the champion does not say until when it was trained under a split in time")
    if seen >= ours["test"] or theirs["test"] > ours["test"]:
        raise ColdStart(f"the champion has learned from events until {_day(seen)}, and tonight's test begins at {_day(ours['test'])}")
    if theirs["validation"] > ours["validation"]:
        raise ColdStart(
            f"the champion's search learned from events until {_day(theirs['validation'])}, and tonight's validation begins at "
            f"{_day(ours['validation'])}"
        )


def write_start(
    config: dict[str, Any], protocol: str, prepared: Path, pretrained: Path, champion: Path, search: Path, out: Path
) -> dict[str, Any]:
    """Write the champion's weights as tonight's workers read them, to `out / START_FILE`.

    Args:
        config: tonight's config as JSON values.
        protocol: which split.
        prepared: tonight's folder of stage prepare.
        pretrained: tonight's folder of stage load_pretrained.
        champion: its bundle.
        search: its weights from before its validation cutoff; those in the bundle count where it was made by an earlier version.
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
    phases = _weights(bundle, search, config)
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
    kept = int((id_rows_of(before.item_ids, tonight.item_ids, phases["refit"][1]) > 0).sum())
    return {
        "sha256": sha256((out / START_FILE).read_bytes()).hexdigest(),
        "items_kept": kept,
        "items_new": len(tonight.item_ids) - kept,
        "trained_until": cut_in_time(bundle.meta, "trained_until"),
    }


def _weights(bundle: Any, search_file: Path, config: dict[str, Any]) -> dict[str, tuple[dict[str, Tensor], Tensor]]:
    """Phase -> state of the network and rows of its id table."""
    if config["training"]["tuning"] != "frozen":
        raise ColdStart("the language model is tuned too, and its tuning starts anew each night")
    path = search_file if search_file.is_file() else bundle.folder / SEARCH_FILE
    if not path.is_file():
        raise ColdStart("the champion's weights from before its validation cutoff are not on this machine or were never kept")
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
        theirs, known = getattr(content, kind).numpy(), getattr(content, f"has_{kind}").numpy()
        if ours.shape[1] != theirs.shape[1]:
            raise ColdStart(f"{kind} vectors are {ours.shape[1]} wide tonight, the champion's are {theirs.shape[1]}")
        both = np.flatnonzero((here >= 0) & mask & known[np.maximum(here, 0)])
        if len(both):
            a, b = ours[both], theirs[here[both]]
            cosine = (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-12)
            if np.median(cosine) < SAME:
                raise ColdStart(f"another {said} since the champion was trained")


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
