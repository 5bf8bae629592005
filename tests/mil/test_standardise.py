"""Standardised inputs: equal to a model fed standardised features, and kept in the state."""

from __future__ import annotations

import pytest
import torch

from tests.mil.settings import config_with
from wsi_ncmi.mil import BagBatch, build_aggregator, model_config


@pytest.mark.parametrize("name", ["abmil", "abmil_plain", "mean", "max"])
def test_it_equals_feeding_standardised_features(name: str) -> None:
    torch.manual_seed(0)
    bags = [torch.randn(n, 5) * torch.tensor([1.0, 10, 100, 0.01, 0.0]) + 3 for n in (4, 7)]
    options = config_with(name, hidden=8, attention=4, standardise=True)
    model = build_aggregator(options, 5).eval()
    rows = torch.cat(bags)
    mean, deviation = rows.mean(dim=0), rows.std(dim=0)
    model.set_input_statistics(mean, deviation)
    plain = build_aggregator(config_with(name, hidden=8, attention=4), 5).eval()
    plain.load_state_dict(model.state_dict())
    by_hand = [(bag - mean) / torch.where(deviation > 0, deviation, 1.0) for bag in bags]
    found, expected = model(BagBatch.pack(bags)), plain(BagBatch.pack(by_hand))
    torch.testing.assert_close(found.embedding, expected.embedding)
    torch.testing.assert_close(found.attention, expected.attention)


def test_a_constant_feature_is_only_centred() -> None:
    model = build_aggregator(model_config(standardise=True), 2)
    model.set_input_statistics(torch.tensor([3.0, 1.0]), torch.tensor([0.0, 2.0]))
    found = model.prepared(BagBatch.pack([torch.tensor([[3.0, 5.0]])]))
    torch.testing.assert_close(found, torch.tensor([[0.0, 2.0]]))
