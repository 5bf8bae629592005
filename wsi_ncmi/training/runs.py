"""One run of a loss, fold and seed: folder, files, and the proof that it is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsi_ncmi.cohorts import Cohort
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import atomic_path, parse_json, write_json
from wsi_ncmi.parallel import process_group as distributed
from wsi_ncmi.training.bags import BagCache
from wsi_ncmi.training.checkpoint import MODEL_JSON, MODEL_WEIGHTS, TrainedModel
from wsi_ncmi.training.config import RunConfig
from wsi_ncmi.training.curves import CURVES
from wsi_ncmi.training.data import TrainingData
from wsi_ncmi.training.fitting import fit
from wsi_ncmi.training.resume import LAST, first_difference, read_resume, run_identity
from wsi_ncmi.training.scoring import embed, probabilities_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "RUN_JSON",
    "VALIDATION",
    "Run",
    "RunFailure",
    "do_run",
    "is_done",
    "read_run_predictions",
    "remove_run",
]

RUN_JSON = "run.json"
PREDICTIONS = "predictions.csv"
VALIDATION = "validation.csv"
_TEXT_COLUMNS = ("slide_id", "case_id", "centre", "label", "prediction")


@dataclass(frozen=True)
class Run:
    """One run of an experiment.

    Attributes:
        name: The loss's name in the experiment.
        config: Model, loss, optimisation and seed.
        fold: Position of the fold.
        folder: Where the run's files go.
    """

    name: str
    config: RunConfig
    fold: int
    folder: Path

    @property
    def seed(self) -> int:
        """Seed of weights and order."""
        return self.config.seed

    def identity(self, data: TrainingData) -> dict[str, Any]:
        """What makes the run (see ``run_identity``)."""
        return run_identity(data.source, data.splits.folds[self.fold], data.cohort, self.config)


@dataclass(frozen=True)
class RunFailure:
    """A run that has no result.

    Attributes:
        loss: Name of the loss in the experiment.
        fold: Position of the fold.
        seed: Seed of the run.
        reason: One sentence.
        details: Traceback of an unexpected error, else empty.
    """

    loss: str
    fold: int
    seed: int
    reason: str
    details: str = ""


def is_done(run: Run, identity: Mapping[str, Any]) -> bool:
    """Tells whether the run's folder holds its finished result.

    Args:
        run: The run.
        identity: What it is to be.

    Returns:
        True when all files are there; False when nothing is, or an unfinished part of the same run.

    Raises:
        InputError: The folder holds another run; names the first difference.
    """
    found = _identity_on_disk(run.folder)
    if found is None:
        return False
    if difference := first_difference(found, identity):
        raise InputError(
            f"{run.folder} holds a run of another configuration ({difference}); choose another --out, "
            "or pass --overwrite to replace it."
        )
    files = (RUN_JSON, PREDICTIONS, CURVES, MODEL_JSON, MODEL_WEIGHTS)
    return all((run.folder / name).is_file() for name in files)


def _identity_on_disk(folder: Path) -> Mapping[str, Any] | None:
    for name in (RUN_JSON, MODEL_JSON):
        path = folder / name
        if path.is_file():
            try:
                identity: Mapping[str, Any] = parse_json(path.read_text(encoding="utf-8"))["identity"]
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{path} can't be read ({error}); remove it or pass --overwrite.") from error
            return identity
    resumed = read_resume(folder)
    return None if resumed is None else resumed[0]


def remove_run(run: Run) -> None:
    """Removes the files of a run, the proof of completeness first."""
    for name in (RUN_JSON, PREDICTIONS, VALIDATION, CURVES, MODEL_JSON, MODEL_WEIGHTS, LAST):
        (run.folder / name).unlink(missing_ok=True)


def do_run(
    run: Run, cache: BagCache, data: TrainingData, on_epoch: Callable[[Mapping[str, float]], None]
) -> None:
    """Fits the model, predicts the fold's validation and test parts and writes ``run.json`` last.

    Args:
        run: What to do.
        cache: The bags, shared by the runs of a process.
        data: Labels and folds.
        on_epoch: Called with the curve's row after every epoch.

    Raises:
        InputError: As ``fit``.
        TrainingError: As ``fit``.
    """
    split = data.splits.folds[run.fold]
    result = fit(
        cache, split, data.cohort, run.config, out=run.folder, encoder=data.origin, on_epoch=on_epoch
    )
    if distributed.rank() > 0:
        return
    # Those of the validation part are what a temperature may be fitted on.
    for name, slide_ids in ((VALIDATION, split.validation), (PREDICTIONS, split.test)):
        table = _predictions(result.model, cache, data.cohort, slide_ids)
        table.insert(2, "fold", run.fold)
        table.insert(3, "seed", run.seed)
        with atomic_path(run.folder / name) as temporary:
            table.to_csv(temporary, index=False, lineterminator="\n")
    write_json(
        run.folder / RUN_JSON,
        {
            "loss": run.name,
            "fold": run.fold,
            "seed": run.seed,
            "best_epoch": result.best_epoch,
            "epochs": len(result.curves),
            "training_seconds": sum(row["seconds"] for row in result.curves),
            "identity": result.model.config["identity"],
        },
    )


def _predictions(
    model: TrainedModel, cache: BagCache, cohort: Cohort, slide_ids: tuple[str, ...]
) -> pd.DataFrame:
    import pandas as pd

    rows = [cohort.by_slide[slide_id] for slide_id in slide_ids]
    device = model.aggregator.input_mean.device
    probabilities = probabilities_of(model.criterion, embed(model.aggregator, cache, slide_ids, device))
    table = pd.DataFrame({"slide_id": list(slide_ids), "case_id": [row.case_id for row in rows]})
    table["label"] = [row.label for row in rows]
    table["prediction"] = [model.classes[i] for i in probabilities.argmax(axis=1)]
    for position, name in enumerate(model.classes):
        table[f"p_{name}"] = probabilities[:, position]
    if cohort.centres:
        # Last: the columns before it are those of the command line's contract, in its order.
        table["centre"] = [row.centre for row in rows]
    return table


def read_run_predictions(path: Path) -> pd.DataFrame:
    """Reads a ``predictions.csv``: ids and classes as the strings they are, numbers to their last digit."""
    import pandas as pd

    text = dict.fromkeys(_TEXT_COLUMNS, str)
    return pd.read_csv(path, dtype=text, keep_default_na=False, float_precision="round_trip")
