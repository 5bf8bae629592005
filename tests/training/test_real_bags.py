"""One fold of real slide bags: both losses clearly above chance in a short run."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sklearn.metrics import f1_score

from wsi_ncmi.cohorts import SplitConfig, make_splits, open_bag_source
from wsi_ncmi.losses import loss_config
from wsi_ncmi.training import TrainConfig, TrainingConfig, TrainingData, run_experiment


@pytest.mark.real_data
def test_kidney_subtypes(real_data, tmp_path):
    """The full protocol (5 folds × 3 seeds, 20 epochs) lies above 0.902; 8 epochs of one fold must reach 0.82."""
    path = real_data / "tcga_bags" / "tcga_rcc.npz"
    cohort = open_bag_source(path).embedded_cohort()
    assert cohort is not None
    splits = make_splits(cohort, SplitConfig())
    config = TrainConfig(
        losses=(loss_config(name="ce"), loss_config(name="ncmi")), workers=1, out=tmp_path,
        training=TrainingConfig(epochs=8, device="cpu"),
    )  # fmt: skip
    data = TrainingData(open_bag_source(path), cohort, replace(splits, folds=splits.folds[:1]))
    result = run_experiment(config, data)
    assert result.failures == ()
    for loss, table in result.predictions.groupby("loss"):
        assert f1_score(table["label"], table["prediction"], average="macro") >= 0.82, loss
