"""The leak audit: what would let a model be tested on what it was trained on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from wsi_ncmi.cohorts.cohort import Cohort
from wsi_ncmi.cohorts.evidence import Evidence
from wsi_ncmi.cohorts.folds import PARTS, Fold, Splits
from wsi_ncmi.cohorts.near_duplicates import NearDuplicate, find_near_duplicates
from wsi_ncmi.core.values import SUSPECT, suspects, suspects_between
from wsi_ncmi.slides import slide_id_of

LeakKind = Literal[
    "patient", "slide", "content", "lookalike", "name", "site", "test_twice", "class", "centre", "unknown",
    "left_out",
]  # fmt: skip

SHARED_KINDS: tuple[LeakKind, ...] = ("patient", "slide", "content", "lookalike", "name", "site")
"""Kinds that put the same thing into two parts: the leaks in the narrow sense."""

LEAKING = "This split LEAKS between its parts and was trained on with --allow-leak."
"""Warning of a run whose split leaks."""

_SHOWN = 3
_NOUNS: Mapping[LeakKind, str] = {"patient": "Patient", "slide": "Slide", "content": "The same content"}


@dataclass(frozen=True)
class Leak:
    """One finding.

    Attributes:
        kind: ``patient``, ``slide`` or ``content`` in two parts, ``lookalike`` (two slides of two parts that
            look the same), ``name`` (files of one name in two folders, in two parts), ``site`` (a centre in
            two parts of a site-preserved split), ``test_twice`` (a slide tested in two folds), ``class`` or
            ``centre`` missing from a part, ``unknown`` slide, ``left_out`` (labelled
            slides in no part).
        fold: Position of the fold; -1 where it concerns several.
        what: The patient, slide, class or centre.
        detail: One sentence.
        fatal: Whether training must refuse the split; what is merely missing from validation or test is a
            warning.
    """

    kind: LeakKind
    fold: int
    what: str
    detail: str
    fatal: bool


def find_leaks(
    splits: Splits,
    cohort: Cohort | None = None,
    *,
    fingerprints: Mapping[str, str] | None = None,
    evidence: Evidence | None = None,
) -> list[Leak]:
    """Audits splits.

    Args:
        splits: Ours, or read with ``read_any_splits``.
        cohort: Labels; without them only slides can be compared, not patients, classes or centres.
        fingerprints: Slide id → content hash, to find one slide under two names; default: those that the
            cohort got from its features.
        evidence: What else is known of the slides.

    Returns:
        All findings, in the order of the folds; empty = clean.
    """
    evidence = evidence or Evidence()
    prints = {**(cohort.fingerprints if cohort else {}), **evidence.fingerprints, **(fingerprints or {})}
    contents = [keys for keys in (prints, evidence.features) if keys]
    near_duplicates = find_near_duplicates(evidence.signatures)
    by_site = _splits_by_site(splits)
    leaks: list[Leak] = []
    for k, fold in enumerate(splits.folds):
        leaks += _shared(k, fold, "slide", {s: s for part in PARTS for s in fold.part(part)})
        if cohort is not None:
            leaks += _unknown(k, fold, cohort)
            leaks += _shared(k, fold, "patient", {row.slide_id: row.case_id for row in cohort.rows})
            leaks += _spelled_alike(k, fold, cohort)
            leaks += _missing(k, fold, cohort, centres=not by_site)
            if by_site:
                leaks += _shared_sites(k, fold, cohort)
        reported: set[frozenset[str]] = set()
        for keys in contents:
            for leak, pairs in _shared_contents(k, fold, keys):
                if not pairs <= reported:
                    leaks.append(leak)
                reported |= pairs
        leaks += _near_duplicates(k, fold, near_duplicates, reported)
        leaks += _same_names(k, fold, evidence.paths, prints, reported)
    leaks += _tested_twice(splits)
    if cohort is not None:
        leaks += _left_out(splits, cohort)
    return leaks


def _places(fold: Fold, keys: Mapping[str, str]) -> dict[str, dict[str, list[str]]]:
    """Key → part → slides with that key."""
    places: dict[str, dict[str, list[str]]] = {}
    for part in PARTS:
        for slide_id in fold.part(part):
            key = keys.get(slide_id, "")
            if key:
                places.setdefault(key, {}).setdefault(part, []).append(slide_id)
    return dict(sorted(places.items()))


def _shared(k: int, fold: Fold, kind: LeakKind, keys: Mapping[str, str]) -> Iterator[Leak]:
    for key, found in _places(fold, keys).items():
        if len(found) > 1:
            yield Leak(kind, k, key, f"Fold {k}: {_NOUNS[kind]} {key} is in {_where(found)}.", fatal=True)
        if kind == "slide":
            for part, names in found.items():
                if len(names) > 1:
                    detail = f"Fold {k}: Slide {key} is {len(names)} times in {part}."
                    yield Leak(kind, k, key, detail, fatal=True)


def _spelled_alike(k: int, fold: Fold, cohort: Cohort) -> Iterator[Leak]:
    parts: dict[str, set[str]] = {}
    for slide_id, part in _part_of(fold).items():
        if slide_id in cohort.by_slide:
            parts.setdefault(cohort.by_slide[slide_id].case_id, set()).add(part)
    apart = [
        group for group in suspects(sorted(parts)) if len({frozenset(parts[name]) for name in group}) > 1
    ]
    for a, b, *_ in [] if cohort.case_id_assumed else apart[:1]:
        more = f" (and {len(apart) - 1} more such pairs)" if len(apart) > 1 else ""
        detail = (
            f"Fold {k}: Patients {a} ({', '.join(sorted(parts[a]))}) and {b} ({', '.join(sorted(parts[b]))}) "
            f"{SUSPECT}{more}; are they one?"
        )
        yield Leak("patient", k, f"{a}, {b}", detail, fatal=False)


def _shared_contents(
    k: int, fold: Fold, keys: Mapping[str, str]
) -> Iterator[tuple[Leak, set[frozenset[str]]]]:
    for key, found in _places(fold, keys).items():
        names = sorted({name for names in found.values() for name in names})
        if len(found) > 1 and len(names) > 1:  # one slide in two parts is reported as such already
            detail = f"Fold {k}: The same content ({key[:12]}) is in {_where(found)}."
            pairs = {frozenset((a, b)) for i, a in enumerate(names) for b in names[i + 1 :]}
            yield Leak("content", k, key, detail, fatal=True), pairs


def _where(found: Mapping[str, Sequence[str]]) -> str:
    return ", ".join(
        f"{part} ({', '.join(names[:_SHOWN])}{', …' if len(names) > _SHOWN else ''})"
        for part, names in found.items()
    )


def _part_of(fold: Fold) -> dict[str, str]:
    return {slide_id: part for part in PARTS for slide_id in fold.part(part)}


def _near_duplicates(
    k: int, fold: Fold, pairs: Sequence[NearDuplicate], reported: set[frozenset[str]]
) -> Iterator[Leak]:
    part_of = _part_of(fold)
    for pair in pairs:
        a, b = part_of.get(pair.first), part_of.get(pair.second)
        if a and b and a != b and frozenset((pair.first, pair.second)) not in reported:
            detail = (
                f"Fold {k}: {pair.first} ({a}) and {pair.second} ({b}) look the same (correlation of their "
                f"thumbnails {pair.correlation:.2f})."
            )
            yield Leak("lookalike", k, f"{pair.first}, {pair.second}", detail, fatal=True)


def _same_names(
    k: int, fold: Fold, paths: Mapping[str, str], prints: Mapping[str, str], reported: set[frozenset[str]]
) -> Iterator[Leak]:
    # Ids of files that share a name are their paths (``a__x``), so the id tells it where no inventory does.
    places = {s: paths.get(s) or s.replace("__", "/") for part in PARTS for s in fold.part(part)}
    names = {s: slide_id_of(place.rsplit("/", 1)[-1]) for s, place in places.items()}
    for name, found in _places(fold, names).items():
        slides = sorted({s for in_part in found.values() for s in in_part})
        if len(found) < 2 or len({places[s].rpartition("/")[0] for s in slides}) < 2:
            continue
        if any(frozenset((a, b)) in reported for i, a in enumerate(slides) for b in slides[i + 1 :]):
            continue
        different = all(s in prints for s in slides) and len({prints[s] for s in slides}) == len(slides)
        why = "their content differs" if different else "nothing shows that their content differs"
        certain = all(s in paths for s in slides)  # an id may hold ``__`` for another reason
        detail = f"Fold {k}: files named {name} of different folders are in {_where(found)}; {why}."
        yield Leak("name", k, name, detail, fatal=certain and not different)


def _splits_by_site(splits: Splits) -> bool:
    options = splits.meta.get("options")
    return isinstance(options, Mapping) and options.get("group") == "centre"


def _shared_sites(k: int, fold: Fold, cohort: Cohort) -> Iterator[Leak]:
    centres = {row.slide_id: row.centre for row in cohort.rows if row.centre}
    for centre, found in _places(fold, centres).items():
        if len(found) > 1:
            detail = f"Fold {k}: Centre {centre} is in {_where(found)} of a site-preserved split."
            yield Leak("site", k, centre, detail, fatal=True)


def _unknown(k: int, fold: Fold, cohort: Cohort) -> Iterator[Leak]:
    strangers = {s: part for s, part in _part_of(fold).items() if s not in cohort.by_slide}
    alike = suspects_between(strangers, cohort.slide_ids) if strangers else {}
    for part in PARTS:
        for slide_id in fold.part(part):
            if slide_id in strangers:
                hint = f" (but {alike[slide_id]} has one, and these {SUSPECT})" if slide_id in alike else ""
                detail = f"Fold {k}: Slide {slide_id} in {part} has no label{hint}."
                yield Leak("unknown", k, slide_id, detail, fatal=True)


def _missing(k: int, fold: Fold, cohort: Cohort, *, centres: bool) -> Iterator[Leak]:
    for part in PARTS:
        rows = [cohort.by_slide[s] for s in fold.part(part) if s in cohort.by_slide]
        if not rows and part == "validation":
            continue  # a split without validation is a choice, not an accident
        labels, sites = {row.label for row in rows}, {row.centre for row in rows}
        for name in cohort.classes:
            if name not in labels:
                detail = f"Fold {k}: class {name} has no slide in {part}."
                yield Leak("class", k, name, detail, fatal=part == "train")
        for name in cohort.centres if centres else ():
            if name not in sites:
                detail = f"Fold {k}: centre {name} has no slide in {part}."
                yield Leak("centre", k, name, detail, fatal=False)


def _tested_twice(splits: Splits) -> Iterator[Leak]:
    # Pooled out-of-fold metrics would count such a slide twice. Repeated random splits (as CLAM makes them)
    # do this on purpose, so it doesn't stop a training.
    tested: dict[str, list[int]] = {}
    for k, fold in enumerate(splits.folds):
        for slide_id in set(fold.test):
            tested.setdefault(slide_id, []).append(k)
    for slide_id, folds in sorted(tested.items()):
        if len(folds) > 1:
            detail = f"Slide {slide_id} is tested in folds {', '.join(map(str, folds))}."
            yield Leak("test_twice", -1, slide_id, detail, fatal=False)


def _left_out(splits: Splits, cohort: Cohort) -> Iterator[Leak]:
    used = {s for fold in splits.folds for part in PARTS for s in fold.part(part)}
    idle = [slide_id for slide_id in cohort.slide_ids if slide_id not in used]
    if idle:
        more = f" and {len(idle) - 1} others have labels but are" if len(idle) > 1 else " has a label but is"
        yield Leak("left_out", -1, idle[0], f"Slide {idle[0]}{more} in no part.", fatal=False)


def compared_slides(splits: Splits, cohort: Cohort, evidence: Evidence) -> dict[str, int]:
    """What an audit compares → of how many slides of the splits it is known."""
    in_splits = {s for fold in splits.folds for name in PARTS for s in fold.part(name)}
    prints = {*evidence.fingerprints, *cohort.fingerprints}
    return {
        "patient": 0 if cohort.case_id_assumed else len(in_splits & set(cohort.slide_ids)),
        "file content": len(in_splits & prints),
        "features": len(in_splits & set(evidence.features)),
        "file name": len(in_splits & set(evidence.paths)),
        "thumbnail": len(in_splits & set(evidence.signatures)),
    }
