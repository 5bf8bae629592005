"""Aggregators: packed bags equal single bags and a slow one-bag reference."""

from __future__ import annotations

import math

import pytest
import torch

from tests.mil.settings import config_with
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.mil import BagBatch, build_aggregator, build_model, list_models, model_config
from wsi_ncmi.mil.config import AsmilConfig, VitConfig

NAMES = [info.name for info in list_models()]
TRAINABLE = [name for name in NAMES if name != "linear"]  # whose weights are those of its head
UNORDERED = [info.name for info in list_models() if not info.ordered]
POOLS = ["abmil", "abmil_plain", "mean", "max"]
LENGTHS = [1, 7, 30, 2]
VIT = VitConfig(heads=2, layers=1, feed_forward=16, feed_forward_dropout=0.0)
ASMIL = AsmilConfig(tokens=3, dropped=1, heads=2)
CLASSES = 3


def _model(
    name: str, dtype: torch.dtype = torch.float64, classes: int = CLASSES, hidden: int = 8, **settings
):
    torch.manual_seed(0)
    return build_aggregator(config_with(name, hidden=hidden, attention=5, **settings), 4, classes).to(dtype)


def _bags(dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, 4, generator=generator, dtype=dtype) for n in LENGTHS]


def _slow_bag(name: str, model, bag: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """One bag, instance by instance, from the papers' equations."""
    hidden = [torch.clamp(model.projection.weight @ x + model.projection.bias, min=0) for x in bag]
    if name == "mean":
        weights = [torch.tensor(1 / len(hidden), dtype=torch.float64)] * len(hidden)
    elif name == "max":
        embedding = torch.stack([max((h[e] for h in hidden), key=lambda v: v.item()) for e in range(8)])
        return embedding, []
    else:
        V, bV = model.branches.weight[:5], model.branches.bias[:5]
        scores = []
        for h in hidden:
            branch = torch.tanh(V @ h + bV)
            if name == "abmil":
                U, bU = model.branches.weight[5:], model.branches.bias[5:]
                branch = branch / (1 + torch.exp(-(U @ h + bU)))
            scores.append(model.score.weight[0] @ branch + model.score.bias[0])
        total = sum(torch.exp(s) for s in scores)
        weights = [torch.exp(s) / total for s in scores]
    return sum(w * h for w, h in zip(weights, hidden, strict=True)), weights


@pytest.mark.parametrize("name", POOLS)
def test_packed_bags_equal_the_slow_reference_in_value_and_gradient(name):
    model = _model(name).eval()
    head = torch.randn(8, 3, dtype=torch.float64)
    probe = torch.randn(len(LENGTHS), 3, dtype=torch.float64)
    bags = [bag.requires_grad_() for bag in _bags()]
    output = model(BagBatch.pack(bags))
    logits = output.embedding @ head
    inputs = [*model.parameters(), *bags]
    fast = torch.autograd.grad((logits * probe).sum(), inputs, allow_unused=True)
    slow_bags = [_slow_bag(name, model, bag) for bag in bags]
    slow_logits = torch.stack([embedding for embedding, _ in slow_bags]) @ head
    slow = torch.autograd.grad((slow_logits * probe).sum(), inputs, allow_unused=True)
    assert torch.allclose(logits, slow_logits, rtol=1e-10, atol=1e-12)
    if name != "max":
        weights = torch.stack([w for _, ws in slow_bags for w in ws]).double()
        assert torch.allclose(output.attention, weights, rtol=1e-6, atol=1e-9)
    for a, b in zip(fast, slow, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_packed_padded_and_single_bags_are_equal_in_float32(name):
    model = _model(name, torch.float32).eval()
    # Bags of 30, 30 and 29 share a bucket where a model pads.
    bags = [*_bags(torch.float32), torch.randn(29, 4), torch.randn(30, 4)]
    lengths = [len(bag) for bag in bags]
    batch = BagBatch.pack(bags)
    features, kept = batch.padded()
    features[~kept] = torch.nan  # what lies in the padding must not matter
    packed, backwards = model(batch), model(BagBatch.pack(bags[::-1]))
    padded = model(BagBatch.from_padded(features, batch.lengths))
    turned = torch.cat(backwards.attention.split(lengths[::-1])[::-1])
    single = [model(BagBatch.pack([bag])) for bag in bags]
    embedding = torch.cat([s.embedding for s in single])
    attention = torch.cat([s.attention for s in single])
    for found, weights in (
        (packed.embedding, packed.attention),
        (padded.embedding, padded.attention),
        (backwards.embedding.flip(0), turned),
    ):
        torch.testing.assert_close(found, embedding, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(weights, attention, rtol=1e-5, atol=1e-5)
    sums = [part.sum().item() for part in attention.split(lengths)]
    assert sums == pytest.approx([1.0] * len(lengths), abs=1e-5)
    assert (attention >= 0).all()
    if packed.branches is not None:
        totals = torch.stack([part.sum(0) for part in packed.branches.split(lengths)])
        assert torch.allclose(totals, torch.ones_like(totals), atol=1e-5)


@pytest.mark.parametrize("name", TRAINABLE)
def test_gradients_of_a_packed_batch_are_those_of_its_bags(name):
    model = _model(name).eval()
    bags = _bags()
    trained = [p for p in model.parameters() if p.requires_grad]
    whole = torch.autograd.grad(
        model(BagBatch.pack(bags)).embedding.square().sum(), trained, allow_unused=True
    )
    parts = [
        torch.autograd.grad(model(BagBatch.pack([bag])).embedding.square().sum(), trained, allow_unused=True)
        for bag in bags
    ]
    for gradient, *own in zip(whole, *parts, strict=True):
        assert all((gradient is None) == (g is None) for g in own)
        if gradient is not None:
            torch.testing.assert_close(gradient, sum(own), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", UNORDERED)
def test_order_of_instances_does_not_matter(name):
    model = _model(name).eval()
    bag = _bags()[2]
    order = torch.randperm(len(bag))
    straight, shuffled = model(BagBatch.pack([bag])), model(BagBatch.pack([bag[order]]))
    assert torch.allclose(straight.embedding, shuffled.embedding, atol=1e-10)
    assert torch.allclose(straight.attention[order], shuffled.attention, atol=1e-10)


@pytest.mark.parametrize("name", ["transmil", "dtfd"])
def test_order_matters_where_the_catalogue_says_so(name):
    model = _model(name).eval()
    bag = _bags()[2]
    straight, turned = model(BagBatch.pack([bag])), model(BagBatch.pack([bag.roll(1, 0)]))
    assert not torch.allclose(straight.embedding, turned.embedding, atol=1e-6)


@pytest.mark.parametrize("name", POOLS)
def test_gradcheck(name):
    model = _model(name).eval()
    lengths = torch.tensor([1, 4, 2])
    x = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: model(BagBatch(a, lengths)).embedding, x)
    if name.startswith("abmil"):
        assert torch.autograd.gradcheck(lambda a: model(BagBatch(a, lengths)).attention, x)


@pytest.mark.parametrize(
    "name", [n.name for n in list_models() if not n.full_attention and n.name in TRAINABLE]
)
def test_a_bag_of_a_hundred_thousand_beside_one_of_one(name):
    model = _model(name, torch.float32).train()
    big, one = torch.randn(100_000, 4), torch.randn(1, 4)
    output = model(BagBatch.pack([one, big]), torch.tensor([0, 1]))
    (output.embedding.sum() + sum(output.auxiliary.values())).backward()
    assert all(math.isfinite(term.item()) for term in output.auxiliary.values())
    assert torch.isfinite(output.embedding).all()
    assert output.attention[0].item() == 1
    assert output.attention[1:].sum().item() == pytest.approx(1, abs=1e-4)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_half_precision_features_are_cast_to_the_model():
    model = _model("abmil", torch.float32).eval()
    bags = [bag.half() for bag in _bags(torch.float32)]
    expected = model(BagBatch.pack([bag.float() for bag in bags])).embedding
    assert torch.equal(model(BagBatch.pack(bags)).embedding, expected)


@pytest.mark.parametrize("name", TRAINABLE)
def test_autocast_pools_in_float32(name):
    model = _model(name, torch.float32)
    bags = _bags(torch.float32)
    expected = model.eval()(BagBatch.pack(bags)).embedding
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(BagBatch.pack(bags))
        trained = model.train()(BagBatch.pack(bags), torch.tensor([0, 1, 2, 0]))
    for term in trained.auxiliary.values():
        assert term.dtype == torch.float32
        assert torch.isfinite(term)
    assert output.embedding.dtype == output.attention.dtype == torch.float32
    assert torch.allclose(output.embedding, expected, rtol=0.1, atol=0.1)
    (trained.embedding.sum() + sum(trained.auxiliary.values())).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", [info.name for info in list_models() if not info.pools_evenly])
def test_learns_to_find_a_rare_instance(name):
    """A slide is positive when one instance in twenty is of another kind; the mean alone hardly tells."""
    generator = torch.Generator().manual_seed(5)
    bags, labels = [], torch.arange(60) % 2
    for label in labels:
        bag = torch.randn(20, 4, generator=generator)
        bag[:, 0] = -1
        if label:
            bag[3, 0] = 3
        bags.append(bag)
    torch.manual_seed(0)
    config = config_with(name, hidden=16, attention=8, dropout=0.0, vit=VIT, asmil=ASMIL)
    model = build_aggregator(config, 4, 2)
    head = model.make_head(2)
    optimizer = torch.optim.Adam([*model.parameters(), *head.parameters()], lr=0.01)
    batch = BagBatch.pack(bags)
    for _ in range(150):
        output = model(batch, labels)
        loss = torch.nn.functional.cross_entropy(head(output.embedding), labels)
        if loss < 0.02:  # learnt; TransMIL's steps are slow
            break
        loss = loss + sum(output.auxiliary.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    output = model.eval()(batch)
    assert (head(output.embedding).argmax(1) == labels).float().mean() >= 0.98
    if name not in ("max", "transmil", "vit"):  # their attention explains, it doesn't pool
        rare = output.attention.view(60, 20)[labels == 1, 3]
        assert rare.mean() > 3 / 20


def test_max_pool_shares_its_attention_among_ties():
    model = _model("max").eval()
    bag = torch.randn(1, 4, dtype=torch.float64).repeat(5, 1)
    assert model(BagBatch.pack([bag])).attention.tolist() == pytest.approx([0.2] * 5)


def test_unknown_model_is_named_with_the_nearest_one():
    with pytest.raises(InputError, match="no model named 'abmill'; did you mean 'abmil'"):
        build_aggregator(model_config(name="abmill"), 4)
    with pytest.raises(InputError, match="in_features, is a whole number of at least 1, got 0"):
        build_aggregator(model_config(), 0)


@pytest.mark.parametrize("classes", [2, 30])
@pytest.mark.parametrize("name", NAMES)
def test_two_and_thirty_classes(name, classes):
    model = _model(name, torch.float32, classes=classes).train()
    head = model.make_head(classes)
    labels = torch.tensor([0, classes - 1, 1, classes // 2])
    output = model(BagBatch.pack(_bags(torch.float32)), labels)
    logits = head(output.embedding)
    assert logits.shape == (4, classes)
    assert output.embedding.shape == (4, model.embedding_width)
    loss = torch.nn.functional.cross_entropy(logits, labels) + sum(output.auxiliary.values())
    loss.backward()
    trained = [*head.parameters(), *(p for p in model.parameters() if p.requires_grad)]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in trained)
    assert model.eval()(BagBatch.pack(_bags(torch.float32))).auxiliary == {}


def test_ten_thousand_instances_with_full_attention():
    model = _model("vit", torch.float32, hidden=4, vit=VitConfig(layers=1, heads=1, feed_forward=4)).train()
    output = model(BagBatch.pack([torch.randn(1, 4), torch.randn(10_000, 4)]))
    output.embedding.sum().backward()
    assert output.attention[0].item() == pytest.approx(1)
    assert output.attention[1:].sum().item() == pytest.approx(1, abs=1e-4)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_features_of_another_width_are_refused(name):
    with pytest.raises(InputError, match="width 5 but the model was made for 4"):
        _model(name, torch.float32)(BagBatch.pack([torch.zeros(3, 5)]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "transmil", "hidden": 12}, r"the heads of transmil \(8\) must divide hidden \(12\)"),
        ({"name": "transmil", "transmil": {"residual_kernel": 4}}, "residual_kernel must be odd, got 4"),
        ({"name": "vit", "hidden": 12}, r"the heads of vit \(8\) must divide hidden \(12\)"),
        (
            {"name": "asmil", "asmil": {"tokens": 2, "dropped": 2}},
            r"fewer tokens must be dropped \(2\) than there are \(2\)",
        ),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        build_aggregator(model_config(**settings), 4)


def test_packing():
    bags = _bags()
    batch = BagBatch.pack(bags)
    assert len(batch) == 4
    assert batch.offsets.tolist() == [0, 1, 8, 38, 40]
    assert batch.bag_index.tolist() == [0] * 1 + [1] * 7 + [2] * 30 + [3] * 2
    assert torch.equal(batch.features, torch.cat(bags))
    assert batch.to("cpu", torch.float32).features.dtype == torch.float32
    with pytest.raises(InputError, match="Bag 1 of the batch has shape"):
        BagBatch.pack([torch.zeros(3, 4), torch.zeros(0, 4)])
    with pytest.raises(InputError, match="width 4"):
        BagBatch.pack([torch.zeros(3, 4), torch.zeros(2, 5)])
    with pytest.raises(InputError, match="at least one bag"):
        BagBatch.pack([])
    with pytest.raises(ValueError, match=r"features must be \(ΣN, D\)"):
        BagBatch(torch.zeros(3), torch.tensor([3]))


def test_attention_of_huge_scores_is_stable():
    from wsi_ncmi.mil.segments import segment_softmax

    scores = torch.tensor([1e4, 1e4, -1e4, -3e4, 5.0])
    batch = BagBatch(torch.zeros(5, 1), torch.tensor([3, 1, 1]))
    assert segment_softmax(scores, batch).tolist() == pytest.approx([0.5, 0.5, 0.0, 1.0, 1.0])
    # Softmax of scores shifted by a constant a bag is the same.
    shift = torch.tensor([3.0, 3.0, 3.0, -7.0, 2.0])
    assert torch.allclose(segment_softmax(scores / 1e4 + shift, batch), segment_softmax(scores / 1e4, batch))
    assert math.isclose(
        segment_softmax(scores / 1e4, batch)[2].item(), math.exp(-2) / (2 + math.exp(-2)), rel_tol=1e-5
    )


def test_a_model_is_built_by_name_and_settings():
    model = build_model("abmil", 4, hidden=6, mixup=0.5)
    assert (model.embedding_width, model.mixup) == (6, 0.5)
    config = model_config("clam_sb", clam={"k_sample": 3})
    assert build_model(config, in_features=4, num_classes=2, hidden=6).config.k_sample == 3
    with pytest.raises(InputError, match="the model 'mean' has no setting 'attention'"):
        build_model("mean", 4, attention=3)
    with pytest.raises(InputError, match="parts for each class, is a whole number of at least 2, got None"):
        build_model("clam_sb", 4)
