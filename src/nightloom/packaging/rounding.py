"""A model with its weights rounded as a serving artefact keeps them (`nightloom.packaging.serving_precision`)."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import nn

from nightloom.models.sequential.recommender import SequentialRecommender
from nightloom.packaging.serving_precision import Precisions, rounded_columns, rounded_vectors

LINEAR = ("qkv", "gate", "out", "up_gate", "up", "down")
"""The matrices of a block of the history encoder."""


def rounded(recommender: SequentialRecommender, precisions: Precisions) -> SequentialRecommender:
    """The same model, rounded; the one that is given stays as it is."""
    vectors = rounded_vectors(recommender.item_vectors().float().numpy(), precisions.vectors)
    found = recommender.with_network(copy.deepcopy(recommender.net), torch.from_numpy(vectors))
    dim, scale = recommender.config.dim, np.float32((recommender.config.dim // recommender.config.heads) ** -0.5)
    for one in matrices_of(found):
        matrix = one.weight.data.float().numpy().T.copy()
        queries = matrix[:, :dim] if one.out_features == 3 * dim else matrix[:, :0]  # kept multiplied by the scale of attention
        queries *= scale
        matrix = rounded_columns(matrix, precisions.encoder).copy()
        matrix[:, : queries.shape[1]] /= scale
        one.weight.data = torch.from_numpy(matrix.T.copy())
    return found


def matrices_of(recommender: SequentialRecommender) -> list[nn.Linear]:
    """The layers that are rounded."""
    blocks: Any = recommender.net.encoder.blocks  # torch types its modules as tensors
    return [getattr(block, name) for block in blocks for name in LINEAR]
