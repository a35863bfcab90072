"""What a training run remembers beside the weights: rings of past products and predictions, equal in every process.

Letters in shape comments: B rows, C products of a step, n entries of a queue, N processes, D width of an embedding."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.utils.checkpoint import checkpoint

# ---- all processes as one -----------------------------------------------------------------------------------------------


def processes() -> int:
    """How many processes train together; 1 where torch.distributed was not started."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _Gather(torch.autograd.Function):
    """Rows of all processes, padded to one shape by the caller. Every process computes the same loss from them, so each knows its own
    rows' gradient without being sent any; times N, because data-parallel training averages gradients over processes."""

    @staticmethod
    def forward(ctx, tensor: Tensor, counts: list[int]) -> Tensor:
        parts = [torch.empty_like(tensor) for _ in counts]
        dist.all_gather(parts, tensor.contiguous())
        before = sum(counts[: dist.get_rank()])
        ctx.own, ctx.padding = slice(before, before + counts[dist.get_rank()]), len(tensor) - counts[dist.get_rank()]
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        own = gradient[ctx.own] * processes()
        return torch.cat([own, own.new_zeros(ctx.padding, *own.shape[1:])]), None


def gather_rows(tensor: Tensor, fill: float = 0) -> Tensor:
    """The rows [B, ...] of all processes in their order; those of this process keep their gradient. Processes may differ in the number of
    rows and in every other size, which is filled up with `fill` at its end. Alone, a process gets its own tensor back."""
    if processes() == 1:
        return tensor
    shape = torch.tensor(tensor.shape, device=tensor.device)
    shapes = [torch.empty_like(shape) for _ in range(processes())]
    dist.all_gather(shapes, shape)
    sizes = torch.stack(shapes)  # [N, dimensions]
    for dimension, size in enumerate(sizes.amax(0).tolist()):
        if tensor.shape[dimension] < size:
            missing = (*tensor.shape[:dimension], size - tensor.shape[dimension], *tensor.shape[dimension + 1 :])
            tensor = torch.cat([tensor, tensor.new_full(missing, fill)], dimension)
    counts = sizes[:, 0].tolist()
    if tensor.dtype == torch.bool:  # gloo sends no booleans
        return _Gather.apply(tensor.to(torch.uint8), counts).bool()
    return _Gather.apply(tensor, counts)


def first_of_each(ids: Tensor) -> Tensor:
    """Which entries of ids [C] are the first with their value [C]: the same product may have been drawn in several processes."""
    order = ids.argsort(dim=0, stable=True)
    ordered = ids[order]
    new = torch.cat([ordered.new_ones(1, dtype=torch.bool), ordered[1:] != ordered[:-1]])
    return torch.zeros_like(new).index_put((order,), new)


# ---- rings ----------------------------------------------------------------------------------------------------------------


class Queue:
    """FIFO: a ring of rows, each a dict of equally long tensors, allocated once, at the first push.

    It is no module: its contents belong to a training run and not to a published model. `state_dict` and `load_state_dict` let a
    checkpoint carry them."""

    def __init__(self, size: int):
        self.size, self.filled, self.head, self.pushes = size, 0, 0, 0
        self.rows: dict[str, Tensor] = {}

    def push(self, rows: dict[str, Tensor]) -> None:
        """Appends detached rows, the oldest making place; of more rows than `size` the last ones stay."""
        count = len(next(iter(rows.values())))
        rows = rows | {"push": torch.full((count,), self.pushes, device=next(iter(rows.values())).device)}
        rows = {name: tensor.detach()[-self.size :] for name, tensor in rows.items()}
        count = min(count, self.size)
        if not self.rows:
            self.rows = {name: tensor.new_empty(self.size, *tensor.shape[1:]) for name, tensor in rows.items()}
        fits = min(count, self.size - self.head)
        for name, tensor in rows.items():
            self.rows[name][self.head : self.head + fits] = tensor[:fits]
            self.rows[name][: count - fits] = tensor[fits:]
        self.head, self.filled, self.pushes = (self.head + count) % self.size, min(self.filled + count, self.size), self.pushes + 1

    def contents(self) -> dict[str, Tensor]:
        """The filled rows, views of the ring, in no particular order; empty before the first push."""
        return {name: tensor[: self.filled] for name, tensor in self.rows.items()}

    def ages(self) -> Tensor:
        """How many pushes ago each row [n] came, at least 1."""
        return self.pushes - self.rows["push"][: self.filled]

    def state_dict(self) -> dict[str, Tensor]:
        return {**self.rows, "_place": torch.tensor([self.filled, self.head, self.pushes])}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        state = dict(state)
        filled, head, pushes = state.pop("_place").tolist()
        if state and len(next(iter(state.values()))) != self.size:
            raise ValueError(f"queue_size: {self.size}, but the checkpoint's queue has {len(next(iter(state.values())))} entries")
        self.rows, self.filled, self.head, self.pushes = {name: tensor.clone() for name, tensor in state.items()}, filled, head, pushes


