"""Gated ABMIL (hidden 512, attention 256, three classes) trained by one program: ``training.py PROGRAM JOB``.

The job names the bags in every program's own format (below ``data``), ``out``, ``epochs`` and ``batch``. Each
program trains and validates in every epoch as it does by itself.
"""

import json
import random
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
from common import Job, command, run

CLASSES = ("first", "second", "third")
HIDDEN, ATTENTION = 512, 256


def ours(job: Job) -> Job:
    """``wsi-ncmi train``."""
    from wsi_ncmi.cli.app import main

    data = job["data"]
    arguments = [
        "--features",
        f"{data}/bags.npz",
        "--labels",
        f"{data}/labels.csv",
        "--splits",
        f"{data}/splits.json",
    ]
    arguments += ["--out", job["out"], "--loss", "ce", "--seeds", "1", "--epochs", str(job["epochs"])]
    arguments += ["--batch-size", str(job["batch"]), "--workers", "1"]
    arguments += ["--set", f"model.hidden={HIDDEN}", "--set", f"model.attention={ATTENTION}"]
    command(main, ["wsi-ncmi", "train", *arguments])
    return {}


def clam(job: Job) -> Job:
    """``utils.core_utils.train`` of ``clam_sb`` without instance clustering: gated ABMIL, one bag a step."""
    import torch
    from dataset_modules.dataset_generic import Generic_MIL_Dataset
    from utils.core_utils import train

    torch.set_num_threads(1)
    _seed()
    settings = Namespace(
        results_dir=job["out"],
        log_data=False,
        bag_loss="ce",
        drop_out=0.25,
        n_classes=3,
        embed_dim=job["dim"],
        model_size="small",
        model_type="clam_sb",
        subtyping=True,
        B=8,
        inst_loss="ce",
        opt="adam",
        lr=2e-4,
        reg=1e-5,
        testing=False,
        weighted_sample=False,
        early_stopping=False,
        max_epochs=job["epochs"],
        no_inst_cluster=True,
        bag_weight=0.7,
    )
    Path(job["out"]).mkdir(parents=True, exist_ok=True)
    bags = Generic_MIL_Dataset(
        csv_path=f"{job['data']}/labels.csv",
        data_dir=f"{job['data']}/clam",
        shuffle=False,
        seed=1,
        print_info=False,
        label_dict={name: number for number, name in enumerate(CLASSES)},
        patient_strat=False,
        ignore=[],
    )
    train(bags.return_splits(from_id=False, csv_path=f"{job['data']}/splits_0.csv"), 0, settings)
    return {}


def torchmil(job: Job) -> Job:
    """``Trainer`` of ``ABMIL``; its models are binary, so three outputs and cross-entropy are put in."""
    import torch
    from torch.utils.data import DataLoader
    from torchmetrics.classification import MulticlassF1Score
    from torchmil.data import collate_fn
    from torchmil.datasets import ProcessedMILDataset
    from torchmil.models import ABMIL
    from torchmil.utils import Trainer

    torch.set_num_threads(1)
    _seed()

    class Loss(torch.nn.Module):
        def forward(self, scores: Any, labels: Any) -> Any:
            return torch.nn.functional.cross_entropy(scores, labels.long().view(-1))

    class Score(MulticlassF1Score):
        def update(self, scores: Any, labels: Any) -> None:
            super().update(scores, labels.long().view(-1))

    folder = Path(job["data"])
    fold = json.loads((folder / "splits.json").read_text("utf-8"))["folds"][0]

    def loader(part: str) -> Any:
        bags = ProcessedMILDataset(
            features_path=str(folder / "torchmil/X"),
            labels_path=str(folder / "torchmil/Y"),
            bag_names=fold[part],
            bag_keys=["X", "Y"],
            load_at_init=True,
            verbose=False,
        )
        return DataLoader(bags, batch_size=job["batch"], shuffle=part == "train", collate_fn=collate_fn)

    first = torch.nn.Sequential(torch.nn.Linear(job["dim"], HIDDEN), torch.nn.ReLU(), torch.nn.Dropout(0.25))
    model = ABMIL(in_shape=(job["dim"],), att_dim=ATTENTION, gated=True, feat_ext=first, criterion=Loss())
    model.classifier = torch.nn.Linear(HIDDEN, len(CLASSES))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-4, weight_decay=1e-5)
    trainer = Trainer(
        model,
        optimizer,
        metrics_dict={"f1": Score(num_classes=len(CLASSES), average="macro")},
        obj_metric="f1",
        device="cpu",
        disable_pbar=True,
        verbose=False,
    )
    trainer.train(job["epochs"], loader("train"), loader("validation"))
    return {}


def _seed() -> None:
    """One seed for everything that draws."""
    import torch

    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 - the peers draw from it
    torch.manual_seed(1)


PROGRAMS = {"ours": ours, "clam": clam, "torchmil": torchmil}

if __name__ == "__main__":
    run(PROGRAMS)
