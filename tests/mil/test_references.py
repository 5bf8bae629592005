"""DTFD, ACMIL, AEM, ASMIL and the transformer: equal to slow one-bag forms in value and gradient."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from wsi_ncmi.mil import BagBatch, build_aggregator, model_config
from wsi_ncmi.mil.config import AcmilConfig, AemConfig, AsmilConfig, DtfdConfig, VitConfig

D, LENGTHS, LABELS = 5, [1, 9, 23, 9], [0, 2, 1, 1]


def _bags():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, D, generator=generator, dtype=torch.float64, requires_grad=True) for n in LENGTHS]


def _gated(module, h):
    V, U = module.branches.weight.chunk(2)
    bV, bU = module.branches.bias.chunk(2)
    return module.score(torch.tanh(h @ V.T + bV) * torch.sigmoid(h @ U.T + bU))


def _same(model, slow, *, head=None, rtol=1e-7):
    """Training-mode objective of a packed batch against the mean of ``slow(bag, label)`` over its bags."""
    probe = torch.randn(
        model.embedding_width, dtype=torch.float64, generator=torch.Generator().manual_seed(3)
    )
    results = []
    for packed in (True, False):
        bags = _bags()
        torch.manual_seed(11)
        if packed:
            output = model(BagBatch.pack(bags), torch.tensor(LABELS))
            value = (output.embedding @ probe).mean() + sum(output.auxiliary.values())
        else:
            parts = [slow(bag, y) for bag, y in zip(bags, LABELS, strict=True)]
            value = sum(z @ probe + term for z, term in parts) / len(bags)
        inputs = [*bags, *(p for p in model.parameters() if p.requires_grad)]
        results.append((value.detach(), torch.autograd.grad(value, inputs, allow_unused=True)))
    (fast, fast_grads), (slow_value, slow_grads) = results
    torch.testing.assert_close(fast, slow_value, rtol=1e-9, atol=1e-11)
    for a, b in zip(fast_grads, slow_grads, strict=True):
        zero = a if b is None else b
        if zero is not None:
            a, b = (torch.zeros_like(zero) if g is None else g for g in (a, b))
            torch.testing.assert_close(a, b, rtol=rtol, atol=1e-10)


@pytest.mark.parametrize("kind", ["afs", "max", "maxmin", "mas"])
@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("training", [True, False])
def test_dtfd(kind, joint, classes, training):
    torch.manual_seed(0)
    settings = DtfdConfig(distillation=kind, joint=joint, instances=2, first_tier_weight=0.5)
    options = model_config(name="dtfd", hidden=6, attention=4, dtfd=settings)
    model = build_aggregator(options, D, classes).double().train(training)
    weights_of = {}

    def slow(bag, y):
        n = len(bag)
        groups = (
            np.array_split(torch.randperm(n).numpy(), 4)
            if training
            else [np.arange(i, n, 4) for i in range(4)]
        )
        handed, losses, shares = [], [], []
        for group in (g for g in groups if len(g)):
            h = torch.clamp(bag[group.tolist()] @ model.projection.weight.T, min=0)
            a = torch.softmax(_gated(model.first, h)[:, 0], 0)
            weighted = h * a[:, None]
            feature = weighted.sum(0)
            logits = model.classifier(feature)
            losses.append(cross_entropy(logits, torch.tensor(min(y, classes - 1))))
            telling = 1 if classes == 2 else int(logits.argmax())
            chance = torch.softmax(weighted @ model.classifier.weight.T, 1)[:, telling]
            rank = np.argsort(-(a if kind == "mas" else chance).detach().numpy(), kind="stable")
            chosen = {"afs": [], "max": rank[:2], "mas": rank[:2]}.get(kind)
            if chosen is None:
                chosen = [*rank[:2], *rank[::-1][:2]]
            if kind == "afs":
                handed.append(feature)
                shares.append([(group[i], a[i]) for i in range(len(group))])
            for i in chosen:
                handed.append(h[i])
                shares.append([(group[i], torch.tensor(1.0, dtype=torch.float64))])
        stacked = torch.stack(handed)
        stacked = stacked if joint else stacked.detach()
        b = torch.softmax(_gated(model.second, stacked)[:, 0], 0)
        attention = torch.zeros(n, dtype=torch.float64)
        for share, pairs in zip(b, shares, strict=True):
            for i, a in pairs:
                attention[i] += (share * a).detach()
        weights_of[n] = attention
        return b @ stacked, 0.5 * sum(losses) / len(losses) if training else 0.0

    if training:
        global LABELS
        before, LABELS = LABELS, [min(y, classes - 1) for y in LABELS]
        try:
            _same(model, slow)
        finally:
            LABELS = before
    else:
        _same(model, slow)
        output = model(BagBatch.pack(_bags()))
        for bag, part in zip(_bags(), output.attention.split(LENGTHS), strict=True):
            slow(bag, 0)
            torch.testing.assert_close(part.detach(), weights_of[len(bag)])


@pytest.mark.parametrize("masked", [0, 4])
def test_acmil(masked):
    torch.manual_seed(0)
    settings = AcmilConfig(branches=3, masked=masked, branch_weight=0.7, diversity_weight=0.4)
    options = model_config(name="acmil", hidden=6, attention=4, acmil=settings)
    model = build_aggregator(options, D, 3).double().train()

    def slow(bag, y):
        h = torch.clamp(bag @ model.projection.weight.T, min=0)
        scores = _gated(model.score, h).T
        n = scores.shape[1]
        if masked:
            count = min(masked, n)
            best = scores.topk(count).indices
            picked = torch.rand(3, count).argsort(1)[:, : int(count * 0.6)]
            for k in range(3):
                for j in picked[k]:
                    scores = scores.index_put((torch.tensor(k), best[k, j]), torch.tensor(-1e9).double())
        a = torch.softmax(scores, 1)
        parts = [sum(a[k, i] * h[i] for i in range(n)) for k in range(3)]
        own = sum(
            cross_entropy(head(part), torch.tensor(y))
            for head, part in zip(model.classifiers, parts, strict=True)
        )
        pairs = [(0, 1), (0, 2), (1, 2)]
        alike = sum(torch.cosine_similarity(a[i], a[j], dim=0) for i, j in pairs)
        return a.mean(0) @ h, 0.7 * own / 3 + 0.4 * alike / 3

    _same(model, slow)
    model.eval()
    output = model(BagBatch.pack(_bags()))
    assert output.auxiliary == {}
    torch.testing.assert_close(output.attention, output.branches.mean(1))
    h = torch.clamp(_bags()[1] @ model.projection.weight.T, min=0)
    torch.testing.assert_close(output.branches[1:10], torch.softmax(_gated(model.score, h), 0))


def test_acmil_masks_a_random_part_of_the_favourites():
    from wsi_ncmi.mil.acmil import mask_most_attended

    scores = torch.randn(1000, 2)
    batch = BagBatch(torch.zeros(1000, 1), torch.tensor([600, 399, 1]))
    seen = torch.zeros(1000, 2)
    for _ in range(200):
        mask = mask_most_attended(scores, batch, 10, 0.6)
        assert mask[:600].sum(0).tolist() == [6, 6]
        assert mask[999].sum() == 0  # never all of a bag
        seen += mask
    for k in range(2):
        favourites = scores[:600, k].topk(10).indices
        others = torch.ones(600, dtype=torch.bool)
        others[favourites] = False
        assert seen[:600, k][others].sum() == 0
        assert (seen[favourites, k] / 200 - 0.6).abs().max() < 5 * math.sqrt(0.24 / 200)


def test_aem():
    torch.manual_seed(0)
    options = model_config(name="aem", hidden=6, attention=4, aem=AemConfig(entropy_weight=0.3))
    model = build_aggregator(options, D).double().train()

    def slow(bag, y):
        h = torch.clamp(bag @ model.projection.weight.T + model.projection.bias, min=0)
        a = torch.softmax(_gated(model, h)[:, 0], 0)
        return a @ h, 0.3 * sum(w * torch.log(w) for w in a)

    _same(model, slow)


def test_the_entropy_of_an_underflown_attention_has_a_finite_gradient():
    from wsi_ncmi.mil.aem import negative_entropy
    from wsi_ncmi.mil.segments import segment_softmax

    scores = torch.tensor([0.0, 500.0, -500.0], requires_grad=True)
    batch = BagBatch(torch.zeros(3, 1), torch.tensor([3]))
    term = negative_entropy(segment_softmax(scores, batch), batch)
    term.backward()
    assert term.item() == 0
    assert torch.isfinite(scores.grad).all()


def _heads(layer, x, heads):
    return (x @ layer.weight.T + layer.bias).view(*x.shape[:-1], heads, -1)


@pytest.mark.parametrize("dropped", [0, 2])
def test_asmil(dropped):
    torch.manual_seed(0)
    settings = AsmilConfig(tokens=3, dropped=dropped, heads=2, anchor_weight=5.0, temperature=0.5)
    options = model_config(name="asmil", hidden=6, dropout=0.0, asmil=settings)
    model = build_aggregator(options, D).double().train()
    with torch.no_grad():  # tokens and anchor with something to say, and apart from each other
        model.scores.tokens.normal_()
        model.anchor_scores.tokens.normal_()
        model.anchor_projection.weight.normal_()
    anchors = [theirs.clone() for _, theirs in model._pairs()]
    drops = []
    torch.manual_seed(11)
    ranks = torch.rand(len(LENGTHS), 3).argsort(1) < dropped
    position = iter(range(len(LENGTHS)))

    def attention_of(projection, scores, bag):
        h = torch.clamp(bag @ projection.weight.T, min=0)
        rows = []
        for t in range(3):
            q = _heads(scores.query[t], scores.tokens[t], 2)
            k = _heads(scores.key[t], h, 2)
            rows += [(k[:, j] @ q[j]) / math.sqrt(3) for j in range(2)]
        return h, torch.stack(rows)

    def slow(bag, y):
        keep = [t for t, gone in enumerate(ranks[next(position)].tolist()) if not gone]
        drops.append(3 - len(keep))
        h, scores = attention_of(model.projection, model.scores, bag)
        a = torch.softmax(scores, 1)
        with torch.no_grad():
            s = torch.sigmoid(attention_of(model.anchor_projection, model.anchor_scores, bag)[1] / 0.5)
            target = s / (s.sum(1, keepdim=True) + 1e-8)
        tokens = []
        for t in range(3):
            v = _heads(model.values.value[t], h, 2)
            mixed = torch.cat([a[2 * t + j] @ v[:, j] for j in range(2)])
            tokens.append(model.values.norm[t](model.values.out[t](mixed)))
        kept = torch.stack([tokens[t] for t in keep])
        W, b = model.pooling.in_proj_weight.chunk(3), model.pooling.in_proj_bias.chunk(3)
        q, k, v = (
            (x @ w.T + c).view(-1, 2, 3) for x, w, c in zip((model.token, kept, kept), W, b, strict=True)
        )
        pooled = []
        for j in range(2):
            share = torch.softmax(k[:, j] @ q[0, j] / math.sqrt(3), 0)
            pooled.append(share @ v[:, j])
        z = model.pooled[1](model.pooling.out_proj(torch.cat(pooled)))
        return z, 5.0 * -(target * torch.log(a)).mean()

    # The slow side must see the anchor that the packed pass used: it moves after each training pass.
    moved = []
    original = model._move_anchor
    model._move_anchor = lambda: moved.append(1)
    _same(model, slow, rtol=1e-6)
    model._move_anchor = original
    assert moved == [1]
    assert drops == [dropped] * 4
    model(BagBatch.pack(_bags()), None)
    for (ours, theirs), before in zip(model._pairs(), anchors, strict=True):
        torch.testing.assert_close(theirs, 0.999 * before + 0.001 * ours)
        assert not theirs.requires_grad
    after = [theirs.clone() for _, theirs in model._pairs()]
    with torch.no_grad():
        model(BagBatch.pack(_bags()), None)
    model.eval()(BagBatch.pack(_bags()))
    assert all(torch.equal(a, b) for a, (_, b) in zip(after, model._pairs(), strict=True))
    assert "anchor_projection.weight" in model.state_dict()


@pytest.mark.parametrize("alibi", [False, True])
def test_vit(alibi):
    torch.manual_seed(0)
    settings = VitConfig(layers=2, heads=2, feed_forward=7, feed_forward_dropout=0.0, alibi=alibi)
    model = build_aggregator(model_config(name="vit", hidden=6, vit=settings), D).double().eval()
    places = [torch.rand(n, 2, dtype=torch.float64) * 100 for n in LENGTHS]
    if alibi:
        for layer in model.layers:
            layer.attention.distance.mean.fill_(40.0)

    def slow(bag, points):
        h = nn.functional.gelu(model.projection(bag))
        x = torch.cat([model.token[None], h])
        for layer in model.layers:
            own = layer.attention
            reference = nn.MultiheadAttention(6, 2, batch_first=True).double()
            reference.load_state_dict(
                {
                    "in_proj_weight": own.qkv.weight,
                    "in_proj_bias": own.qkv.bias,
                    "out_proj.weight": own.out.weight,
                    "out_proj.bias": own.out.bias,
                }
            )
            y = layer.norm(x)
            if alibi:
                q, k, v = (y @ own.qkv.weight.T + own.qkv.bias).view(len(y), 3, 2, 3).permute(1, 2, 0, 3)
                w = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(3), -1)
                seen = w.mean(0)
                far = torch.zeros(len(y), len(y), dtype=torch.float64)
                for i in range(len(points)):
                    for j in range(len(points)):
                        far[i + 1, j + 1] = torch.sqrt(((points[i] - points[j]) ** 2).sum())
                w = w - own.distance.slope.view(2, 1, 1) * far / 40.0
                mixed = own.out((w @ v).transpose(0, 1).reshape(len(y), 6))
            else:
                mixed, seen = (t[0] for t in reference(y[None], y[None], y[None]))
            x = x + mixed
            x = x + layer.feed_forward(x)
        row = seen[0, 1:]
        return model.norm(x[0]), row / row.sum()

    bags = _bags()
    batch = BagBatch(torch.cat(bags), torch.tensor(LENGTHS), torch.cat(places))
    output = model(batch)
    slow_results = [slow(bag, points) for bag, points in zip(bags, places, strict=True)]
    expected = torch.stack([z for z, _ in slow_results])
    torch.testing.assert_close(output.embedding, expected, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(output.attention, torch.cat([a for _, a in slow_results]).detach())
    probe = torch.randn_like(expected)
    a = torch.autograd.grad((output.embedding * probe).sum(), bags)
    b = torch.autograd.grad((expected * probe).sum(), bags)
    for fast, plain in zip(a, b, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-6, atol=1e-9)


def test_distance_biases_learn_their_scale_and_need_places():
    from wsi_ncmi.core.errors import InputError

    options = model_config(name="vit", hidden=8, vit=VitConfig(alibi=True))
    model = build_aggregator(options, D).train()
    features = torch.randn(6, D)
    with pytest.raises(InputError, match="need the tiles' coordinates"):
        model(BagBatch(features, torch.tensor([6])))
    means = []
    for seed in range(3):
        places = torch.randint(0, 9, (6, 2), generator=torch.Generator().manual_seed(seed)) * 256
        model(BagBatch(features, torch.tensor([6]), places)).embedding.sum().backward()
        gaps = places.double()[:, None] - places.double()[None]
        means.append(gaps.square().sum(-1).sqrt().mean().item())
    distance = model.layers[0].attention.distance
    assert distance.mean.item() == pytest.approx(sum(means) / 3, rel=1e-5)
    assert torch.isfinite(distance.slope.grad).all()
