"""A language model that is larger than a device: weights, gradients and optimizer state are shared out over the workers (FSDP2).

Each worker holds its part of every weight. A block's weights are brought together while the block computes, and given back after it.
Checkpoints are those of torch.distributed.checkpoint: each worker writes its part, and any number of workers can read them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from nightloom.training.distributed import World


class ShardedModel:
    """A model that is shared out over the workers; its parameters become distributed tensors.

    Args:
        model: a transformers model without a head, in the processor's memory; each block moves to the device as it is cut.
        world: this worker among all, more than one.
    """

    def __init__(self, model: nn.Module, world: World) -> None:
        self.model, self.mesh = model, init_device_mesh(world.device.type, (world.size,))
        blocks = max((part for part in model.modules() if isinstance(part, nn.ModuleList)), key=len, default=nn.ModuleList())
        for part in (*blocks, model):
            # The root is given back after its forward pass too: weights that are set later would not be seen otherwise.
            shard: Any = fully_shard(part, mesh=self.mesh, reshard_after_forward=True)
            shard.set_gradient_divide_factor(1.0)  # a sum over the workers, as everywhere in training
            shard.set_force_sum_reduction_for_comms(True)  # gloo knows no other

    def whole(self) -> dict[str, Any]:
        """All weights, in the processor's memory of rank 0; empty at the others. All workers call it together."""
        return get_model_state_dict(self.model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))

    def save(self, folder: Path, optimizer: Optimizer, average: list[Tensor], best: list[Tensor]) -> None:
        """Write a checkpoint; all workers call it together.

        Args:
            folder: which all workers see.
            optimizer: of this model's parameters alone.
            average: this worker's part of the averaged weights.
            best: this worker's part of the best epoch's.
        """
        save(self._state(optimizer, average, best), checkpoint_id=folder)

    def load(self, folder: Path, optimizer: Optimizer) -> tuple[list[Tensor], list[Tensor]]:
        """Read a checkpoint into model and optimizer; returns this worker's parts of the average and of the best epoch's weights."""
        parts = [parameter.to_local().detach() for parameter in self._parameters()]
        average, best = [part.clone() for part in parts], [part.clone() for part in parts]
        state = self._state(optimizer, average, best)
        load(state, checkpoint_id=folder)
        set_state_dict(self.model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
        return average, best

    def _state(self, optimizer: Optimizer, average: list[Tensor], best: list[Tensor]) -> dict[str, Any]:
        model, state = get_state_dict(self.model, optimizer)
        return {"model": model, "optimizer": state, "average": self._spread(average), "best": self._spread(best)}

    def _parameters(self) -> list[Any]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def _spread(self, parts: list[Tensor]) -> dict[str, DTensor]:
        """This worker's parts as distributed tensors, which share their memory."""
        return {
            str(number): DTensor.from_local(
                part, self.mesh, parameter.placements, run_check=False, shape=parameter.shape, stride=parameter.stride()
            )
            for number, (parameter, part) in enumerate(zip(self._parameters(), parts, strict=True))
        }
