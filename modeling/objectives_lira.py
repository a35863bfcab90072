"""The losses of both stages and the queue of past products: tensors in, scalars out, no model in sight.

Letters in shape comments: B rows, K candidates, d width, Q queries, C candidate products of a step (judged, batch and queue),
P pairs of a query and one of its relevant products. Scores are cosines in [-1, 1]; gains are grades 0..3 and linear.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# ---- stage 1 -------------------------------------------------------------------------------------------------------


def anchor_loss(source: Tensor, target: Tensor) -> Tensor:
    """Mean of 1 - cos(source, target) over rows [B, d]; in [0, 2] (METHOD 1.3)."""
    return (1 - F.cosine_similarity(source, target, dim=-1)).mean()


def contrastive_loss(source: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Symmetric InfoNCE between rows of source and target [B, d], the other rows being negatives (METHOD 1.8, ours).

    Zero vectors give log(B): every row is as likely as any other."""
    logits = F.normalize(source, dim=-1) @ F.normalize(target, dim=-1).T / temperature  # [B, B]
    labels = torch.arange(len(source), device=source.device)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def policy_loss(logits: Tensor, rewards: Tensor, mask: Tensor, policy: str = "expected", baseline: str = "expected") -> Tensor:
    """Loss of the actor over candidates [B, K] (METHOD 1.7); rewards carry no gradient, masked candidates no probability.

    `reinforce` samples one candidate a row from torch's global generator: -log pi(a) (R_a - b), b the expected reward or 0.
    `expected` is -sum_k pi_k R_k, whose gradient is the expectation of the former's. Rows without a candidate are left out."""
    rows = mask.any(-1)
    if not rows.any():
        return logits.sum() * 0
    logits, rewards, mask = logits[rows], rewards[rows].detach().masked_fill(~mask[rows], 0), mask[rows]
    log_policy = logits.masked_fill(~mask, -torch.inf).log_softmax(-1)  # [B, K]
    policy_ = log_policy.exp()
    expected = (policy_ * rewards).sum(-1)  # [B]
    if policy == "expected":
        return -expected.mean()
    action = torch.multinomial(policy_.detach(), 1)  # [B, 1]
    advantage = rewards.gather(-1, action)[:, 0] - (expected.detach() if baseline == "expected" else 0)
    return -(log_policy.gather(-1, action)[:, 0] * advantage).mean()


