"""Whitening of the vectors of pretrained models."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WHITE_DIM = 128
"""Principal directions to keep: whitening more of them would amplify noise."""


class Whitening(nn.Module):
    """Centre the vectors of a pretrained model and give every kept direction unit variance (PCA whitening).

    Sentence and image vectors are anisotropic: a few shared directions carry most of their length.
    The transform is fitted once, on the training catalogue, and kept with the model.
    """

    mean: Tensor
    directions: Tensor

    def __init__(self, given_dim: int) -> None:
        super().__init__()
        self.width = min(WHITE_DIM, given_dim)
        self.register_buffer("mean", torch.zeros(given_dim))
        self.register_buffer("directions", torch.zeros(given_dim, self.width))

    def fit(self, vectors: Tensor) -> None:
        """Learn mean and directions from float32 [n, given_dim]; fewer than two vectors leave all of them at zero."""
        if len(vectors) < 2:
            return
        mean = vectors.mean(0)
        values, basis = torch.linalg.eigh(torch.cov((vectors - mean).double().T))
        values, basis = values.flip(0)[: self.width].clamp(min=0), basis.flip(1)[:, : self.width]
        # Directions without variance (fewer vectors than dimensions) are dropped, not divided by zero. The sign of an
        # eigenvector is arbitrary; fixing it makes two fits the same on every machine.
        signs = torch.sign(basis.gather(0, basis.abs().argmax(0, keepdim=True)))
        scale = torch.where(values > values[0] * 1e-6, values.clamp(min=1e-12).rsqrt(), torch.zeros_like(values))
        self.mean.copy_(mean)
        self.directions.copy_((basis * signs * scale).float())

    def forward(self, vectors: Tensor) -> Tensor:
        """Vectors [n, given_dim] -> whitened vectors [n, width]."""
        return (vectors - self.mean) @ self.directions
