"""Writes the DICOM results of a slide, under UIDs that a repeated run gives again."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsi_ncmi import __version__
from wsi_ncmi.core.errors import SlideError
from wsi_ncmi.core.files import atomic_path, ensure_folder, shortened
from wsi_ncmi.prediction.dicom_results.annotations import tile_annotations
from wsi_ncmi.prediction.dicom_results.codes import SCHEME, SCHEME_NAME, plain_text
from wsi_ncmi.prediction.dicom_results.parametric_map import tile_map
from wsi_ncmi.prediction.dicom_results.report import answer_report
from wsi_ncmi.prediction.dicom_results.source import DicomSource

if TYPE_CHECKING:
    from pydicom import Dataset

    from wsi_ncmi.prediction.bundle import ModelBundle
    from wsi_ncmi.prediction.config import DicomResultsConfig
    from wsi_ncmi.prediction.slide_prediction import SlidePrediction
    from wsi_ncmi.reporting.heatmaps import TileValues

_DEIDENTIFIED = "wsi-ncmi: patient, study and specimen left empty"
RESULT_FOLDERS = ("dicom", "dicom-with-patient")
_MAX_NAME_BYTES = 200
_DATES = {"Date": "%Y%m%d", "Time": "%H%M%S"}


def results_folder(out: Path, settings: DicomResultsConfig) -> tuple[Path, str]:
    """Where a job's objects are, and a sentence about whose they are."""
    folder = out / RESULT_FOLDERS[settings.patient]
    if settings.patient:
        return folder, f"The DICOM objects in {folder.name}/ name the patients of the slides."
    return folder, (
        f"The DICOM objects in {folder.name}/ are without patient, so that an archive files them apart from "
        "the slides' patients; --dicom-patient copies these."
    )


def write_dicom_results(
    out: Path,
    source: DicomSource,
    tiles: TileValues,
    prediction: SlidePrediction,
    bundle: ModelBundle,
    *,
    with_map: bool = False,
) -> dict[str, Path]:
    """Writes ``<slide_id>_annotations.dcm``, ``…_report.dcm`` and ``…_map.dcm`` of a slide.

    They are in the study of the slide, each in a series of its own. Their UIDs follow from the slide, the
    model and the kind of object, so that those of a repeated run replace those of the first; a file of the
    same content is left as it is, with the date of the run that made it.

    Args:
        out: Output folder of the job. The files go to the first of :data:`RESULT_FOLDERS` in it, with the
            patient to the second.
        source: The slide's own objects.
        tiles: Tiles, attention and evidence.
        prediction: The answer.
        bundle: The model.
        with_map: Write the parametric map of attention and of the evidence for the predicted class.

    Returns:
        Kind → file.

    Raises:
        SlideError: The slide's pyramid has no level for a map, or its header isn't as the standard has it;
            objects that it does for are written. Or the tiles are those of another slide.
    """
    from highdicom.coding_schemes import CodingSchemeIdentificationItem

    source.check_size(tiles.size_level0)
    if not bundle.ensemble.has_attention:
        tiles = replace(tiles, layers=tuple(layer for layer in tiles.layers if layer.kind != "attention"))
    folder = ensure_folder(out / RESULT_FOLDERS[source.with_patient])
    name = shortened(tiles.slide_id, _MAX_NAME_BYTES)

    def uid(*parts: str) -> str:
        who = "with patient" if source.with_patient else "without patient"
        return derived_uid(source.first.SOPInstanceUID, bundle.digest, who, *parts)

    def common(kind: str, number: int) -> dict[str, Any]:
        return {
            "series_instance_uid": uid("series", kind),
            "series_number": number,
            "sop_instance_uid": uid("instance", kind),
            "instance_number": 1,
            "series_description": plain_text(f"Research use: {kind} of {bundle.name}"),
            "manufacturer": "wsi-ncmi",
            "manufacturer_model_name": plain_text(bundle.name),
            "software_versions": __version__,
            "device_serial_number": bundle.digest,
            "specific_character_set": "ISO_IR 192",
            "coding_schemes": [CodingSchemeIdentificationItem(SCHEME, SCHEME_NAME)],
        }

    content = {"content_description": "For research use only", "content_creator_name": None}
    names = ("attention", f"evidence {prediction.prediction}")
    shown = [layer.name for layer in tiles.layers if layer.name in names]
    makers: dict[str, Callable[[], Dataset]] = {
        "annotations": lambda: tile_annotations(
            source, tiles, bundle, uid("group"), **common("annotations", 1), **content
        ),
        "report": lambda: answer_report(
            source, prediction, bundle, observer_uid=derived_uid(bundle.digest),
            tracking_uid=uid("answer"),
            **common("report", 2),
        ),
        "map": lambda: tile_map(source, tiles, shown, uid("dimensions"), **common("map", 3), **content),
    }  # fmt: skip
    if not with_map:
        del makers["map"]
    files: dict[str, Path] = {}
    problem: SlideError | None = None
    for kind, make in makers.items():
        try:
            result = make()
        except SlideError as error:
            problem = problem or error
            continue
        except Exception as error:  # whatever highdicom finds wrong in the slide's own header
            reason = type(error).__name__ if source.with_patient else str(error)  # it may quote the patient
            problem = problem or SlideError(
                f"no DICOM {kind}: the slide's own header isn't as the standard has it ({reason})"
            )
            continue
        if not source.with_patient:
            result.PatientIdentityRemoved, result.DeidentificationMethod = "YES", _DEIDENTIFIED
        if kind != "report" and "ContainerIdentifier" not in result:
            result.Laterality = ""  # PS3.3, C.7.3.1: asked for where nothing says that it is a specimen
        files[f"DICOM {kind}"] = folder / f"{name}_{kind}.dcm"
        _write(result, files[f"DICOM {kind}"])
    if problem is not None:
        raise problem
    return files


def derived_uid(*parts: str) -> str:
    """The UID that follows from some texts (DICOM PS3.5, B.2)."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, '/'.join(('wsi-ncmi', *parts))).int}"


def _write(result: Dataset, path: Path) -> None:
    """Writes an object, unless its like is there: then the date of that one is true."""
    from pydicom import dcmread

    now = datetime.now().replace(microsecond=0)
    content = _bytes(result, now)
    if path.is_file():
        try:
            there = dcmread(path, specific_tags=["ContentDate", "ContentTime"])
            then = datetime.strptime(f"{there.ContentDate}{there.ContentTime}", "%Y%m%d%H%M%S")
        except Exception:
            then = now
        if path.read_bytes() == _bytes(result, then):
            return
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def _bytes(result: Dataset, when: datetime) -> bytes:
    for name in ("InstanceCreation", "Content", "Series"):
        for part, form in _DATES.items():
            setattr(result, name + part, when.strftime(form))
    for item in result.ContributingEquipmentSequence:  # highdicom names itself
        item.ContributionDateTime = when
    content = BytesIO()
    result.save_as(content)
    return content.getvalue()
