"""Label sheets of public cohorts, and the plain labels table."""

import re
from collections.abc import Mapping, Sequence

from wsi_ncmi.cohorts.label_table import LabelledRow, LabelTable
from wsi_ncmi.core.tables import Table


def read_plain(table: Table, settings: Mapping[str, str]) -> LabelTable:
    """Reads the table; ``settings`` may name other columns, for example ``label`` → ``subtype``."""
    slide = settings.get("slide_id", "slide_id")
    label = settings.get("label", "label")
    case = settings.get("case_id", "case_id")
    centre = settings.get("centre") or next((n for n in ("centre", "center") if n in table.columns), None)
    named = [settings[key] for key in ("case_id", "centre") if key in settings]
    absent = [key for key in ("slide_id", "label", "case_id") if key not in table.columns and not settings]
    guessed = {key: column for key in absent if (column := table.likely(key))}
    # All that must be renamed is told at once; the file needn't be changed for it.
    advice = f", or say '{table.path}?{'&'.join('='.join(pair) for pair in guessed.items())}'" * bool(guessed)
    has_cases = case in table.columns
    required = (slide, label, *named)
    if not set(required) <= set(table.columns):
        table.require((*required, *({"case_id"} & guessed.keys())), advice)
    rows = [
        LabelledRow(
            row,
            slide_id=row[slide],
            case_id=row[case] if has_cases else None,
            label=row[label],
            centre=row[centre] if centre else "",
        )
        for row in table.rows
    ]
    problem = "" if has_cases else f"has no column 'case_id'{table.hint('case_id')}{advice}"
    return LabelTable(rows, case_problem=problem, notes=_numbered_rows_note(table, rows))


def _numbered_rows_note(table: Table, rows: Sequence[LabelledRow]) -> tuple[str, ...]:
    # patient_0, patient_1, … in row order: typical of sheets in which nobody knew the patients.
    numbers = [re.findall(r"\d+$", row.case_id or "") for row in rows]
    if len(rows) > 1 and all(found and int(found[0]) == i for i, found in enumerate(numbers)):
        return (
            f"The patient ids of {table.path.name} merely count its rows; if they aren't real patients, "
            "a patient may be in training and test.",
        )
    return ()


CAMELYON16_CLASSES = ("normal", "tumor")
_CAMELYON16_NAMES = {"0": "normal", "1": "tumor", "normal": "normal", "tumor": "tumor"}
_CAMELYON16_SLIDE = re.compile(r"((normal|tumor|test)_\d{3})(\.tiff?)?")


def read_camelyon16(table: Table) -> LabelTable:
    """Slides with class and official part; patients are unknown.

    The names carry the official split: ``normal_NNN`` and ``tumor_NNN`` train, ``test_NNN`` test. The
    ``case_id`` that circulates with these sheets isn't a reliable patient, so it isn't used.
    """
    table.require(("slide_id", "label"))
    rows: list[LabelledRow] = []
    official: dict[str, str] = {}
    for row in table.rows:
        match = _CAMELYON16_SLIDE.fullmatch(row["slide_id"])
        if match is None:
            raise table.problem(row, "slide_id", "not a name like normal_001, tumor_001 or test_001")
        label = _CAMELYON16_NAMES.get(row["label"].lower())
        if label is None:
            raise table.problem(row, "label", "neither 0 (normal) nor 1 (tumor)")
        if match[2] != "test" and match[2] != label:
            raise table.problem(row, "label", f"contradicts the name {match[1]!r}")
        rows.append(LabelledRow(row, match[1], case_id=None, label=label))
        official[match[1]] = "test" if match[2] == "test" else "train"
    return LabelTable(
        rows,
        classes=CAMELYON16_CLASSES,
        case_problem="has no reliable patient ids (CAMELYON-16 publishes none)",
        official_split=official,
        notes=("CAMELYON-16 publishes no reliable patient ids; each slide was taken for a patient.",),
    )


CAMELYON17_CLASSES = ("negative", "itc", "micro", "macro")
_PATIENTS_PER_CENTRE = 20
_TRAINING_CENTRES = frozenset({"0", "1", "2"})
_CAMELYON17_SLIDE = re.compile(r"(patient_(\d{3}))_node_\d+(\.tiff?)?")
_CAMELYON17_PATIENT = re.compile(r"(patient_\d{3})\.zip")


