"""``linear`` and ``mlp``: one vector a slide, and the mean of a bag."""

from __future__ import annotations

import pytest
import torch

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.mil import BagBatch, build_model, model_config


def bags() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, 5, generator=generator) * 3 + 1 for n in (1, 4, 9)]


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_a_bag_counts_as_its_mean(name) -> None:
    model = build_model(name, 5, 3).eval()
    model.set_input_statistics(torch.arange(5.0), torch.arange(1.0, 6.0))
    of_bags, of_means = model(bags()), model([bag.mean(0, keepdim=True) for bag in bags()])
    torch.testing.assert_close(of_bags, of_means)


def test_linear_is_a_linear_map_of_the_standardised_vector() -> None:
    model = build_model("linear", 5, 3).eval()
    mean, deviation = torch.arange(5.0), torch.arange(1.0, 6.0)
    model.set_input_statistics(mean, deviation)
    x = torch.randn(7, 5)
    expected = ((x - mean) / deviation) @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model([row[None] for row in x]), expected)
    assert list(dict(model.named_parameters())) == ["head.weight", "head.bias"]


def test_mlp_is_its_layers_on_the_standardised_vector() -> None:
    model = build_model("mlp", 5, 3, hidden=8, layers=2).eval()
    x = torch.randn(7, 5)
    reference = torch.nn.Sequential(
        torch.nn.Linear(5, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
    )
    names = ["0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias"]
    values = [tensor for name, tensor in model.state_dict().items() if not name.startswith("input_")]
    reference.load_state_dict(dict(zip(names, values, strict=True)))
    torch.testing.assert_close(model([row[None] for row in x]), reference(x))


def test_the_attention_is_even() -> None:
    attention = build_model("mlp", 5).eval()(BagBatch.pack(bags())).attention
    torch.testing.assert_close(attention, torch.cat([torch.full((n,), 1 / n) for n in (1, 4, 9)]))


@pytest.mark.parametrize("name", ["linear", "mlp"])
@pytest.mark.parametrize(
    ("setting", "words"), [("mixup", "no effect on"), ("feature_dropout", "input_dropout")]
)
def test_settings_of_instances_are_refused(name, setting, words) -> None:
    with pytest.raises(InputError, match=words):
        model_config(name, **{setting: 0.5})


def test_dropout_of_the_vector_is_in_training_alone() -> None:
    model = build_model("linear", 200, input_dropout=0.5)
    x = torch.ones(1, 200)
    assert torch.equal(model.eval()(x), x)
    dropped = model.train()(x)
    assert 0.2 < (dropped == 0).float().mean() < 0.8
    torch.testing.assert_close(dropped.unique(), torch.tensor([0.0, 2.0]))
