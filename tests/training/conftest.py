"""A small packed cohort whose classes differ in one rare tile per bag, and helpers around it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from wsi_ncmi.cohorts import BagSource, Cohort, Fold, Splits, open_bag_source
from wsi_ncmi.losses import loss_config
from wsi_ncmi.mil import model_config
from wsi_ncmi.training import TrainingConfig

WIDTH = 12
CLASSES = ("alpha", "beta", "gamma")
MODEL = model_config(hidden=16, attention=8, dropout=0.25)
QUICK = TrainingConfig(epochs=3, batch_size=4, device="cpu")
CE = loss_config(name="ce")


def write_cohort(path: Path, *, slides: int = 48, seed: int = 0, tiles: tuple[int, int] = (3, 12)) -> Path:
    """Bags of noise in which one tile carries the class (the second of two slides per patient: one more)."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(*tiles, size=slides)
    labels = np.arange(slides) // 2 % len(CLASSES)
    bags = []
    for length, label in zip(lengths, labels, strict=True):
        bag = rng.normal(size=(length, WIDTH))
        bag[rng.integers(length), label] += 6.0
        bags.append(bag)
    save_cohort(path, np.concatenate(bags), lengths, [CLASSES[i] for i in labels])
    return path


def save_cohort(path: Path, features: np.ndarray, lengths: np.ndarray, labels: list[str]) -> None:
    count = len(lengths)
    np.savez(
        path,
        features=features.astype(np.float16),
        lengths=lengths.astype(np.int32),
        label=np.array(labels),
        slide_id=np.array([f"slide_{i:03d}" for i in range(count)]),
        case_id=np.array([f"case_{i // 2:03d}" for i in range(count)]),
        centre=np.array([f"centre_{i // 2 % 2}" for i in range(count)]),
    )


@dataclass(frozen=True)
class Task:
    path: Path
    source: BagSource
    cohort: Cohort
    splits: Splits

    @property
    def fold(self) -> Fold:
        return self.splits.folds[0]


def open_task(path: Path, folds: int = 2) -> Task:
    """Folds by patient: patient p is tested in fold p // 3 % folds and validates in the next eighth."""
    source = open_bag_source(path)
    cohort = source.embedded_cohort()
    assert cohort is not None
    made = []
    for k in range(folds):
        parts: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
        for i, slide_id in enumerate(cohort.slide_ids):
            group = i // 2 // len(CLASSES)
            if group % (2 * folds) == 2 * k:
                parts["test"].append(slide_id)
            elif group % (2 * folds) == (2 * k + 1) % (2 * folds):
                parts["validation"].append(slide_id)
            else:
                parts["train"].append(slide_id)
        made.append(Fold(tuple(parts["train"]), tuple(parts["validation"]), tuple(parts["test"])))
    return Task(path, source, cohort, Splits(tuple(made)))


@pytest.fixture
def kit() -> SimpleNamespace:
    """The constants and functions of this file (a test can't import a conftest in importlib mode)."""
    return SimpleNamespace(
        WIDTH=WIDTH, CLASSES=CLASSES, MODEL=MODEL, QUICK=QUICK, CE=CE,
        write_cohort=write_cohort, save_cohort=save_cohort, open_task=open_task,
    )  # fmt: skip


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return open_task(write_cohort(tmp_path / "bags.npz"))
