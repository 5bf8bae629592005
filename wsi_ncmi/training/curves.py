"""Curves of a run: ``curves.csv``, and events for TensorBoard beside it."""

import contextlib
import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wsi_ncmi.core.files import atomic_path

CURVES = "curves.csv"

TENSORBOARD = "tensorboard"
"""Folder of the event files in a run's folder."""


def write_curves(folder: Path, curves: Sequence[Mapping[str, Any]]) -> None:
    """Writes ``curves.csv`` atomically: one row an epoch, at least one; NaN is an empty cell."""
    with (
        atomic_path(folder / CURVES) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as handle,
    ):
        writer = csv.DictWriter(handle, curves[0], lineterminator="\n")
        writer.writeheader()
        for row in curves:
            writer.writerow({name: "" if value != value else value for name, value in row.items()})


@contextlib.contextmanager
def tensorboard_writer(
    folder: Path, wanted: bool, first_epoch: int
) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Gives what writes a row of ``curves.csv`` as events ``train/…`` and ``validation/…``.

    Args:
        folder: The run's folder.
        wanted: Without it nothing is written and nothing imported.
        first_epoch: First epoch (from 1) that will be told; later events of a run that was cut off are void.
    """
    if not wanted:
        yield lambda row: None
        return
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / TENSORBOARD), purge_step=first_epoch)

    def write(row: Mapping[str, float]) -> None:
        for name, value in row.items():
            if name != "epoch" and math.isfinite(value):
                group, _, rest = name.partition("_")
                tag = {"val": f"validation/{rest}", "train": f"train/{rest}"}.get(group, f"train/{name}")
                writer.add_scalar(tag, value, int(row["epoch"]))
        writer.flush()

    try:
        yield write
    finally:
        writer.close()
