"""Slow one-bag forms of CLAM, DSMIL and TransMIL, written plainly, with the tensor names of the published code."""

from __future__ import annotations

import math

import torch
from torch import nn


class _Gated(nn.Module):
    def __init__(self, hidden: int, width: int, branches: int) -> None:
        super().__init__()
        self.attention_a = nn.Sequential(nn.Linear(hidden, width))
        self.attention_b = nn.Sequential(nn.Linear(hidden, width))
        self.attention_c = nn.Linear(width, branches)

    def forward(self, h):
        return self.attention_c(torch.tanh(self.attention_a(h)) / (1 + torch.exp(-self.attention_b(h))))


class _Plain(nn.Module):
    def __init__(self, hidden: int, width: int, branches: int, early: bool) -> None:
        super().__init__()
        middle = [nn.Tanh()] if early else [nn.Tanh(), nn.Dropout(0.0)]
        self.module = nn.Sequential(nn.Linear(hidden, width), *middle, nn.Linear(width, branches))

    def forward(self, h):
        return self.module(h)


class PeerClam(nn.Module):
    """One bag at a time. ``early``: the layout without dropout entries."""

    def __init__(self, D, C, *, hidden=6, width=5, gated=True, several=False, early=False) -> None:
        super().__init__()
        branches = C if several else 1
        net = _Gated(hidden, width, branches) if gated else _Plain(hidden, width, branches, early)
        first = [nn.Linear(D, hidden), nn.ReLU()] + ([] if early else [nn.Dropout(0.0)])
        self.attention_net = nn.Sequential(*first, net)
        if several:
            self.classifiers = nn.ModuleList([nn.Linear(hidden, 1) for _ in range(C)])
        else:
            self.classifiers = nn.Linear(hidden, C)
        self.instance_classifiers = nn.ModuleList([nn.Linear(hidden, 2) for _ in range(C)])
        self.several = several

    def forward(self, bag):
        h = self.attention_net[:-1](bag)
        scores = self.attention_net[-1](h)
        weights = torch.exp(scores) / torch.exp(scores).sum(0)
        pooled = [sum(w * x for w, x in zip(column, h, strict=True)) for column in weights.T]
        if self.several:
            logits = torch.cat([head(M) for head, M in zip(self.classifiers, pooled, strict=True)])
        else:
            logits = self.classifiers(pooled[0])
        return logits, weights, h

    def instance_loss(self, bag, label, *, k, subtyping, kind):
        _, weights, h = self(bag)
        total, C = 0.0, len(self.instance_classifiers)
        for c, classifier in enumerate(self.instance_classifiers):
            w = weights[:, c if self.several else 0].tolist()
            order = sorted(range(len(w)), key=lambda i: -w[i])
            if c == label:
                chosen = [(i, 1) for i in order[:k]] + [(i, 0) for i in order[::-1][:k]]
            elif subtyping:
                chosen = [(i, 0) for i in order[:k]]
            else:
                continue
            total = total + sum(plain_loss(classifier(h[i]), y, kind) for i, y in chosen) / len(chosen)
        return total / C if subtyping else total


def plain_loss(s, y, kind):
    """Cross-entropy or smooth top-1 SVM (α = τ = 1) of one score vector."""
    if kind == "ce":
        return -torch.log(torch.exp(s[y]) / torch.exp(s).sum())
    violations = torch.stack([s[j] + (j != y) - s[y] for j in range(len(s))])
    best = sorted(s.tolist(), reverse=True)
    if best[0] - best[1] >= math.log(1000):
        return violations.max()
    return torch.log(torch.exp(violations).sum())


class PeerDsmil(nn.Module):
    """One bag at a time; ``value`` is identity, linear or relu."""

    def __init__(self, D, C, *, width=5, nonlinear=True, value="identity") -> None:
        super().__init__()
        self.i_classifier = nn.Module()
        self.i_classifier.fc = nn.Sequential(nn.Linear(D, C))
        b = self.b_classifier = nn.Module()
        if nonlinear:
            b.q = nn.Sequential(nn.Linear(D, width), nn.ReLU(), nn.Linear(width, width), nn.Tanh())
        else:
            b.q = nn.Linear(D, width)
        if value != "identity":
            b.v = nn.Sequential(nn.Dropout(0.0), nn.Linear(D, D))
        b.fcc = nn.Conv1d(C, C, kernel_size=D)
        self.value, self.width = value, width

    def forward(self, bag):
        b, scores = self.b_classifier, self.i_classifier.fc(bag)
        values = bag if self.value == "identity" else b.v(bag)
        if self.value == "relu":
            values = torch.clamp(values, min=0)
        rows, attention = [], []
        for c in range(scores.shape[1]):
            query = b.q(bag[max(range(len(bag)), key=lambda i: scores[i, c].item())])
            likeness = torch.stack([b.q(x) @ query / math.sqrt(self.width) for x in bag])
            weights = torch.exp(likeness) / torch.exp(likeness).sum()
            attention.append(weights)
            rows.append(sum(w * v for w, v in zip(weights, values, strict=True)))
        logits = b.fcc(torch.stack(rows).unsqueeze(0)).flatten()
        return logits, scores.max(0).values, torch.stack(attention, 1)


