"""From the slides found to the slides used: how many at each step, and why the others are not there."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from textwrap import shorten
from typing import TYPE_CHECKING, Protocol

from wsi_ncmi.reporting.paths import without_folders

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FlowStep", "Unusable", "cohort_flow"]

_NO_FEATURES = "label without features"  # as ``wsi_ncmi.cohorts.match_features`` words it
_LONGEST_REASON = 110
_MOST_REASONS = 6


class Unusable(Protocol):
    """A slide without partner, such as ``wsi_ncmi.cohorts.Unmatched``."""

    @property
    def slide_id(self) -> str:
        """Name of the slide."""

    @property
    def reason(self) -> str:
        """Why it can't be used."""


@dataclass(frozen=True)
class FlowStep:
    """One step of the cohort flow.

    Attributes:
        name: For example ``slides found``.
        slides: How many are left after this step.
        patients: How many patients they come from; None where not known.
        lost: Reason → slides that this step took out.
        beside: What → how many, for what never was a slide of this step (labels without a slide).
    """

    name: str
    slides: int
    patients: int | None = None
    lost: Mapping[str, int] = field(default_factory=dict)
    beside: Mapping[str, int] = field(default_factory=dict)


def cohort_flow(
    *,
    used_slides: int,
    used_patients: int | None = None,
    ledger: pd.DataFrame | None = None,
    unmatched: Iterable[Unusable] = (),
) -> tuple[FlowStep, ...]:
    """Builds the flow from the extraction's ledger and the match of labels with features.

    Args:
        used_slides: Slides that were split and trained on.
        used_patients: Their patients.
        ledger: ``slide_id, status, reason, tiles``; None where features came ready.
        unmatched: Slides without label or without features (``MatchResult.unmatched``).

    Returns:
        Steps in order; the last is the slides used.
    """
    steps: list[FlowStep] = []
    unusable = [(str(item.slide_id), str(item.reason)) for item in unmatched]
    known: set[str] = set()
    if ledger is not None and len(ledger):
        status = ledger["status"].astype(str)
        failed = ledger[status == "failed"]
        pairs = zip(failed["reason"].fillna(""), failed["slide_id"], strict=True)
        reasons = Counter(_general(str(reason), str(slide_id)) for reason, slide_id in pairs)
        steps.append(FlowStep("slides found", len(ledger)))
        steps.append(FlowStep("features extracted", len(ledger) - len(failed), lost=_ordered(reasons)))
        known = set(ledger["slide_id"].astype(str))
        failed_ids = set(failed["slide_id"].astype(str))
        # A label whose slide failed was lost at the step before; a label without any slide never was one.
        unusable = [item for item in unusable if item[0] not in failed_ids]
    else:
        features = used_slides + sum(reason != _NO_FEATURES for _, reason in unusable)
        steps.append(FlowStep("slides with features", features))
    lost = Counter(reason for name, reason in unusable if name in known or reason != _NO_FEATURES)
    steps.append(FlowStep("used: labelled, with tissue", used_slides, used_patients, _ordered(lost)))
    absent = sum(reason == _NO_FEATURES and name not in known for name, reason in unusable)
    if absent:
        steps[0] = replace(steps[0], beside={"labels without a slide": absent})
    return tuple(steps)


def _general(reason: str, slide_id: str) -> str:
    """The reason without what is particular to one slide, so that equal causes are counted together."""
    text = " ".join(str(without_folders(reason)).split())
    # The slide as a path, a file name or an id, but not as a part of another word.
    if slide_id:
        text = re.sub(rf"(?:…/)?(?<!\w){re.escape(slide_id)}(?:\.\w+)?(?!\w)", "the slide", text)
    # What follows a semicolon is the remedy (or the next reader's complaint): the ledger has it in full.
    head = text.split("; ")[0].rstrip(".;: ")
    return shorten(head, _LONGEST_REASON, placeholder=" …") or "no reason given"


def _ordered(counts: Counter[str]) -> dict[str, int]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    found = dict(ordered[:_MOST_REASONS])
    rest = sum(n for _, n in ordered[_MOST_REASONS:])
    return found | {"other reasons": rest} if rest else found
