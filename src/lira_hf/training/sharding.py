"""FSDP2, as accelerate does it: on processes without a GPU too, and back to a whole model."""

from __future__ import annotations

import torch
from accelerate import Accelerator, DistributedType, PartialState
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.environment import parse_flag_from_env
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule
from transformers import TrainingArguments

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
