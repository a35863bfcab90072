"""The losses of both stages: tensors in, scalars out, no model in sight.

Letters in shape comments: B rows, K candidates, d width, Q queries, C candidate products of a step (judged, batch and queue),
P pairs of a query and one of its relevant products. Scores are cosines in [-1, 1]; gains are grades 0..3 and linear.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def cosines(left: Tensor, right: Tensor) -> Tensor:
    """left @ right^T of unit vectors [..., A, D] and [..., C, D] -> [..., A, C], in full precision under autocast too: bfloat16 tells
    cosines near 1 apart from 1/256 on, which is a tenth of the temperatures that they are divided by."""
    with torch.autocast(left.device.type, enabled=False):
        return left @ right.to(left).transpose(-1, -2)


# ---- stage 1 -------------------------------------------------------------------------------------------------------


def anchor_loss(source: Tensor, target: Tensor) -> Tensor:
    """Mean of 1 - cos(source, target) over rows [B, d]; in [0, 2] (METHOD 1.3)."""
    return (1 - F.cosine_similarity(source, target, dim=-1)).mean()


def contrastive_loss(source: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Symmetric InfoNCE between rows of source and target [B, d], the other rows being negatives (METHOD 1.8, ours).

    Zero vectors give log(B): every row is as likely as any other."""
    logits = cosines(F.normalize(source, dim=-1), F.normalize(target, dim=-1)) / temperature  # [B, B]
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


def closest_positives(products: Tensor, relevances: Tensor, others: Tensor) -> Tensor:
    """Each candidate's largest cosine to one of a query's relevant products [Q, C'], -1 for a query without one.

    products [C, D] with relevances [Q, C]; others [C', D], or [Q, C', D] where every query has candidates of its own; unit vectors."""
    relevant = relevances > 0
    width = max(1, int(relevant.sum(-1).max()))
    order = relevant.long().argsort(dim=-1, descending=True, stable=True)[:, :width]  # [Q, p]: a query's relevant products come first
    found = cosines(products[order], others)  # [Q, p, C']
    return found.masked_fill(~relevant.gather(1, order)[..., None], -1.0).amax(1)


def judged_among(judged: Tensor, ids: Tensor) -> Tensor:
    """Which candidates ids [C] are among each query's judged ids [Q, J], padded with -1 -> [Q, C]."""
    ordered, order = ids.sort()
    first, last = torch.searchsorted(ordered, judged), torch.searchsorted(ordered, judged, right=True)
    count = torch.where(judged >= 0, last - first, 0).flatten()  # [Q J]: how often each is there
    rows = torch.arange(len(judged), device=ids.device).repeat_interleave(judged.shape[1]).repeat_interleave(count)
    within = torch.arange(len(rows), device=ids.device) - (count.cumsum(0) - count).repeat_interleave(count)
    columns = order[first.flatten().repeat_interleave(count) + within]
    return torch.zeros(len(judged), len(ids), dtype=torch.bool, device=ids.device).index_put((rows, columns), torch.ones_like(rows, dtype=torch.bool))


def grades_of(judged: Tensor, grades: Tensor, ids: Tensor) -> Tensor:
    """The grade of each product ids [C] for each query, -1 where unjudged [Q, C]; judged ids and their grades are [Q, J], padded with -1."""
    ordered, order = judged.sort(-1)
    place = torch.searchsorted(ordered, ids.expand(len(judged), -1).contiguous()).clamp_max(judged.shape[1] - 1)  # [Q, C]
    return torch.where(ordered.gather(1, place) == ids, grades.gather(1, order).gather(1, place), -1)


def unsafe_negatives(scores: Tensor, relevances: Tensor, closest: Tensor, same_judged: Tensor, max_cosine: float, max_margin: float) -> Tensor:
    """Which unjudged candidates must not serve as a query's negatives [Q, C] (METHOD 2.3, safe negatives).

    relevances [Q, C] holds grades, -1 where unjudged; closest [Q, C] the cosine to the query's closest relevant product; same_judged
    [Q, C] marks a product or family id among the query's judged ones. Dropped: those, any closer than max_cosine, and any that
    outscores the best relevant product by more than max_margin. Judged products are never dropped."""
    scores = scores.detach()
    best = scores.masked_fill(relevances <= 0, -torch.inf).amax(-1, keepdim=True)  # [Q, 1]
    best = best.masked_fill(torch.isinf(best), torch.inf)  # a query without a relevant product has nothing to be outscored
    return (relevances < 0) & (same_judged | (closest > max_cosine) | (scores > best + max_margin))


