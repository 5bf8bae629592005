"""What an experiment is going to run, and whether it may."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from wsi_ncmi.cohorts import SHARED_KINDS, Cohort, Evidence, Splits, find_leaks
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import path_safe
from wsi_ncmi.losses import LossConfig
from wsi_ncmi.training.runs import Run

__all__ = ["named_losses", "plan_runs", "refuse_leaks"]


def plan_runs(losses: Mapping[str, LossConfig], folds: int, seeds: Sequence[int], out: Path) -> list[Run]:
    """Lists the runs, the losses of a fold and seed together, so that an early stop leaves fair pairs."""
    if len(set(seeds)) != len(seeds) or not seeds:
        raise InputError(f"The seeds must be different and at least one, got {list(seeds)}.")
    roots = {name: out if len(losses) == 1 else out / path_safe(name) for name in losses}
    return [
        Run(name, loss, fold, seed, roots[name] / f"fold_{fold}" / f"seed_{seed}")
        for seed in seeds
        for fold in range(folds)
        for name, loss in losses.items()
    ]


def refuse_leaks(
    splits: Splits, cohort: Cohort, *, allow_leak: bool, evidence: Evidence | None = None
) -> None:
    """Stops before any training when the audit finds what would falsify the result.

    Args:
        splits: The folds.
        cohort: Their labels.
        allow_leak: Accept a patient, slide or image in two parts (not a part that can't be trained on).
        evidence: What else is known of the slides: inventory, thumbnails, hashes of features.

    Raises:
        InputError: The first fatal finding.
    """
    fatal = [leak for leak in find_leaks(splits, cohort, evidence=evidence) if leak.fatal]
    if allow_leak:
        fatal = [leak for leak in fatal if leak.kind not in SHARED_KINDS]
    if fatal:
        more = f" (and {len(fatal) - 1} more)" if len(fatal) > 1 else ""
        remedy = " or pass --allow-leak" if fatal[0].kind in SHARED_KINDS else ""
        raise InputError(f"{fatal[0].detail.rstrip('.')}{more}; make the splits again{remedy}.")


def named_losses(losses: Sequence[LossConfig] | Mapping[str, LossConfig]) -> Mapping[str, LossConfig]:
    """Gives each loss the name of its folder: the mapping's, else its own.

    Raises:
        InputError: No loss, or two of one name.
    """
    named = losses if isinstance(losses, Mapping) else {loss.name: loss for loss in losses}
    if not named:
        raise InputError("An experiment needs at least one loss.")
    if len(named) != len(losses) or len({path_safe(name) for name in named}) != len(named):
        raise InputError("Two losses of the experiment have the same name; name each setting in a mapping.")
    return named
