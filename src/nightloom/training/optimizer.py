"""What a run learns with: the precision of its products, its parameter groups, its optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

BETAS = (0.9, 0.98)
"""Of Adam: how much of its two moments a step keeps."""


def precision_of(wanted: str, device: torch.device) -> torch.dtype:
    """Type of the operands of matrix products: with auto, bfloat16 where the device has instructions for it."""
    if wanted == "auto":
        has = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.cpu.get_capabilities().get("avx512_bf16", False)
        return torch.bfloat16 if has else torch.float32
    return torch.bfloat16 if wanted == "bf16" else torch.float32


def parameter_groups(net: nn.Module, rate: float, decay: float) -> list[dict[str, Any]]:
    """What learns, with weight decay on matrices of linear layers only: not on norms, biases, embeddings and single vectors."""
    matrices = {id(layer.weight) for layer in net.modules() if isinstance(layer, nn.Linear)}
    learning = [parameter for parameter in net.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in learning if id(parameter) in matrices]
    others = [parameter for parameter in learning if id(parameter) not in matrices]
    return [{"params": decayed, "lr": rate, "weight_decay": decay}, {"params": others, "lr": rate, "weight_decay": 0.0}]


def make_optimizer(name: str, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """AdamW, Adam (decay in the gradient) or SGD with momentum."""
    if name == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, nesterov=True)
    return (torch.optim.AdamW if name == "adamw" else torch.optim.Adam)(groups, betas=BETAS, fused=True)