def collapse_figures(embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Mean pairwise cosine in [-1, 1] and effective rank in [1, d] of embeddings [B, d], B > 1.

    The effective rank is exp of the entropy of the normalised squared singular values (Roy & Vetterli 2007), not centred: rows
    that all point one way have rank 1."""
    unit = F.normalize(embeddings.detach().float(), dim=-1)
    count = len(unit)
    cosine = (unit.sum(0).square().sum() - count) / (count * (count - 1))
    spectrum = torch.linalg.svdvals(unit).square()
    share = spectrum / spectrum.sum()
    return cosine, torch.exp(-(share * share.clamp_min(1e-12).log()).sum())


# ---- stage 2 -------------------------------------------------------------------------------------------------------


def soft_rank(scores: Tensor, rows: Tensor, columns: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """Soft rank [P] of the products `columns` of the queries `rows`, among candidates with mask [Q, C] (METHOD 2.3).

    r_j = 1 + sum_{c != j} sigmoid((s_c - s_j) / temperature): 1 is best; the true rank as temperature -> 0."""
    own = scores[rows, columns]  # [P]
    beats = torch.sigmoid((scores[rows] - own[:, None]) / temperature) * mask[rows]  # [P, C]
    return 1 + beats.sum(-1) - 0.5 * mask[rows, columns]  # a product meets itself with sigmoid(0)


def soft_ndcg_loss(scores: Tensor, gains: Tensor, mask: Tensor, k: int, temperature: float, gate_temperature: float) -> Tensor:
    """1 - soft nDCG@k, mean over the queries that have a gain (METHOD 2.3); scores, gains and mask are [Q, C]; -1 is unjudged, gain 0.

    The gate sigmoid((k + 0.5 - r) / gate_temperature) closes past rank k. Only products with gain > 0 get a rank, so the cost is
    O(relevant * candidates)."""
    gains = gains.float().clamp_min(0).masked_fill(~mask, 0)
    ideal = gains.topk(min(k, gains.shape[-1]), dim=-1).values  # [Q, k]
    discount = torch.log2(torch.arange(2, ideal.shape[-1] + 2, device=scores.device, dtype=torch.float32))
    ideal = (ideal / discount).sum(-1)  # [Q]
    if not (ideal > 0).any():
        return scores.sum() * 0
    rows, columns = torch.nonzero(gains > 0, as_tuple=True)  # [P]
    rank = soft_rank(scores.float(), rows, columns, mask, temperature)
    gate = torch.sigmoid((k + 0.5 - rank) / gate_temperature)
    found = torch.zeros_like(ideal).index_add(0, rows, gains[rows, columns] * gate / torch.log2(1 + rank))  # [Q]
    return 1 - (found / ideal.clamp_min(1e-9))[ideal > 0].mean()


def hinge_loss(scores: Tensor, gains: Tensor, mask: Tensor, margin: float, negatives: int) -> Tensor:
    """Mean over relevant products j and their query's hardest safe negatives n of max(0, margin - s_j + s_n) (METHOD 2.3)."""
    hardest = scores.masked_fill(~mask | (gains > 0), -torch.inf).topk(min(negatives, scores.shape[-1]), dim=-1).values  # [Q, n]
    rows, columns = torch.nonzero((gains > 0) & mask, as_tuple=True)
    violation = F.relu(margin - scores[rows, columns][:, None] + hardest[rows])  # [P, n]; -inf (too few negatives) becomes 0
    count = torch.isfinite(hardest[rows]).sum()
    return violation.sum() / count.clamp_min(1)


def mean_variance_loss(embeddings: Tensor) -> Tensor:
    """Mean square of each dimension's mean, plus how far its standard deviation falls under a floor, over rows [B, D] (METHOD 2.3).

    Unit vectors spread over all dimensions have deviation 1 / sqrt(D); the floor is half of it (ours). Scaled by D, so that the
    value does not depend on the width."""
    width = embeddings.shape[-1]
    if len(embeddings) < 2:
        return embeddings.sum() * 0
    deviation = (embeddings.var(0, unbiased=False) + 1e-12).sqrt()
    return width * embeddings.mean(0).square().mean() + width**0.5 * F.relu(0.5 / width**0.5 - deviation).mean()


def consistency_loss(embeddings: Tensor, references: Tensor) -> Tensor:
    """Mean of 1 - cos between embeddings and the stop-gradient references [B, D] (METHOD 2.5)."""
    return anchor_loss(embeddings, references.detach())


def unsafe_negatives(scores: Tensor, relevances: Tensor, products: Tensor, same_judged: Tensor, max_cosine: float, max_margin: float) -> Tensor:
    """Which unjudged candidates must not serve as a query's negatives [Q, C] (METHOD 2.3, safe negatives).

    relevances [Q, C] holds grades, -1 where unjudged; products [C, D] unit vectors; same_judged [Q, C] marks a product or family id
    among the query's judged ones. Dropped: those, any whose cosine to one of the query's relevant products exceeds max_cosine, and
    any that outscores the best of them by more than max_margin. Judged products are never dropped."""
    scores, products = scores.detach(), products.detach()
    rows, columns = torch.nonzero(relevances > 0, as_tuple=True)
    closeness = products[columns] @ products.T  # [P, C]
    closest = torch.full_like(scores, -1.0).scatter_reduce(0, rows[:, None].expand_as(closeness), closeness, "amax")  # [Q, C]
    best = scores.masked_fill(relevances <= 0, -torch.inf).amax(-1, keepdim=True)  # [Q, 1]
    best = best.masked_fill(torch.isinf(best), torch.inf)  # a query without a relevant product has nothing to be outscored
    return (relevances < 0) & (same_judged | (closest > max_cosine) | (scores > best + max_margin))


class DocQueue:
    """FIFO of past products: a ring of rows, each a dict of equally long tensors, allocated at the first push.

    It is no module: its contents belong to a training run and not to a published model. `state_dict` and `load_state_dict` let a
    checkpoint carry them."""

    def __init__(self, size: int):
        self.size, self.filled, self.head = size, 0, 0
        self.rows: dict[str, Tensor] = {}

    def push(self, rows: dict[str, Tensor]) -> None:
        """Appends detached rows, the oldest making place; of more rows than `size` the last ones stay."""
        rows = {name: tensor.detach()[-self.size :] for name, tensor in rows.items()}
        count = len(next(iter(rows.values())))
        if not self.rows:
            self.rows = {name: tensor.new_empty(self.size, *tensor.shape[1:]) for name, tensor in rows.items()}
        place = (self.head + torch.arange(count)) % self.size
        for name, tensor in rows.items():
            self.rows[name][place.to(tensor.device)] = tensor
        self.head, self.filled = (self.head + count) % self.size, min(self.filled + count, self.size)

    def contents(self) -> dict[str, Tensor]:
        """The filled rows, in no particular order; empty before the first push."""
        return {name: tensor[: self.filled] for name, tensor in self.rows.items()}

    def state_dict(self) -> dict[str, Tensor]:
        return {**self.rows, "_place": torch.tensor([self.filled, self.head])}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        state = dict(state)
        filled, head = state.pop("_place").tolist()
        if state and len(next(iter(state.values()))) != self.size:
            raise ValueError(f"queue_size: {self.size}, but the checkpoint's queue has {len(next(iter(state.values())))} entries")
        self.rows, self.filled, self.head = {name: tensor.clone() for name, tensor in state.items()}, filled, head