def effective_negatives(scores: Tensor, relevances: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """How many negatives [Q, C] really push a query's worst relevant product down, mean over queries with one (ours).

    With w = sigmoid((s_c - s_worst) / temperature) it is (sum w)^2 / sum w^2: the number that would push as much, did all push equally."""
    rows = (relevances > 0).any(-1)
    if not rows.any():
        return scores.new_zeros(())
    worst = scores.detach().masked_fill(relevances <= 0, torch.inf).amin(-1, keepdim=True)[rows]
    weights = torch.sigmoid((scores.detach()[rows] - worst) / temperature) * negatives[rows]
    return (weights.sum(-1).square() / weights.square().sum(-1).clamp_min(1e-12)).mean()


# ---- ranking -------------------------------------------------------------------------------------------------------

LEAST_MEMBERS = 3
LEAST_VARIANCE = 1e-6  # below it values count as all alike: what divides by a deviation stays finite, and so does its gradient


def pearson(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's correlation of two lists [n], in [-1, 1]; 0 where either hardly varies."""
    first, second = (values.float() - values.float().mean() for values in (first, second))
    spread = first.square().mean().clamp_min(LEAST_VARIANCE).sqrt() * second.square().mean().clamp_min(LEAST_VARIANCE).sqrt()
    return (first * second).mean() / spread


def average_ranks(values: Tensor) -> Tensor:
    """Ranks [n] of values [n], 1 for the largest; equal ones share the mean of their ranks."""
    _, place, counts = (-values).unique(return_inverse=True, return_counts=True)
    return (counts.cumsum(0) - (counts - 1) / 2)[place]


def correlation_loss(predictions: Tensor, gold: Tensor, pearson_weight: float, temperature: float) -> Tensor:
    """a (1 - Pearson) + (1 - a) (1 - SoftSpearman) of predictions and gold scores [n], in [0, 2]; a = pearson_weight (METHOD 2.4).

    SoftSpearman is Pearson's correlation of the predictions' soft ranks with the gold scores' ranks. A soft rank counts the predictions above
    one's own by sigmoids; the temperature is in units of the predictions' standard deviation (ours), so neither the scale nor the
    offset of the predictions matters. O(n^2)."""
    linear, ranked = 1 - pearson(predictions, gold), predictions.new_zeros(())
    if pearson_weight < 1:
        scaled = predictions.float() / predictions.float().var(unbiased=False).clamp_min(LEAST_VARIANCE).sqrt()
        everything = torch.arange(len(scaled), device=scaled.device)
        ranks = soft_rank(scaled[None], torch.zeros_like(everything), everything, torch.ones_like(scaled[None], dtype=torch.bool), temperature)
        ranked = 1 - pearson(ranks, average_ranks(gold))
    return pearson_weight * linear + (1 - pearson_weight) * ranked


def grouped_correlation_loss(predictions: Tensor, gold: Tensor, groups: Tensor, rows: int, pearson_weight: float, temperature: float) -> Tensor:
    """correlation_loss within each group of predictions and gold [n], groups [n] being numbers: its mean over the first `rows` of them, each of
    which counts with its group (ours). What tells groups apart is then not asked for, as where languages are scored one by one.

    Two numbers always correlate by 1 or -1 and teach nothing: groups of fewer than LEAST_MEMBERS are correlated as one."""
    _, group, size = groups.unique(return_inverse=True, return_counts=True)
    groups = torch.where(size[group] < LEAST_MEMBERS, -1, group)  # [n]
    numbers, counts = groups[:rows].unique(return_counts=True)
    members = [groups == number for number in numbers]
    losses = [correlation_loss(predictions[member], gold[member], pearson_weight, temperature) for member in members]
    return (torch.stack(losses) * counts).sum() / rows


def least_squares_line(predictions: Tensor, gold: Tensor) -> Tensor:
    """Slope and intercept [2] with the least squared error of slope * prediction + intercept to gold [n]; slope 1 where the two do not rise
    together or the predictions hardly vary, so that a line never turns or loses an order."""
    predictions, gold = predictions.float(), gold.float()
    centred = predictions - predictions.mean()
    variance = centred.square().mean()
    slope = (centred * (gold - gold.mean())).mean() / variance.clamp_min(LEAST_VARIANCE)
    slope = torch.where((slope > 0) & (variance > LEAST_VARIANCE), slope, 1.0)
    return torch.stack([slope, gold.mean() - slope * predictions.mean()])


# ---- reasoning -----------------------------------------------------------------------------------------------------


def answer_loss(logits: Tensor, labels: Tensor, count: Tensor | int | None = None) -> Tensor:
    """Cross-entropy in nats of labels [B, n] under logits [B, n, V] that predict them, -100 being no label (METHOD 2.6): the sum divided
    by `count`, or by the number of labels where that is None. 0 where there is no label."""
    total = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), reduction="sum")
    return total / ((labels != -100).sum() if count is None else torch.as_tensor(count, device=total.device)).clamp_min(1)
