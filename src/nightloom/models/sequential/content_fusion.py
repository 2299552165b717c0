"""One vector for each item, fused from its text, its pictures, its attributes and its id.

An item never seen in training has no id embedding of its own. It gets the learned "unknown id" vector, which id
dropout has trained on known items. So text, pictures and attributes alone place it among the others.
Where an item has no text or no picture, a learned vector takes its place, and the row of the array is ignored.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nightloom.encoders.whitening import Whitening

if TYPE_CHECKING:
    from nightloom.config import ModelConfig
    from nightloom.data.preparation.items import ItemFeatures


@dataclass(frozen=True)
class ItemContent:
    """The content of one catalogue, row i for dense item i.

    Attributes:
        text: float32 [items, text_dim], vectors of the language model (rows without text are ignored).
        has_text: bool [items].
        code_offsets: int64 [items + 1]; item i has the attribute codes `codes[code_offsets[i]:code_offsets[i + 1]]`.
        codes: int64 [codes].
        numbers: float32 [items, 2 * columns], scaled values (zero where missing), then 1 where missing.
        id_rows: int64 [items], rows of the id table; row 0 is the unknown id.
        image: float32 [items, image_dim], vectors of the vision model; of width 0 where the catalogue has no pictures.
        has_image: bool [items].
    """

    text: Tensor
    has_text: Tensor
    code_offsets: Tensor
    codes: Tensor
    numbers: Tensor
    id_rows: Tensor
    image: Tensor
    has_image: Tensor

    def __len__(self) -> int:
        return len(self.id_rows)

    @classmethod
    def build(
        cls,
        features: ItemFeatures | None,
        text: NDArray[np.float32],
        has_text: NDArray[np.bool_],
        id_rows: NDArray[np.int64],
        image: NDArray[np.float32] | None = None,
        has_image: NDArray[np.bool_] | None = None,
    ) -> ItemContent:
        """Content of a catalogue from the arrays of stage prepare and of the pretrained models.

        Args:
            features: coded attributes, or None where items have none.
            text: float32 [items, text_dim].
            has_text: bool [items].
            id_rows: int64 [items], 0 for an item without an id embedding of its own.
            image: float32 [items, image_dim], or None when there are no pictures.
            has_image: bool [items], given with `image`.
        """
        n = len(id_rows)
        offsets = np.zeros(n + 1, dtype=np.int64) if features is None else features.offsets
        codes = np.zeros(0, dtype=np.int64) if features is None else features.codes
        numbers = np.zeros((n, 0)) if features is None else np.hstack([features.numbers, ~features.numbers_known])
        return cls(
            torch.as_tensor(np.asarray(text, dtype=np.float32)),
            torch.as_tensor(has_text),
            torch.as_tensor(offsets.astype(np.int64)),
            torch.as_tensor(codes.astype(np.int64)),
            torch.as_tensor(np.asarray(numbers, dtype=np.float32)),
            torch.as_tensor(id_rows),
            torch.zeros(n, 0) if image is None else torch.as_tensor(np.asarray(image, dtype=np.float32)),
            torch.zeros(n, dtype=torch.bool) if has_image is None else torch.as_tensor(has_image),
        )

    def to(self, device: torch.device) -> ItemContent:
        """The same on another device."""
        return ItemContent(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))

    def with_text(self, text: Tensor) -> ItemContent:
        """The same items with other text vectors, float32 [items, text_dim] (gradients flow through them)."""
        return replace(self, text=text)

    def take(self, rows: Tensor) -> ItemContent:
        """The content of some items, int64 [n] -> n items."""
        starts, lengths = self.code_offsets[rows], self.code_offsets[rows + 1] - self.code_offsets[rows]
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        flat = torch.arange(int(offsets[-1]), device=rows.device) + torch.repeat_interleave(starts - offsets[:-1], lengths)
        own = {name: getattr(self, name)[rows] for name in ("text", "has_text", "numbers", "id_rows", "image", "has_image")}
        return ItemContent(code_offsets=offsets, codes=self.codes[flat], **own)


class Adapter(nn.Module):
    """Residual MLP that maps item vectors of another domain into the space of a trained encoder (Houlsby et al. 2019).

    Before it is trained it is the identity.
    """

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(dim, width), nn.Linear(width, dim)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, vectors: Tensor) -> Tensor:
        """Item vectors [n, dim] -> the same shape."""
        mapped: Tensor = vectors + self.up(nn.functional.silu(self.down(vectors)))
        return mapped


class ItemFusion(nn.Module):
    """Item vectors [n, dim] from `ItemContent`: the sum of one embedding per source, then a layer norm.

    Args:
        config: widths, and which sources are used.
        text_dim: width of the language model's vectors.
        n_codes: size of the attribute code space.
        n_numbers: width of `ItemContent.numbers`.
        n_ids: items with an id embedding of their own.
        adapter: width of the adapter over the vectors; 0 for none.
        image_dim: width of the vision model's vectors; 0 where the catalogue has no pictures.
    """

    def __init__(
        self, config: ModelConfig, text_dim: int, n_codes: int, n_numbers: int, n_ids: int, adapter: int = 0, image_dim: int = 0
    ) -> None:
        super().__init__()
        dim = config.dim
        self.use_text = config.use_text and text_dim > 0
        self.use_codes = config.use_attributes and n_codes > 0
        self.use_numbers = config.use_attributes and n_numbers > 0
        self.use_ids = config.use_ids
        self.use_images = image_dim > 0 and getattr(config, "use_images", True)  # models from before Nightloom read pictures have neither
        if self.use_text:
            self.whiten = Whitening(text_dim)
            self.text = nn.Linear(self.whiten.width, dim, bias=False)
            self.no_text = nn.Parameter(torch.zeros(dim))
        if self.use_codes:
            self.codes = nn.EmbeddingBag(n_codes, dim, mode="mean")
            self.no_codes = nn.Parameter(torch.zeros(dim))
        if self.use_numbers:
            self.numbers = nn.Linear(n_numbers, dim)
        self.ids = nn.Embedding(n_ids + 1 if self.use_ids else 1, dim)
        self.norm = nn.LayerNorm(dim)
        self.adapter = Adapter(dim, adapter) if adapter else nn.Identity()
        if self.use_images:
            self.whiten_image = Whitening(image_dim)
            self.image = nn.Linear(self.whiten_image.width, dim, bias=False)
            self.no_image = nn.Parameter(torch.zeros(dim))
        self.reset()

    def reset(self) -> None:
        """Start with small and equal weights, so that no source dominates at the beginning."""
        nn.init.normal_(self.ids.weight, std=0.02)
        if self.use_text:
            nn.init.normal_(self.text.weight, std=0.02 / self.whiten.width**0.5)
        if self.use_codes:
            nn.init.normal_(self.codes.weight, std=0.02)
        if self.use_numbers:
            nn.init.normal_(self.numbers.weight, std=0.02)
            nn.init.zeros_(self.numbers.bias)
        if self.use_images:
            nn.init.normal_(self.image.weight, std=0.02 / self.whiten_image.width**0.5)

    def fit_whitening(self, content: ItemContent) -> None:
        """Fit the whitening of text and picture vectors on the items that have them."""
        if self.use_text:
            self.whiten.fit(content.text, content.has_text)
        if self.use_images:
            self.whiten_image.fit(content.image, content.has_image)

    @torch.no_grad()
    def whitened(self, content: ItemContent) -> ItemContent:
        """The items with whitened vectors, computed once for repeated use: whitening is not trained."""
        text = self.whiten.whole(content.text) if self.use_text else content.text
        image = self._white_image(content) if self.use_images else content.image
        return replace(content, text=text, image=image)

    def _white_image(self, content: ItemContent) -> Tensor:
        return self.whiten_image(content.image.masked_fill(~content.has_image[:, None], 0))  # 0 times NaN would be NaN in the gradient

    def forward(self, content: ItemContent, hidden: Tensor | None = None, *, white: bool = False, ids: Tensor | None = None) -> Tensor:
        """Vectors of the items in `content`.

        Args:
            content: n items.
            hidden: bool [n], items whose id is dropped in this step (id dropout).
            white: whether `content` comes from `whitened`.
            ids: float32 [rows, dim], the table that `content.id_rows` counts in, row 0 the unknown id; None: the network's own.

        Returns:
            float32 [n, dim].
        """
        rows = content.id_rows if self.use_ids else torch.zeros_like(content.id_rows)
        if hidden is not None:
            rows = rows.masked_fill(hidden, 0)
        fused = self.ids(rows) if ids is None else nn.functional.embedding(rows, ids)
        if self.use_text:
            text = self.text(content.text.float() if white else self.whiten(content.text))
            fused = fused + torch.where(content.has_text[:, None], text, self.no_text)
        if self.use_images:
            image = self.image(content.image.float() if white else self._white_image(content))
            fused = fused + torch.where(content.has_image[:, None], image, self.no_image)
        if self.use_codes:
            codes = self.codes(content.codes, content.code_offsets[:-1])
            has_codes = content.code_offsets[1:] > content.code_offsets[:-1]
            fused = fused + torch.where(has_codes[:, None], codes, self.no_codes)
        if self.use_numbers:
            fused = fused + self.numbers(content.numbers)
        vectors: Tensor = self.adapter(self.norm(fused))
        return vectors
