"""Selections written down step by step as their papers and released codes make them: what ours are timed against.

Transcribed from the description of each algorithm, with its loops and its repeated work, on one image without a batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def divprune(tokens: Tensor, keep: int) -> Tensor:
    """Every step takes the minimum over all selected rows again. O(N^2 D + N keep^2)."""
    unit = tokens / tokens.norm(dim=1, keepdim=True)
    distance = 1 - unit @ unit.T
    selected = [int(distance.topk(2, dim=0, largest=False).values[1].argmax())]
    while len(selected) < keep:
        selected.append(int(distance[selected].amin(0).argmax()))
    return torch.tensor(selected)


def zspaprune(tokens: Tensor, prompt: Tensor, core: int, keep: int) -> Tensor:
    """Most relevant tokens, then farthest from all selected ones, looked up again at every step."""
    unit = tokens / tokens.norm(dim=1, keepdim=True)
    mean = prompt.mean(0)
    selected = (unit @ (mean / mean.norm())).topk(core).indices.tolist()
    similarity = unit @ unit.T
    while len(selected) < keep:
        closest = similarity[selected].amax(0)
        closest[selected] = torch.inf
        selected.append(int(closest.argmin()))
    return torch.tensor(selected)


def cdpruner(tokens: Tensor, relevance: Tensor, keep: int) -> Tensor:
    """Greedy determinants by an incremental Cholesky factor. O(N^2 D + N keep^2)."""
    unit = tokens / tokens.norm(dim=1, keepdim=True)
    kernel = relevance[:, None] * (unit @ unit.T) * relevance[None]
    factor, gain, selected = tokens.new_zeros(keep, len(tokens)), kernel.diagonal().clone(), []
    for step in range(keep):
        pick = int(gain.argmax())
        selected.append(pick)
        row = (kernel[pick] - factor[:step, pick] @ factor[:step]) / gain[pick].sqrt()
        factor[step] = row
        gain -= row.square()
        gain[pick] = -torch.inf
    return torch.tensor(selected)


def gprune(tokens: Tensor, keep: int) -> Tensor:
    """The fifth power of the N x N matrix. O(N^2 D + N^3)."""
    norm = tokens.norm(dim=1)
    unit = tokens / norm[:, None]
    cosines = unit @ unit.T
    cosines[cosines < 0.5] = 0
    logits = cosines / 0.03
    logits[logits.abs() < 1e-6] = -5000
    flow = logits.softmax(-1)
    degree = (flow > 0).sum(1)
    return ((norm[:, None] * flow.matrix_power(5)).sum(0) / degree).topk(keep).indices


def vispruner(tokens: Tensor, attention: Tensor, keep: int) -> Tensor:
    """Similarities of the two halves of what is left are multiplied out in every round. O(N / 8 x N^2 D / 4)."""
    order = attention.argsort(descending=True)
    important, rest = order[: keep // 2], order[keep // 2 :]
    unit = tokens / tokens.norm(dim=1, keepdim=True)
    while len(rest) > keep - keep // 2:
        even, odd = rest[::2], rest[1::2]
        drop = min(8, len(rest) - (keep - keep // 2), len(even))
        closest = (unit[even] @ unit[odd].T).amax(1)
        rest = torch.cat([even[closest.argsort(descending=True)[drop:]], odd])
    return torch.cat([important, rest])


def prumerge(tokens: Tensor, keys: Tensor, attention: Tensor, keep: int) -> Tensor:
    """Anchor by anchor: neighbours are looked up, gathered and summed. O(keep N D), a loop over tokens."""
    anchors = attention.topk(keep - 1).indices.tolist()
    unit, merged = keys / keys.norm(dim=1, keepdim=True), []
    for anchor in anchors:
        others = torch.tensor([j for j in range(len(tokens)) if j != anchor], device=tokens.device)
        nearest = others[(unit[others] @ unit[anchor]).topk(32).indices]
        merged.append(tokens[anchor] + (attention[nearest, None] * tokens[nearest]).sum(0))
    rest = torch.tensor([j for j in range(len(tokens)) if j not in anchors], device=tokens.device)
    return torch.stack([*merged, (attention[rest, None] * tokens[rest]).sum(0)])


def dart(tokens: Tensor, pivots: Tensor, visual: list[int], keep: int) -> Tensor:
    """Sets of indices; the candidates of every pivot are listed, gathered and normalised again."""
    kept, each = set(visual), (keep - len(visual)) // len(pivots)
    candidates = set(range(len(tokens))) - kept
    for pivot in pivots:
        listed = sorted(candidates)
        similarity = F.cosine_similarity(pivot[None], tokens[listed], dim=1)
        chosen = {listed[i] for i in similarity.topk(each, largest=False).indices.tolist()}
        kept |= chosen
        candidates -= chosen
    return torch.tensor(sorted(kept))


def sparsevlm(tokens: Tensor, clusters: int) -> Tensor:
    """Density peaks and the mean of each cluster, in whole-matrix operations as released."""
    distance = torch.cdist(tokens, tokens) / tokens.shape[1] ** 0.5
    density = (-distance.topk(clusters, dim=-1, largest=False).values.square().mean(-1)).exp()
    density = density + torch.rand_like(density) * 1e-6
    denser = (density[None] > density[:, None]).to(distance)
    separation = (distance * denser + distance.max() * (1 - denser)).amin(-1)
    centres = (separation * density).topk(clusters).indices
    owner = distance[centres].argmin(0)
    owner[centres] = torch.arange(clusters, device=tokens.device)
    sums = tokens.new_zeros(clusters, tokens.shape[1]).index_add_(0, owner, tokens)
    return sums / (tokens.new_zeros(clusters).index_add_(0, owner, tokens.new_ones(len(tokens)))[:, None] + 1e-6)


def mustdrop(tokens: Tensor, height: int, width: int) -> Tensor:
    """[W] mean similarity of the pairs in every 3 x 3 window, of whole matrices of pairs."""
    grid = tokens.T.view(1, -1, height, width)[..., : height // 3 * 3, : width // 3 * 3]
    windows = F.unfold(grid, 3, stride=3)[0].view(tokens.shape[1], 9, -1).permute(2, 1, 0)
    unit = windows / windows.norm(dim=2, keepdim=True)
    pairs = unit @ unit.transpose(1, 2)
    pairs = pairs - torch.diag_embed(pairs.diagonal(dim1=1, dim2=2))
    return pairs.sum((1, 2)) / 72
