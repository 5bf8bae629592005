"""Audit of labels and splits before training."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from wsi_ncmi.cohorts import (
    Evidence,
    Leak,
    RowFinding,
    audit_labels,
    compared_slides,
    evidence_of_features,
    evidence_of_slides,
    evidence_of_thumbnails,
    find_leaks,
    merge_evidence,
    read_any_splits,
)
from wsi_ncmi.core.config import configclass
from wsi_ncmi.core.progress import ProgressReporter

AUDIT_SCHEMA = "wsi-ncmi/audit/1"


@dataclass(frozen=True)
class AuditResult:
    """Findings of an audit.

    Attributes:
        folds: Number of folds.
        slides: Slides that can be used, by the labels.
        patients: Their patients.
        rows: What is wrong with the labels.
        problem: Why the labels as a whole are unfit, else empty.
        leaks: What is wrong with the splits.
        compared: What was compared → how many slides of the split it is known of.
        notes: Sentences for a reader, also on what could not be compared.
    """

    folds: int
    slides: int
    patients: int
    rows: tuple[RowFinding, ...]
    problem: str
    leaks: tuple[Leak, ...]
    compared: Mapping[str, int]
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """The split may be trained on."""
        return not (self.problem or any(f.fatal for f in self.rows) or any(f.fatal for f in self.leaks))

    def to_json(self) -> dict[str, Any]:
        """The content of ``--json``, schema ``wsi-ncmi/audit/1``.

        ``schema, passed, folds, slides, patients, compared, problem``, ``labels`` and ``leaks`` (an object a
        finding, with ``kind, detail, fatal``), ``counts`` (kind → findings) and ``notes``.
        """
        return {
            "schema": AUDIT_SCHEMA,
            "passed": self.passed,
            "folds": self.folds,
            "slides": self.slides,
            "patients": self.patients,
            "compared": dict(self.compared),
            "problem": self.problem,
            "labels": [asdict(finding) for finding in self.rows],
            "leaks": [asdict(finding) for finding in self.leaks],
            "counts": dict(Counter([*(row.kind for row in self.rows), *(leak.kind for leak in self.leaks)])),
            "notes": list(self.notes),
        }


@configclass
class AuditConfig:
    """The split to audit.

    Attributes:
        splits: Ours, CLAM's (a file, or a folder of ``splits_<i>.csv``) or a plain CSV.
        labels: Labels table, or ``adapter:FILE``.
        slides: ``slides.csv``, or the folder of slides, to find copies, near-copies and files of one name.
        features: Features, to find copies.
        thumbnails: Folder of thumbnails, to find near-copies.
        group: ``slide_id`` = each slide is a patient of its own.
    """

    splits: Path
    labels: str
    slides: Path | None = None
    features: Path | None = None
    thumbnails: Path | None = None
    group: Literal["case_id", "slide_id"] | None = None


def audit(config: AuditConfig, progress: ProgressReporter | None = None) -> AuditResult:
    """Audits labels and splits.

    Args:
        config: What to audit.
        progress: Where to report.

    Raises:
        InputError: Something can't be read at all.
    """
    evidence = merge_evidence(
        *((evidence_of_slides(config.slides, progress),) if config.slides else ()),
        *((evidence_of_features(config.features),) if config.features else ()),
        *((evidence_of_thumbnails(config.thumbnails),) if config.thumbnails else ()),
    )
    known = evidence.slide_ids if config.slides or config.features else None
    labelled = audit_labels(config.labels, group=config.group, known_slides=known)
    cohort = labelled.cohort
    read = read_any_splits(config.splits).spelled_as(cohort.slide_ids)
    evidence = evidence.spelled_as(cohort.slide_ids)
    in_splits = {s for fold in read.folds for part in (fold.train, fold.validation, fold.test) for s in part}
    compared = compared_slides(read, cohort, evidence)
    notes = [*cohort.notes, *evidence.notes, *_gaps(compared, len(in_splits), evidence)]
    if read.meta.get("labels_sha256") not in (None, cohort.sha256):
        notes.append("The labels have changed since the splits were made.")
    return AuditResult(
        folds=len(read.folds),
        slides=len(cohort.rows),
        patients=len(cohort.case_ids),
        rows=labelled.findings,
        problem=labelled.problem,
        leaks=tuple(find_leaks(read, cohort, evidence=evidence)),
        compared=compared,
        notes=tuple(notes),
    )


def _gaps(compared: Mapping[str, int], slides: int, evidence: Evidence) -> list[str]:
    notes = []
    if not evidence.fingerprints and not evidence.features:
        notes.append("Copies of slides were not looked for; give --slides or --features.")
    if not evidence.signatures:
        notes.append("Near-copies were not looked for; give --slides FOLDER or --thumbnails.")
    for what, count in compared.items():
        if 0 < count < slides:
            notes.append(f"By {what}, only {count} of {slides} slides could be compared.")
    return notes