class Nystrom(nn.Module):
    def __init__(self, dim, heads, kernel) -> None:
        super().__init__()
        self.heads, self.marks = heads, dim // 2
        self.to_qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(dim, dim))
        self.res_conv = nn.Conv2d(
            heads, heads, (kernel, 1), padding=(kernel // 2, 0), groups=heads, bias=False
        )

    def forward(self, x):
        n, dim = x.shape
        m, d = self.marks, dim // self.heads
        missing = (m - n % m) % m
        x = torch.cat([x.new_zeros(missing, dim), x])
        group = len(x) // m
        q, k, v = (t for t in self.to_qkv(x).chunk(3, dim=1))
        parts = []
        for h in range(self.heads):
            cut = slice(h * d, (h + 1) * d)
            Q, K, V = q[:, cut] / math.sqrt(d), k[:, cut], v[:, cut]
            Qm = torch.stack([Q[i * group : (i + 1) * group].mean(0) for i in range(m)])
            Km = torch.stack([K[i * group : (i + 1) * group].mean(0) for i in range(m)])
            parts.append(((Q @ Km.T).softmax(1), (Qm @ Km.T).softmax(1), (Qm @ K.T).softmax(1), V))
        norm = max(p[1].sum(1).max() for p in parts) * max(p[1].sum(0).max() for p in parts)
        eye, heads, seen = torch.eye(m, dtype=x.dtype), [], []
        kernel = self.res_conv.weight
        reach = kernel.shape[2] // 2
        for h, (one, two, three, V) in enumerate(parts):
            z = two.T / norm
            for _ in range(6):
                a = two @ z
                z = z @ (13 * eye - a @ (15 * eye - a @ (7 * eye - a))) / 4
            full = one @ z @ three
            seen.append(full[missing, missing:])
            padded = torch.cat([V.new_zeros(reach, d), V, V.new_zeros(reach, d)])
            smooth = sum(kernel[h, 0, t, 0] * padded[t : t + len(V)] for t in range(2 * reach + 1))
            heads.append(full @ V + smooth)
        return self.to_out(torch.cat(heads, 1))[missing:], torch.stack(seen).mean(0)


class PeerTransMil(nn.Module):
    """One bag at a time."""

    def __init__(self, D, C, *, dim=16, heads=8, kernel=33) -> None:
        super().__init__()
        self.pos_layer = nn.Module()
        for name, size in (("proj", 7), ("proj1", 5), ("proj2", 3)):
            setattr(self.pos_layer, name, nn.Conv2d(dim, dim, size, padding=size // 2, groups=dim))
        self._fc1 = nn.Sequential(nn.Linear(D, dim))
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim))
        for name in ("layer1", "layer2"):
            layer = nn.Module()
            layer.norm, layer.attn = nn.LayerNorm(dim), Nystrom(dim, heads, kernel)
            setattr(self, name, layer)
        self.norm = nn.LayerNorm(dim)
        self._fc2 = nn.Linear(dim, C)

    def forward(self, bag):
        h = torch.clamp(self._fc1(bag), min=0)
        side = math.ceil(math.sqrt(len(h)))
        n = len(h)
        x = torch.cat([self.cls_token[0], h, h[: side * side - n]])
        x = x + self.layer1.attn(self.layer1.norm(x))[0]
        square = x[1:].T.reshape(1, -1, side, side)
        p = self.pos_layer
        square = square + p.proj(square) + p.proj1(square) + p.proj2(square)
        x = torch.cat([x[:1], square.reshape(x.shape[1], -1).T])
        mixed, seen = self.layer2.attn(self.layer2.norm(x))
        weights = torch.clamp(seen[1:], min=0)
        folded = [weights[i] + (weights[n + i] if n + i < len(weights) else 0) for i in range(n)]
        attention = torch.stack(folded) / sum(folded)
        return self._fc2(self.norm((x + mixed)[0])), attention.detach()


class PeerAbmil(nn.Module):
    """MIL-Lab's ``ABMIL``, whose pretrained models are FEATHER."""

    def __init__(self, D, C, *, hidden=6, width=5, gated=True) -> None:
        super().__init__()
        self.patch_embed = nn.Sequential(nn.Linear(D, hidden), nn.ReLU())
        self.global_attn = _Gated(hidden, width, 1) if gated else _Plain(hidden, width, 1, early=False)
        if C:
            self.classifier = nn.Linear(hidden, C)

    def forward(self, bag):
        h = self.patch_embed(bag)
        scores = self.global_attn(h)
        weights = torch.exp(scores) / torch.exp(scores).sum(0)
        return self.classifier((weights * h).sum(0)), weights, h