def read_camelyon17(table: Table) -> LabelTable:
    """Slides with label, patient and centre.

    Rows ending in ``.zip`` are patients with their pN stage, the others slides. Five centres gave 20 patients
    each, in order: patients 000–019 are centre 0, 020–039 centre 1 and so on. The official split is the one
    of the ACMIL/AEM/ASMIL family: centres 0–2 train, 3–4 test (the challenge's own test labels aren't
    public).
    """
    table.require(("patient", "stage"))
    rows: list[LabelledRow] = []
    official: dict[str, str] = {}
    for row in table.rows:
        if _CAMELYON17_PATIENT.fullmatch(row["patient"]):
            continue
        match = _CAMELYON17_SLIDE.fullmatch(row["patient"])
        if match is None:
            raise table.problem(row, "patient", "neither patient_NNN.zip nor patient_NNN_node_M.tif")
        centre = str(int(match[2]) // _PATIENTS_PER_CENTRE)
        slide_id = row["patient"].removesuffix(match[3] or "")
        rows.append(LabelledRow(row, slide_id, case_id=match[1], label=row["stage"], centre=centre))
        official[slide_id] = "train" if centre in _TRAINING_CENTRES else "test"
    return LabelTable(rows, classes=CAMELYON17_CLASSES, official_split=official)


BRACS_SUBTYPES = ("N", "PB", "UDH", "FEA", "ADH", "DCIS", "IC")
BRACS_GROUPS = ("benign", "atypical", "malignant")
_GROUP_OF = dict(
    zip(
        BRACS_SUBTYPES,
        ("benign", "benign", "benign", "atypical", "atypical", "malignant", "malignant"),
        strict=True,
    )
)
_BRACS_PARTS = {"train": "train", "val": "validation", "test": "test"}


def read_bracs7(table: Table, settings: Mapping[str, str]) -> LabelTable:
    """Slides with one of the seven subtypes; ``settings["case_id"]`` names a column of real patients.

    Source: Brancati et al. 2022 (arXiv 2111.04740). Labels 0–6 = N, PB, UDH, FEA, ADH, DCIS, IC; benign = N,
    PB, UDH; atypical = FEA, ADH; malignant = DCIS, IC. The ``case_id`` in circulating sheets is a row number,
    not a patient (189 patients gave the 547 slides), so it isn't used. The official spreadsheet does hold
    patients; saved as CSV, ``bracs:FILE?case_id=COLUMN`` takes them from the column named.
    """
    return _read_bracs(
        table, {name: name for name in BRACS_SUBTYPES}, BRACS_SUBTYPES, settings.get("case_id")
    )


def read_bracs3(table: Table, settings: Mapping[str, str]) -> LabelTable:
    """Slides with one of the three groups; ``settings["case_id"]`` names a column of real patients."""
    return _read_bracs(table, _GROUP_OF, BRACS_GROUPS, settings.get("case_id"))


def _read_bracs(
    table: Table, class_of: dict[str, str], classes: tuple[str, ...], case_column: str | None
) -> LabelTable:
    table.require(("slide_id", "label", "split_info", *((case_column,) if case_column else ())))
    names = {str(i): name for i, name in enumerate(BRACS_SUBTYPES)} | {name: name for name in BRACS_SUBTYPES}
    rows: list[LabelledRow] = []
    official: dict[str, str] = {}
    for row in table.rows:
        subtype = names.get(row["label"])
        if subtype is None:
            raise table.problem(row, "label", f"neither 0–6 nor one of {', '.join(BRACS_SUBTYPES)}")
        if row["split_info"] not in _BRACS_PARTS:
            raise table.problem(row, "split_info", "not train, val or test")
        slide_id = row["slide_id"].removesuffix(".svs")
        rows.append(
            LabelledRow(row, slide_id, row[case_column] if case_column else None, label=class_of[subtype])
        )
        official[slide_id] = _BRACS_PARTS[row["split_info"]]
    if case_column:
        return LabelTable(rows, classes=classes, official_split=official)
    return LabelTable(
        rows,
        classes=classes,
        case_problem="has no reliable patient ids (the 'case_id' of BRACS sheets is a row number)",
        official_split=official,
        notes=(
            "BRACS sheets name no patients (189 gave the 547 slides); each slide was taken for a patient.",
        ),
    )


_BARCODE = re.compile(r"(TCGA-([A-Z0-9]{2})-[A-Z0-9]{4})(-.*)?")
_CASE_COLUMNS = ("case_id", "patient", "patient_id")


def read_tcga(table: Table, settings: Mapping[str, str]) -> LabelTable:
    """Slides with label, patient and site.

    ``TCGA-83-5908-01Z-00-DX1.<uuid>``: the patient is the first twelve characters, the site that gave the
    tissue (TSS code) the two after ``TCGA-``. Reads ``slide_id`` or ``slide`` and ``label`` or ``subtype``,
    so that slideflow's annotation tables work as they are; ``?label=COLUMN`` names another class column.
    """
    slide_column = settings.get("slide_id") or (
        "slide" if "slide_id" not in table.columns and "slide" in table.columns else "slide_id"
    )
    label_column = settings.get("label") or (
        "subtype" if "label" not in table.columns and "subtype" in table.columns else "label"
    )
    table.require((slide_column, label_column))
    case_column = next((name for name in _CASE_COLUMNS if name in table.columns), None)
    rows: list[LabelledRow] = []
    for row in table.rows:
        match = _BARCODE.fullmatch(row[slide_column])
        if match is None:
            raise table.problem(row, slide_column, "not a TCGA barcode like TCGA-83-5908-01Z-00-DX1")
        case_id, site = match[1], match[2]
        if case_column and row[case_column] and row[case_column][:12].upper() != case_id:
            raise table.problem(row, case_column, f"not the patient {case_id} of the slide's barcode")
        rows.append(
            LabelledRow(row, row[slide_column], case_id=case_id, label=row[label_column], centre=site)
        )
    return LabelTable(rows)
