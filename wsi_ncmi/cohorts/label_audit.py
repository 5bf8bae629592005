"""The audit of a labels table: every row that has something wrong, not only the first."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wsi_ncmi import slides
from wsi_ncmi.cohorts.cohort import Cohort, order_classes
from wsi_ncmi.cohorts.label_table import LabelledRow, LabelTable, RowFinding, examine_rows
from wsi_ncmi.cohorts.labels import Adapter, LabelsSpec, adapter_of, exclusion_of, notes_of, parse_spec
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.tables import Table, read_table
from wsi_ncmi.core.values import SUSPECT, suspects_between


@dataclass(frozen=True)
class LabelAudit:
    """What was found.

    Attributes:
        cohort: The rows that can be used; also where others can't.
        findings: A row for each thing wrong, in table order, then slides without a label.
        problem: A sentence where the table as a whole is unfit for training, else empty.
    """

    cohort: Cohort
    findings: tuple[RowFinding, ...]
    problem: str

    @property
    def passed(self) -> bool:
        """Whether training would take the table."""
        return not self.problem and not any(finding.fatal for finding in self.findings)


def audit_labels(
    path_or_spec: str | Path,
    *,
    group: str | None = None,
    classes: Sequence[str] | None = None,
    known_slides: Collection[str] | None = None,
) -> LabelAudit:
    """Examines labels as ``read_labels`` reads them, but to the end.

    Args:
        path_or_spec: As for ``read_labels``.
        group: ``"slide_id"`` = each slide is a patient of its own.
        classes: All classes of the task; default: the adapter's, or those in the table.
        known_slides: Ids of the slides or features that there are, to find labels without slide and slides
            without label; None = not known.

    Raises:
        InputError: The table can't be read at all (no file, no such column or adapter).
    """
    spec = parse_spec(path_or_spec)
    adapter = adapter_of(spec)
    table = read_table(spec.path, spec.settings.get("sheet"))
    labelled, faults = _every_row(adapter, table, spec)
    path = labelled.origin or spec.path
    allowed = tuple(classes or labelled.classes)
    exclusion = exclusion_of(spec)
    rows, findings = examine_rows(path, labelled, allowed, exclusion)
    everything = [*faults, *findings]
    if known_slides is not None:
        everything += _without_partner(path, labelled, everything, known_slides)
    everything.sort(key=lambda finding: (finding.line == 0, finding.line))
    cohort = Cohort(
        rows=rows,
        classes=allowed or order_classes(row.label for row in rows),
        case_id_assumed=bool(labelled.case_problem),
        official_split={row.slide_id: labelled.official_split[row.slide_id] for row in rows
                        if row.slide_id in labelled.official_split},
        notes=(*labelled.notes, *notes_of(path, labelled, findings, exclusion)),
    )  # fmt: skip
    return LabelAudit(cohort, tuple(everything), _problem(spec, labelled, cohort, group))


def _every_row(adapter: Adapter, table: Table, spec: LabelsSpec) -> tuple[LabelTable, list[RowFinding]]:
    try:
        return adapter.read(table, spec), []
    except InputError as error:
        # A column that is missing is the table's fault; a row's fault is one that other rows don't share.
        parts: list[LabelTable] = []
        faults: list[RowFinding] = []
        for row in table.rows:
            try:
                parts.append(adapter.read(replace(table, rows=(row,)), spec))
            except InputError as fault:
                faults.append(RowFinding("format", row.line, row.first, str(fault), fatal=True))
        if not parts:
            raise InputError(str(error)) from error
        rows: list[LabelledRow] = [row for part in parts for row in part.rows]
        official = {s: p for part in parts for s, p in part.official_split.items()}
        return replace(parts[0], rows=rows, official_split=official), faults


def _without_partner(
    path: Path, labelled: LabelTable, findings: Sequence[RowFinding], known_slides: Collection[str]
) -> list[RowFinding]:
    short = {slides.slide_key(name) for name in known_slides}
    excluded = {finding.slide_id for finding in findings if finding.kind == "excluded"}
    found: list[RowFinding] = []
    labelled_ids: Counter[str] = Counter()
    named = {slides.slide_key(row.slide_id) for row in labelled.rows}
    alike = suspects_between(named - short, short - named)
    for row in labelled.rows:
        slide_id = slides.slide_key(row.slide_id)
        labelled_ids[slide_id] += 1
        if slide_id not in short and slide_id not in excluded and labelled_ids[slide_id] == 1:
            hint = f" ({alike[slide_id]!r}, which is there, and it {SUSPECT})" if slide_id in alike else ""
            detail = f"{path}, row {row.source.line}: there is no slide {row.slide_id!r}{hint}."
            found.append(RowFinding("without_slide", row.source.line, slide_id, detail, fatal=False))
    strangers = (name for name in sorted(known_slides) if slides.slide_key(name) not in labelled_ids)
    found += [RowFinding("without_label", 0, s, f"Slide {s!r} has no label.", fatal=False) for s in strangers]
    return found


def _problem(spec: LabelsSpec, labelled: LabelTable, cohort: Cohort, group: str | None) -> str:
    if labelled.case_problem and group != "slide_id":
        return f"{spec.path} {labelled.case_problem}; without patient ids leaks by patient can't be seen."
    if not cohort.rows:
        return f"{spec.path} holds no slide that could be used."
    if len({row.label for row in cohort.rows}) < 2:
        return f"All slides of {spec.path} have the class {cohort.rows[0].label!r}; a task needs two."
    return ""
