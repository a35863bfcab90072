"""FSDP2, as accelerate does it: on processes without a GPU too, and back to a whole model."""

from __future__ import annotations

import torch
from accelerate import Accelerator, DistributedType, PartialState
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.environment import parse_flag_from_env
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule
from transformers import TrainerCallback, TrainingArguments

from lira_hf.modeling import LiraHead


def shard_on_cpus(args: TrainingArguments) -> None:
    """Where FSDP is asked for, accelerate 1.15 shards on GPUs and their like, and quietly trains whole copies on CPUs. Its state gets
    here, before the Trainer asks for it, what it gives itself on GPUs; everything else is accelerate's."""
    asked = args.fsdp_plugin_args is not None or parse_flag_from_env("ACCELERATE_USE_FSDP")
    if not asked or args.world_size == 1 or args.device.type != "cpu":
        return
    plugin = FullyShardedDataParallelPlugin(**(args.fsdp_plugin_args or {}))
    if args.mixed_precision != "no":
        plugin.set_mixed_precision(args.mixed_precision)
    state = Accelerator(mixed_precision=args.mixed_precision, cpu=True).state  # shared with the Trainer's own Accelerator
    state.fsdp_plugin, state.distributed_type, PartialState().distributed_type = plugin, DistributedType.FSDP, DistributedType.FSDP


def whole(model: LiraHead) -> LiraHead | None:
    """The model itself; of a sharded one, a copy on the CPU that is whole, in the main process, and None in the others.
    All processes must call it."""
    if not isinstance(model, FSDPModule):
        return model
    weights = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if not weights:
        return None
    kind = next(base for base in type(model).__mro__ if not issubclass(base, FSDPModule))  # fully_shard gave it a class of its own
    with torch.device("meta"):
        copy = kind(model.config)
    copy.load_state_dict(weights, assign=True)
    if model.can_generate():
        copy.generation_config = model.generation_config
    return copy.eval()


class StateOfAll(TrainerCallback):
    """Gives the parameters of a sharded model that have had no gradient yet the optimizer state of a fresh start: a sharded checkpoint is
    read back with a state for each of them, and refused where one is missing."""

    def on_optimizer_step(self, args, state, control, model=None, optimizer=None, **kwargs):
        if not isinstance(model, FSDPModule) or not optimizer.state:
            return
        like, known = next(iter(optimizer.state.items()))
        for parameter in (each for group in optimizer.param_groups for each in group["params"] if each not in optimizer.state):
            fresh = {name: torch.zeros_like(parameter if value.shape == like.shape else value) for name, value in known.items()}
            optimizer.state[parameter] = fresh
