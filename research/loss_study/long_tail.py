"""The comparison on many classes and rare lesions, step by step as its protocol has it.

    python -m research.loss_study.long_tail prepare DATA WORK
    python -m research.loss_study.long_tail run WORK OUT [--minutes 30]

``prepare`` unpacks TCGA-OT and draws the lesion cohort; ``run`` does what ``OUT`` lacks and may be stopped at
any time. Protocol: ``docs/development/ncmi-long-tail-protocol.md``.
"""

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from research.loss_study.job import study_stage
from wsi_ncmi.core.errors import InputError, WsiNcmiError
from wsi_ncmi.core.progress import progress_for

_GUARDS = ("rcc", "nsclc")
# The lesion cohorts: their test centres and the seed of the draw.
_LESIONS = {
    "cam": ("34", 0), "cam_01": ("01", 0), "cam_12": ("12", 0), "cam_23": ("23", 0), "cam_40": ("40", 0),
    "cam_34_seed1": ("34", 1), "cam_12_seed1": ("12", 1), "cam_40_seed1": ("40", 1),
}  # fmt: skip
_DRAWN = {seed: tuple(name for name, (_, drawn) in _LESIONS.items() if drawn == seed) for seed in (0, 1)}
_ON_LESIONS = {"rivals": 3, "folds": [0], "seeds": [0]}
_AS_DEFAULT = {"rate": 5e-4, "batch_size": 4, "into": "lesions_default"}
_ON_PAIRS = ["ce", "weighted_ce", "logit_adjusted", "ncmi_default", "ncmi_rare_lesions", "ncmi_far"]
_REDRAWN = ["ce", "weighted_ce", "ncmi_far", "floor"]
STEPS: Sequence[tuple[str, tuple[str, ...], dict[str, Any]]] = (
    ("leads", ("ot_sites", "ot"), {"folds": [0]}),
    ("tune", ("ot_sites",), {"folds": [0], "grid": "long_tail"}),
    ("tune", ("ot",), {"folds": [0], "grid": "long_tail", "best": (2, "ot_sites")}),
    ("choose", (), {}),
    ("confirm", ("ot",), {"rivals": 3, "folds": [0], "seeds": [0, 1]}),
    ("confirm", ("ot_sites",), {"rivals": 3, "folds": [0, 1, 2], "seeds": [0, 1]}),
    ("tables", ("ot", "ot_sites"), {}),
    ("confirm", ("cam",), {**_ON_LESIONS, "rate": 1e-3, "into": "lesions"}),
    # As the package's default trains so few slides.
    ("confirm", ("cam",), {**_ON_LESIONS, **_AS_DEFAULT}),
    (
        "confirm",
        _DRAWN[0],
        {**_ON_LESIONS, **_AS_DEFAULT, "losses": _ON_PAIRS, "into": "lesions_pairs"},
    ),
    (
        "confirm",
        _DRAWN[1],
        {**_ON_LESIONS, **_AS_DEFAULT, "losses": _REDRAWN, "into": "lesions_redrawn"},
    ),
    ("models", ("cam",), {"folds": [1], **_AS_DEFAULT}),
    (
        "confirm",
        ("ot_sites",),
        {"rivals": 3, "folds": [0], "seeds": [0], "regimes": ["patients_25", "noise_20"], "into": "regimes"},
    ),
)
"""Stage, its cohorts, and what else ``study_stage`` is told, in order; ``into`` is a folder of its own."""


def prepare(data: Path, work: Path) -> None:
    """Makes the cohorts of the study in a folder.

    Args:
        data: The folder with ``tcga_ot``, ``tcga_bags``, ``lesions`` and what the lesion cohort needs.
        work: Gets ``OT``, a folder of each lesion cohort and copies of the guards.

    Raises:
        InputError: A part of ``data`` is missing.
    """
    scripts = {
        "OT": [str(data / "tcga_ot" / "unpack.py")],
        **{
            name.upper(): [
                "-m",
                "research.lesion_cohort",
                str(data),
                f"--test-centres={centres}",
                f"--seed={seed}",
            ]
            for name, (centres, seed) in _LESIONS.items()
        },
    }
    bags = [data / "tcga_bags" / f"tcga_{name}.npz" for name in _GUARDS]
    for path in (Path(scripts["OT"][0]), data / "lesions", *bags):
        if not path.exists():
            raise InputError(f"{path} does not exist; DATA is the folder of the study's data.")
    work.mkdir(parents=True, exist_ok=True)
    for folder, command in scripts.items():
        subprocess.run([sys.executable, *command, str(work / folder)], check=True)  # noqa: S603
    for path in bags:
        shutil.copy(path, work)


def places(work: Path) -> dict[str, str]:
    """Name → features and table of every cohort that ``prepare`` made."""
    ot = work / "OT"
    return {
        "ot": f"{ot / 'tcga_ot.npz'},{ot / 'splits_0.csv'}",
        "ot_sites": f"{ot / 'tcga_ot.npz'},{ot / 'sites.csv'}",
        **{
            name: f"{work / name.upper() / 'lesions.npz'},{work / name.upper() / 'parts.csv'}"
            for name in _LESIONS
        },
        **{name: str(work / f"tcga_{name}.npz") for name in _GUARDS},
    }


def run(work: Path, out: Path, minutes: float | None = None) -> bool:
    """Does the steps in order; True where all are done, False where the time ended before."""
    until = None if minutes is None else time.monotonic() + 60 * minutes
    known = places(work)
    for stage, cohorts, options in STEPS:
        left = None if until is None else (until - time.monotonic()) / 60
        if left is not None and left <= 0:
            return False
        folder = out / options.get("into", "")
        if folder != out:
            folder.mkdir(exist_ok=True)
            shutil.copy(out / "chosen.json", folder)
        told = {"regimes": ["full"], **{key: value for key, value in options.items() if key != "into"}}
        result = study_stage(
            stage, folder, {name: known[name] for name in cohorts}, minutes=left,
            progress=progress_for(), **told,
        )  # fmt: skip
        print(stage, *cohorts, *result.notes, *(f"failed: {failure}" for failure in result.failures))
        if result.notes:  # the time ended within the stage
            return False
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code: 1 where steps are left."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, first, second in (("prepare", "data", "work"), ("run", "work", "out")):
        command = commands.add_parser(name)
        command.add_argument(first, type=Path)
        command.add_argument(second, type=Path)
    commands.choices["run"].add_argument("--minutes", type=float, default=None)
    given = parser.parse_args(arguments)
    try:
        if given.command == "prepare":
            prepare(given.data, given.work)
            return 0
        return 0 if run(given.work, given.out, given.minutes) else 1
    except WsiNcmiError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
