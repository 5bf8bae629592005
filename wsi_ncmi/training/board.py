"""Curves for TensorBoard, beside the CSV."""

from __future__ import annotations

import contextlib
import importlib.util
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from wsi_ncmi.core.errors import InputError

__all__ = ["BOARD", "board_of", "check_board"]

BOARD = "tensorboard"
"""Folder of the event files in a run's folder."""

Tell = Callable[[Mapping[str, float]], None]


def check_board(wanted: bool) -> None:
    """Refuses before anything is started what would fail at the first epoch.

    Raises:
        InputError: TensorBoard is wanted and isn't installed.
    """
    if wanted and importlib.util.find_spec("tensorboard") is None:
        raise InputError(
            "training.tensorboard needs the package 'tensorboard': install wsi-ncmi[tensorboard], or set it "
            "to false."
        )


@contextlib.contextmanager
def board_of(folder: Path, wanted: bool, first_epoch: int) -> Iterator[Tell]:
    """Gives what writes a row of ``curves.csv`` as events ``train/…`` and ``validation/…``.

    Args:
        folder: The run's folder.
        wanted: Without it nothing is written and nothing imported.
        first_epoch: First epoch (from 1) that will be told; later events of a run that was cut off are void.
    """
    check_board(wanted)
    if not wanted:
        yield lambda row: None
        return
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / BOARD), purge_step=first_epoch)

    def tell(row: Mapping[str, float]) -> None:
        for name, value in row.items():
            if name != "epoch" and math.isfinite(value):
                group, _, rest = name.partition("_")
                tag = {"val": f"validation/{rest}", "train": f"train/{rest}"}.get(group, f"train/{name}")
                writer.add_scalar(tag, value, int(row["epoch"]))
        writer.flush()

    try:
        yield tell
    finally:
        writer.close()
