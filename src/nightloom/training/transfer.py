"""Starting the network of one domain from that of another.

Transferred are the weights that read texts and histories: the projection of text vectors, the vector of an item without an id,
and the whole encoder. Ids and attribute values of the source are not transferred, even where both domains use the same names.
What only the target knows starts at zero, so before its first step the target's network gives the zero-shot answers.
`WarmStart` copies the weights in as it does a champion's.

Where the two catalogues hold the same items (films, or a shop's goods in another year), `shared` transfers what was learned of these too:
their id vectors, and in a zero-shot model the source's scorers. Items are the same when their whole texts are; ids mean nothing
across domains. The source's histories of these items can then be trained on beside the target's (`data/subsets/merged_domains.py`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from nightloom.core.errors import InputError
from nightloom.core.sequences import Histories
from nightloom.data.preparation.items import ItemFeatures
from nightloom.encoders.vectors import Vectors
from nightloom.models.scorers.registry import fit_scorers
from nightloom.models.sequential.content_fusion import ItemContent
from nightloom.models.sequential.network import SequentialNetwork, Shape
from nightloom.models.sequential.recommender import SequentialRecommender
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.reader import LANGUAGE_MODEL
from nightloom.training.curves import PHASES
from nightloom.training.remap_weights import BIAS, CODES, EVENT_TYPES, IDS, NUMBERS, by_name
from nightloom.training.warm_start import START_FILE

Mode = Literal["full", "adapter"]
ADAPTER = "fusion.adapter."
ADAPTER_WIDTH = 32
SHARES = {"text_neighbours": 0.5}
"""Scorers of a zero-shot model: those that need no events. What validation chose in the source is for items that its network
knows, and here it knows none, so both count alike; measured in benchmarks/transfer.md."""
MEAN = "fusion.whiten.mean"
NO_CODES = "fusion.no_codes"
IMAGE_MEAN = "fusion.whiten_image.mean"
IMAGE = ("fusion.image.weight", "fusion.no_image")
WHITE_IMAGE = "fusion.whiten_image."
OF_TIME = ("encoder.gaps.weight", "encoder.time_bias")
LEARNED_BY_ADAPTER = (ADAPTER, "log_scale")
"""What an adapter-only run trains: the adapter, and the temperature that its item vectors need."""


@dataclass(frozen=True)
class Transfer:
    """Where a run's weights come from, and which of them it trains.

    Attributes:
        bundle: the source domain's.
        mode: full: all weights are trained; adapter: the transferred ones are frozen, an adapter over the item vectors is trained.
        shared: whether items of the same text are the same items.
    """

    bundle: Path
    mode: Mode
    shared: bool = False

    def write_start(self, model: Any, prepared: Path, pretrained: Path, out: Path) -> dict[str, Any]:
        """Write the source's weights as the target's workers read them, to `out / START_FILE`; see `WarmStart`.

        Args:
            model: the model section of the target's config.
            prepared: the target's folder of stage prepare.
            pretrained: the target's folder of stage load_pretrained.
            out: gets the file.

        Returns:
            What run.json says of the start: `file`, `sha256` and `mode`.

        Raises:
            InputError: the bundle does not fit the target, or is no whole bundle.
        """
        bundle, content, shape, event_types = _target(self.bundle, prepared, pretrained)
        net = SequentialNetwork(model, replace(shape, n_ids=len(content), adapter=ADAPTER_WIDTH))
        rows = id_rows(bundle, prepared) if self.shared else None
        remapped = remap(bundle.recommender.net, bundle.meta["event_types"], net, event_types, content, rows)
        save_file({f"{phase}.{name}": value.contiguous().clone() for name, value in remapped.items() for phase in PHASES}, out / START_FILE)
        return {"file": START_FILE, "sha256": sha256((out / START_FILE).read_bytes()).hexdigest(), "mode": self.mode}


def same_items(source: pd.Series, target: pd.Series) -> NDArray[np.int64]:
    """Of each item of a catalogue, the item of another one that has the same text.

    Args:
        source: text or null by dense item, of the other catalogue.
        target: the same of this one.

    Returns:
        int64 [len(target)], dense items of the source; -1 where none has the text, or more than one has it in either catalogue.
    """
    alone = source[source.notna() & ~source.duplicated(keep=False)]
    found = pd.Series(alone.index.to_numpy(), index=alone.to_numpy()).reindex(target.to_numpy()).fillna(-1).to_numpy(dtype=np.int64)
    return np.where(target.isna() | target.duplicated(keep=False), -1, found)


def id_rows(bundle: Bundle, prepared: Path) -> NDArray[np.int64]:
    """Rows of the source's id table for row 0 (an unknown item) and each item of the target, int64 [1 + items]; 0 where they share none."""
    same = same_items(bundle.items["text"], pd.read_parquet(prepared / "items.parquet")["text"])
    own = np.append(bundle.recommender.content.id_rows.numpy(), 0)  # the last place answers -1
    return np.concatenate([[0], own[same]])


