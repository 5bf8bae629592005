"""Brings labels and features together; what has no partner is named, not dropped in silence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from wsi_ncmi.cohorts.bags import BagSource, empty_bags
from wsi_ncmi.cohorts.cohort import Cohort, CohortRow
from wsi_ncmi.core.errors import InputError, counted
from wsi_ncmi.core.values import SUSPECT, suspects_between
from wsi_ncmi.slides import SlideIndex


@dataclass(frozen=True)
class Unmatched:
    """A slide that can't be used, and why (a row of the cohort flow in the report)."""

    slide_id: str
    reason: str


@dataclass(frozen=True)
class MatchResult:
    """What labels and features have in common.

    Attributes:
        cohort: Labelled slides with at least one tile; ids as the source spells them. Its notes name ids
            of the labels that look misspelled.
        unmatched: Labels without features, features without tiles (no tissue) and features without a label,
            sorted by slide id.
    """

    cohort: Cohort
    unmatched: tuple[Unmatched, ...]


def match_features(cohort: Cohort, source: BagSource) -> MatchResult:
    """Joins a cohort with a bag source.

    Slide ids match with or without slide extension, and in any form of Unicode. Those that differ in more
    (case, zeros in front) are no match; they are named.

    Raises:
        InputError: A label fits several slides that differ only in their extension, no slide has both label
            and features, or what is left is a single class.
    """
    unused = dict.fromkeys(source.slide_ids)
    index = SlideIndex(source.slide_ids)
    without_tiles = set(empty_bags(source))
    usable: list[CohortRow] = []
    empty: list[CohortRow] = []
    missing: list[CohortRow] = []
    official: dict[str, str] = {}
    for row in cohort.rows:
        candidates = index.candidates(row.slide_id)
        if not candidates:
            missing.append(row)
            continue
        if len(candidates) > 1 or candidates[0] not in unused:
            raise InputError(
                f"The label of {row.slide_id!r} could belong to {' or '.join(map(repr, candidates))} in "
                f"{source.path}; write the slide id in the labels as the features do."
            )
        name = candidates[0]
        del unused[name]
        if name in without_tiles:
            empty.append(row)
        else:
            usable.append(replace(row, slide_id=name))
            if row.slide_id in cohort.official_split:
                official[name] = cohort.official_split[row.slide_id]
    unlabelled = tuple(unused)
    alike = suspects_between((row.slide_id for row in missing), unlabelled)
    example = next((f"{a!r} and {b!r} {SUSPECT}" for a, b in alike.items()), "")
    if not usable:
        paths = any(sign in cohort.slide_ids[0] for sign in "/\\")
        remedy = "keep the files' names alone in the labels" if paths else "check the slide ids"
        raise InputError(
            f"None of the {len(cohort.rows)} labelled slides has features in {source.path} (labels have ids "
            f"like {cohort.slide_ids[0]!r}, features like {source.slide_ids[0]!r}); "
            f"{f'{example}: write the slide ids in one way' if alike else remedy}."
        )
    found = {row.label for row in usable}
    if len(found) < 2:
        raise InputError(
            f"All {len(usable)} labelled slides with features in {source.path} have the class "
            f"{next(iter(found))!r}; a task needs at least two."
        )
    unmatched = [
        Unmatched(
            row.slide_id,
            "label without features"
            + (
                f" (misspelled? There are features of {alike[row.slide_id]!r})"
                if row.slide_id in alike
                else ""
            ),
        )
        for row in missing
    ]
    unmatched += [Unmatched(row.slide_id, "no tissue: the features hold no tile") for row in empty]
    unmatched += [Unmatched(name, "features without label") for name in unlabelled]
    notes = [f"{counted(len(alike), 'slide')} of the labels may be misspelled: {example}."] if alike else []
    return MatchResult(
        cohort=replace(
            cohort,
            rows=tuple(usable),
            official_split=official,
            notes=(*cohort.notes, *notes),
            fingerprints=_fingerprints(source, usable),
        ),
        unmatched=tuple(sorted(unmatched, key=lambda item: item.slide_id)),
    )


def _fingerprints(source: BagSource, usable: Sequence[CohortRow]) -> dict[str, str]:
    # Only our own feature files say which slide they were made from.
    known: Mapping[str, str] = getattr(source, "fingerprints", {})
    return {row.slide_id: known[row.slide_id] for row in usable if row.slide_id in known}
