"""Feature dropout and mixing within bags."""

from __future__ import annotations

import pytest
import torch

from tests.mil.settings import config_with
from wsi_ncmi.mil import BagBatch, build_aggregator, list_models
from wsi_ncmi.mil.augmentation import drop_features, mix_instances

LENGTHS = [1, 50, 7]


def _batch(width: int = 400) -> BagBatch:
    return BagBatch(torch.randn(58, width) + 3, torch.tensor(LENGTHS))


def test_dropped_features_are_gone_from_the_whole_bag_and_the_mean_stays():
    torch.manual_seed(0)
    batch = _batch()
    dropped = drop_features(batch.features, batch, 0.25)
    shares = []
    for before, after in zip(batch.features.split(LENGTHS), dropped.split(LENGTHS), strict=True):
        gone = (after == 0).all(0)
        torch.testing.assert_close(after[:, ~gone], before[:, ~gone] / 0.75)
        shares.append(gone)
    assert not torch.equal(shares[1], shares[2])  # each bag has its own
    assert abs(torch.stack(shares).float().mean() - 0.25) < 5 * (0.1875 / 1200) ** 0.5


def test_mixing_stays_in_the_bag_and_keeps_its_mean():
    torch.manual_seed(0)
    batch = BagBatch(
        torch.cat([torch.full((n, 4), float(b)) for b, n in enumerate(LENGTHS)]), torch.tensor(LENGTHS)
    )
    assert torch.allclose(mix_instances(batch.features, batch, 0.4), batch.features)
    batch = _batch()
    mixed = mix_instances(batch.features, batch, 0.4)
    for before, after in zip(batch.features.split(LENGTHS), mixed.split(LENGTHS), strict=True):
        torch.testing.assert_close(after.mean(0), before.mean(0), rtol=1e-4, atol=1e-4)
    # Every instance is λ of itself and 1 − λ of one other, with one λ ≥ ½ a bag.
    bag, own = batch.features[1:51].double(), mixed[1:51].double()
    found = torch.linalg.lstsq(bag.T, own.T).solution.T
    share = found.diagonal()
    assert share.std() < 1e-4 or (share > 1 - 1e-4).any()
    assert share.min() >= 0.5 - 1e-4
    torch.testing.assert_close(found.sum(1), torch.ones(50).double(), rtol=1e-4, atol=1e-4)
    assert ((found.abs() > 1e-4).sum(1) <= 2).all()


WITH_INSTANCES = [info for info in list_models() if info.name not in ("linear", "mlp")]


@pytest.mark.parametrize("info", WITH_INSTANCES, ids=lambda info: info.name)
def test_every_model_takes_them_in_training_alone(info):
    torch.manual_seed(0)
    plain = config_with(info.name, hidden=8, dropout=0.0)
    options = config_with(info.name, hidden=8, dropout=0.0, feature_dropout=0.5, mixup=1.0)
    model, twin = build_aggregator(options, 12, 2), build_aggregator(plain, 12, 2)
    twin.load_state_dict(model.state_dict())
    batch = _batch(12)
    assert torch.equal(model.eval()(batch).embedding, twin.eval()(batch).embedding)
    labels = torch.tensor([0, 1, 1])
    outputs = []
    for each in (model, twin):
        torch.manual_seed(1)
        outputs.append(each.train()(batch, labels).embedding)
    assert not torch.allclose(*outputs)
