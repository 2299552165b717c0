"""Whitening of the vectors of pretrained models."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WHITE_DIM = 128
"""Principal directions to keep: whitening more of them would amplify noise."""

ROWS = 1 << 17
"""Most vectors that a transform is fitted on, and that are transformed at once: more tell no more of some hundred directions."""


BLOCK = 1 << 13
"""Vectors of a sample that are in memory in double precision at once."""


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

    def fit(self, vectors: Tensor, given: Tensor | None = None) -> None:
        """Learn mean and directions; fewer than two vectors leave all of them at zero.

        Args:
            vectors: float32 [n, given_dim].
            given: bool [n], rows that hold a vector; None: all do. Of more than `ROWS` some are taken, at equal distances.
        """
        rows = torch.arange(len(vectors)) if given is None else given.nonzero()[:, 0]
        if len(rows) < 2:
            return
        if len(rows) > ROWS:
            mean, covariance = _in_blocks(vectors, rows[torch.linspace(0, len(rows) - 1, ROWS, dtype=torch.float64).long()])
        else:
            vectors = vectors[rows]
            mean = vectors.mean(0)
            covariance = torch.cov((vectors - mean).double().T)
        values, basis = torch.linalg.eigh(covariance)
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

    @torch.no_grad()
    def whole(self, vectors: Tensor) -> Tensor:
        """As `forward`, of so many vectors that a second copy of them would be too much; not for training."""
        if len(vectors) <= ROWS:
            return self(vectors)
        found = vectors.new_empty(len(vectors), self.width)
        for first in range(0, len(vectors), ROWS):
            found[first : first + ROWS] = self(vectors[first : first + ROWS])
        return found


def _in_blocks(vectors: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean, float32 [dim], and covariance, float64 [dim, dim], of some rows, of which few are in memory in double precision at a time."""
    parts = rows.split(BLOCK)
    mean = torch.stack([vectors[part].sum(0, dtype=torch.float64) for part in parts]).sum(0) / len(rows)
    products = mean.new_zeros(len(mean), len(mean))
    for part in parts:
        centred = vectors[part].double() - mean
        products.addmm_(centred.T, centred)
    return mean.float(), products / (len(rows) - 1)
