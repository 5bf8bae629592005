"""The slide's own DICOM objects, as the results refer to them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from wsi_ncmi.core.errors import InputError, SlideError
from wsi_ncmi.slides.dicom_header import WHOLE_SLIDE_IMAGE, has_dicom_magic, read_dicom
from wsi_ncmi.slides.dicom_series import files_beside, may_be_dicom
from wsi_ncmi.slides.discovery import find_slides

if TYPE_CHECKING:
    from pydicom import Dataset

_MAX_HEADER_BYTES = 1 << 24  # a colour profile among it
# What is read of a slide whose patient is not asked for: nothing else is even looked at.
_GEOMETRY = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID",
    "PositionReferenceIndicator", "Modality", "ImageType", "Rows", "Columns", "NumberOfFrames",
    "TotalPixelMatrixColumns", "TotalPixelMatrixRows", "TotalPixelMatrixFocalPlanes",
    "TotalPixelMatrixOriginSequence", "ImageOrientationSlide", "DimensionOrganizationType",
    "ImagedVolumeWidth", "ImagedVolumeHeight", "ImagedVolumeDepth", "SharedFunctionalGroupsSequence",
    "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
    "NumberOfOpticalPaths", "SOPInstanceUIDOfConcatenationSource", "PyramidUID",
)  # fmt: skip
_NEEDED = (
    "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID",
    "TotalPixelMatrixColumns", "TotalPixelMatrixRows", "SharedFunctionalGroupsSequence",
)  # fmt: skip
# Groups of tags of the modules Patient, General Study, Patient Study, Equipment and Specimen.
_PATIENT_GROUPS = (0x0008, 0x0010, 0x0012, 0x0018, 0x0020, 0x0032, 0x0038, 0x0040)
# Type 2 of the modules Patient and General Study: there, with or without a value.
_PATIENT_AND_STUDY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip


def not_dicom(path: Path) -> str:
    """Why no DICOM object can refer to a slide; empty where it is a DICOM file."""
    # A file is not opened where its name rules DICOM out.
    if may_be_dicom(path.name) and path.is_file() and has_dicom_magic(path):
        return ""
    return f"no DICOM objects: {path.name} is no DICOM slide, so that there is no study to refer to"


def check_any_dicom(root: Path) -> None:
    """Refuses a folder without any DICOM slide.

    Raises:
        InputError: There is none.
    """
    if all(not_dicom(found.path) for found in find_slides(root, remark=lambda _: None)):
        raise InputError(
            f"--dicom writes objects that refer to DICOM slides, and {root} has none; leave it out, or "
            "convert the slides (with wsidicomizer, for example)."
        )


@dataclass(frozen=True, eq=False)
class DicomSource:
    """Headers of a slide's instances.

    Attributes:
        levels: Those of the pyramid, the largest first: further optical paths or focal planes of it, too.
        with_patient: They hold the patient, study and specimen; else those are empty.
    """

    levels: tuple[Dataset, ...]
    with_patient: bool

    @classmethod
    def read(cls, path: Path | tuple[Path, ...], *, with_patient: bool = False) -> Self:
        """Reads the headers of a slide's files.

        Args:
            path: All files of the slide; of one alone, the others are looked for in its folder.
            with_patient: Read patient, study and specimen, too.

        Raises:
            SlideError: It is no DICOM slide, or lacks what references need.
        """
        files = path if isinstance(path, tuple) else ()
        path = files[0] if isinstance(path, tuple) else path
        if reason := not_dicom(path):
            raise SlideError(reason)
        found: dict[str, Dataset] = {}
        for each in files or files_beside(path):
            image = _header(each, with_patient)
            if image.get("SOPClassUID") == WHOLE_SLIDE_IMAGE and "VOLUME" in image.get("ImageType", ()):
                found.setdefault(image.SOPInstanceUID, image)  # parts of one object are one
        levels = found.values()
        for image in levels:
            missing = next((name for name in _NEEDED if not image.get(name)), None)
            if missing:
                raise SlideError(f"no DICOM objects: {path.name} lacks {missing}, which they would refer to")
        if not levels:
            raise SlideError(f"no DICOM objects: {path.name} is no whole-slide microscopy image")
        # In one order, whatever the files are called: the first is what annotations refer to.
        return cls(
            tuple(sorted(levels, key=lambda each: (-_pixels(each), each.SOPInstanceUID))), with_patient
        )

    @property
    def first(self) -> Dataset:
        """The instance that pixel coordinates refer to: of level 0."""
        return self.levels[0]

    @property
    def full_size(self) -> tuple[Dataset, ...]:
        """All instances of level 0."""
        return tuple(each for each in self.levels if _pixels(each) == _pixels(self.first))

    def check_size(self, size_level0: tuple[int, int]) -> None:
        """Refuses tiles of another slide.

        Raises:
            SlideError: Level 0 has another size.
        """
        size = int(self.first.TotalPixelMatrixColumns), int(self.first.TotalPixelMatrixRows)
        if size != size_level0:
            raise SlideError(
                f"no DICOM objects: the slide has {size[0]} × {size[1]} px, its features are of one of "
                f"{size_level0[0]} × {size_level0[1]} px"
            )


def pixel_spacing(image: Dataset) -> tuple[float, float]:
    """Width and height of a pixel in mm."""
    measures: Any = image.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    return float(measures.PixelSpacing[1]), float(measures.PixelSpacing[0])


def _pixels(image: Dataset) -> int:
    return int(image.TotalPixelMatrixColumns) * int(image.TotalPixelMatrixRows)


def _header(path: Path, with_patient: bool) -> Dataset:
    from pydicom.datadict import DicomDictionary  # type: ignore[attr-defined]

    keywords = list(_GEOMETRY)
    if with_patient:
        keywords += [entry[4] for tag, entry in DicomDictionary.items() if tag >> 16 in _PATIENT_GROUPS]
    read = read_dicom(path, keywords, _MAX_HEADER_BYTES)
    assert read is not None  # its magic was seen
    image = read[0]
    for name in _PATIENT_AND_STUDY:
        if name not in image:
            setattr(image, name, None)
    # Where a large object is stored in parts, references are to the whole (PS3.3, C.37.1.2).
    whole = image.get("SOPInstanceUIDOfConcatenationSource")
    if whole:
        image.SOPInstanceUID = whole
    return image