def remap(
    source: SequentialNetwork,
    event_types: list[str],
    target: SequentialNetwork,
    event_types_there: list[str],
    content: ItemContent,
    ids: NDArray[np.int64] | None = None,
) -> dict[str, Tensor]:
    """The source's weights in the shapes of the target's network.

    Args:
        source: the trained network.
        event_types: the source's event names by code.
        target: a network for the target's catalogue.
        event_types_there: the target's event names by code.
        content: the target's catalogue. Its text and image vectors are whitened as the source's were, but around their own mean:
            what all texts of a domain have in common tells none of its items from another.
        ids: what `id_rows` gave; None: no item of the target is one of the source.

    Returns:
        Name -> weights, for every name of the target's state; NaN where it keeps its own start (adapter; time, and how pictures are
        whitened, where the source has none).

    Raises:
        InputError: a layer of both has another shape, or one of them reads no text.
    """
    theirs = source.state_dict()
    texts, pictures = content.text[content.has_text], content.image[content.has_image]
    remapped: dict[str, Tensor] = {}
    if not (source.fusion.use_text and target.fusion.use_text):
        raise InputError("transfer: the two domains meet in the text of their items, and one of them has none. Give both item texts.")
    for name, value in target.state_dict().items():
        if name == IDS:
            # Every item starts from what stands for an unknown one, but those that the source knows.
            remapped[name] = (
                theirs[IDS][:1].expand_as(value) if ids is None or len(theirs[IDS]) == 1 else theirs[IDS][torch.from_numpy(ids)]
            )
        elif name == MEAN and len(texts):
            remapped[name] = texts.mean(0)
        elif name == IMAGE_MEAN and name in theirs and theirs[name].shape == value.shape and len(pictures):
            remapped[name] = pictures.mean(0)
        elif name == CODES:
            remapped[name] = theirs.get(NO_CODES, torch.zeros(value.shape[1])).expand_as(value)
        elif name in (NUMBERS, BIAS) or (name in (NO_CODES, *IMAGE) and name not in theirs):
            remapped[name] = torch.zeros_like(value)
        elif name == EVENT_TYPES:
            remapped[name] = (
                by_name(theirs[EVENT_TYPES], event_types, event_types_there).nan_to_num(0)
                if EVENT_TYPES in theirs
                else torch.zeros_like(value)
            )
        elif name.startswith(ADAPTER) or (name.startswith((*OF_TIME, WHITE_IMAGE)) and name not in theirs):
            remapped[name] = torch.full_like(value, torch.nan)
        elif name not in theirs or theirs[name].shape != value.shape:
            was = tuple(theirs[name].shape) if name in theirs else "none"
            raise InputError(
                f"transfer: layer {name} has the shape {tuple(value.shape)} in the target's model, {was} in the source's. Train the "
                "source with the model settings and the language model of the target."
            )
        else:
            remapped[name] = theirs[name]
    return remapped


def zero_shot(bundle: Path, prepared: Path, pretrained: Path, *, shared: bool = False) -> SequentialRecommender:
    """The source's model answering the target's catalogue, with nothing learned there, fused with neighbours by text (`SHARES`).

    Args:
        bundle: the source domain's.
        prepared: the target's folder of stage prepare.
        pretrained: the target's folder of stage load_pretrained.
        shared: items of the same text are the same items: the source's id vectors and scorers answer for them, with the shares
            that validation chose there.

    Raises:
        InputError: the bundle does not fit the target, or is no whole bundle.
    """
    source, content, shape, event_types = _target(bundle, prepared, pretrained)
    rows = None
    if shared:
        rows = id_rows(source, prepared)
        content = replace(content, id_rows=torch.arange(1, len(content) + 1))
        shape = replace(shape, n_ids=len(content))
    net = SequentialNetwork(source.recommender.config, shape)
    remapped = remap(source.recommender.net, source.meta["event_types"], net, event_types, content, rows)
    net.load_state_dict({name: torch.where(torch.isnan(remapped[name]), value, remapped[name]) for name, value in net.state_dict().items()})
    net.requires_grad_(False)
    scorers, shares = fit_scorers(list(SHARES), Histories.of_items([]), content), SHARES
    if shared:
        same = same_items(source.items["text"], pd.read_parquet(prepared / "items.parquet")["text"])
        there = np.full(source.recommender.n_items, -1, dtype=np.int64)
        there[same[same >= 0]] = np.flatnonzero(same >= 0)
        near = scorers
        scorers = {name: near.get(name) or one.reindex(there, len(content)) for name, one in source.recommender.scorers.items()}
        shares = dict(source.recommender.weights)
    return SequentialRecommender(source.recommender.config, shape, net, content, scorers, shares)


def freeze(net: nn.Module) -> None:
    """Let only what an adapter-only run learns have gradients."""
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name.startswith(LEARNED_BY_ADAPTER))


def _target(source: Path, prepared: Path, pretrained: Path) -> tuple[Bundle, ItemContent, Shape, list[str]]:
    """The source's bundle; the target's catalogue without ids, what its network's layers depend on, and its event names.

    Raises:
        InputError: the two have text vectors of another width, or the source's language model was tuned.
    """
    bundle, features = Bundle.load(source), ItemFeatures.load(prepared / "item_features.npz")
    if (source / LANGUAGE_MODEL).is_dir():
        raise InputError(f"{source}: its language model was tuned, so its text vectors are its own. Train it with training.tuning=frozen.")
    meta = json.loads((prepared / "meta.json").read_text(encoding="utf-8"))
    given = Vectors.load(pretrained)
    text = given.text
    if text.shape[1] != bundle.recommender.shape.text_dim:
        raise InputError(
            f"transfer: the source's text vectors are {bundle.recommender.shape.text_dim} wide, the target's {text.shape[1]}. Let one "
            f"language "
            "model read both (pretrained.model)."
        )
    content = ItemContent.build(features, text, given.has_text, np.zeros(len(features), dtype=np.int64), given.image, given.has_image)
    event_types = meta["event_types"]
    widths = (text.shape[1], features.n_codes, content.numbers.shape[1])
    return bundle, content, Shape(*widths, 0, len(event_types), bool(meta["has_time"]), image_dim=given.image.shape[1]), event_types