class DocQueue(Queue):
    """Past products, with their ids and languages (METHOD 2.3): their embeddings, or their features, which are embedded anew."""

    def embeddings(self, embed: Callable[[dict[str, Tensor]], Tensor], chunk: int) -> Tensor:
        """[n, D]: constants where embeddings are kept. Features are embedded with gradient, `chunk` rows at a time; where that makes
        several chunks, only their results stay in memory, and the rest is computed once more in the backward pass."""
        rows = self.contents()
        if "embedding" in rows:
            return rows["embedding"]
        rows["language_ids"] = rows.pop("language")
        names = [name for name in rows if name not in ("product", "family", "push")]
        values = {name: rows[name].clone() for name in names}  # the ring is written to before the backward pass
        if self.filled <= chunk:
            return embed(values)
        parts = zip(*(values[name].split(chunk) for name in names), strict=True)
        return torch.cat([checkpoint(lambda *part: embed(dict(zip(names, part, strict=True))), *part, use_reentrant=False) for part in parts])

    def drift(self, ids: Tensor, embeddings: Tensor) -> Tensor | None:
        """Mean 1 - cos, in [0, 2], between queued embeddings and fresh ones [C, D] of the products ids [C]; None if none is queued."""
        rows = self.contents()
        if "embedding" not in rows or "product" not in rows:
            return None
        queued, order = rows["product"].sort(stable=True)
        place = torch.searchsorted(queued, ids).clamp_max(len(queued) - 1)
        there = queued[place] == ids
        if not there.any():
            return None
        stored = rows["embedding"][order[place[there]]].to(embeddings.dtype)
        return 1 - nn.functional.cosine_similarity(stored, embeddings[there], dim=-1).mean()


class CorrQueue(Queue):
    """Past predictions, their gold scores and languages (METHOD 2.4), to be correlated with those of the step."""

    def joined(self, step: dict[str, Tensor]) -> dict[str, Tensor]:
        """The step's rows [B], and the queued ones behind them, as constants: [B + n] each."""
        rows = self.contents()
        return {name: torch.cat([values, rows[name].to(values)]) if rows else values for name, values in step.items()}


class SlowCopy:
    """A copy of modules that follows their weights slowly: after each step slow = decay * slow + (1 - decay) * weights."""

    def __init__(self, decay: float):
        self.decay, self.modules = decay, ()
        self.restored: dict[str, Tensor] = {}  # until there are modules: outside of a step those of a sharded model have only their share

    @torch.no_grad()
    def follow(self, *modules: nn.Module) -> tuple[nn.Module, ...]:
        """The copy of modules, moved by one step; at first it is equal to them, or what was restored."""
        if not self.modules:
            self.modules = tuple(copy.deepcopy(module).eval().requires_grad_(False) for module in modules)
            for index, slow in enumerate(self.modules if self.restored else ()):
                slow.load_state_dict({name.partition(".")[2]: t for name, t in self.restored.items() if name.startswith(f"{index}.")})
            self.restored = {}
        for slow, module in zip(self.modules, modules, strict=True):
            for old, new in zip(slow.parameters(), module.parameters(), strict=True):
                # a sharded model may show this process's share of a weight alone, as in the first step after a resume
                old.lerp_(new.full_tensor() if hasattr(new, "full_tensor") else new, 1 - self.decay)
        return self.modules

    def state_dict(self) -> dict[str, Tensor]:
        own = {f"{index}.{name}": tensor for index, module in enumerate(self.modules) for name, tensor in module.state_dict().items()}
        return own or self.restored

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.modules, self.restored = (), {name: tensor.clone() for name, tensor in state.items()}
