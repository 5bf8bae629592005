"""OME-XML in TIFF files: the image that is the slide, its resolution, and what can't be read as a slide.

Source: OME-TIFF 6 and the OME schema 2016-06: ``Image`` elements with ``Pixels`` (``SizeX`` … ``SizeT``,
``PhysicalSizeX`` with ``PhysicalSizeXUnit``, µm where absent), ``Channel`` and ``TiffData``, whose ``IFD``
counts the main directories of the file. Documents of that schema have neither a document type nor entities:
expat stops at the first declaration of one, before anything could be expanded or fetched.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn, Protocol
from xml.parsers import expat

from wsi_ncmi.core.values import printable
from wsi_ncmi.slides.base import Slide

# The words with which Bio-Formats, raw2ometiff and QuPath name pictures of the glass end the image's name.
_NO_SLIDE = re.compile(
    r"(?:^|[^a-z])(?:label|macro|thumbnail|overview|barcode)(?:[ _-]?mask)?(?:[ _-]?image)?[^a-z]*$",
    re.IGNORECASE,
)
# µ is MICRO SIGN or GREEK MU, and Å the letter or ANGSTROM SIGN; Â stands before µ that was decoded
# twice, the replacement character for a µ in Latin-1.
_MICRONS = {
    "m": 1e6, "dm": 1e5, "cm": 1e4, "mm": 1e3, "\u00b5m": 1.0, "\u03bcm": 1.0, "\u00c2\u00b5m": 1.0,
    "\ufffdm": 1.0, "um": 1.0, "nm": 1e-3, "pm": 1e-6, "\u00c5": 1e-4, "\u212b": 1e-4, "thou": 25.4,
    "in": 25400.0, "ft": 304800.0, "yd": 914400.0, "pt": 25400.0 / 72,
}  # fmt: skip
# TIFF 6.0, PhotometricInterpretation: RGB and YCbCr.
_COLOURS = (2, 6)
_PRIMARIES = ("red", "green", "blue")
_NAME_CHARACTERS = 40


class OmeError(Exception):
    """The file can't be read as a slide; the text is half a sentence and what to do."""


@dataclass
class OmeImage:
    """One image that the OME-XML tells of.

    Attributes:
        name: Its name, or empty.
        pixels: Attributes of its ``Pixels``.
        channels: Names of its channels.
        planes: Main directory and channel of each ``TiffData`` that states a directory.
        files: ``UUID`` of the files that hold it.
        first: Directory of its first plane.
    """

    name: str
    pixels: Mapping[str, str] = field(default_factory=dict)
    channels: list[str] = field(default_factory=list)
    planes: list[tuple[int, int]] = field(default_factory=list)
    files: set[str] = field(default_factory=set)
    first: int = 0

    def size(self, axis: str) -> int:
        """Its extent along X, Y, Z, C or T."""
        return int(self.pixels.get(f"Size{axis}", 1))

    @property
    def is_slide(self) -> bool:
        """True unless its name says that it is a picture of the label or the glass."""
        return not _NO_SLIDE.search(self.name)

    @property
    def shown_name(self) -> str:
        """Its name as a remark can hold it: without folders, one short line."""
        return printable(re.split(r"[\\/]", self.name)[-1])[:_NAME_CHARACTERS] or "an image without a name"


@dataclass(frozen=True)
class SlideImage:
    """The image of an OME-TIFF that is read.

    Attributes:
        image: What the OME-XML says of it.
        directories: Numbers of its main directories: one, or one each of red, green and blue.
        others: Names of further images that are neither label nor macro.
        is_first: It is the first image, one in colours, in the file and in the OME-XML: readers show it.
    """

    image: OmeImage
    directories: tuple[int, ...]
    others: tuple[str, ...]
    is_first: bool


class _Document:
    """The parts of an OME-XML document that matter here."""

    def __init__(self, text: str) -> None:
        self.root, self.uuid, self.elsewhere = "", "", ""
        self.images: list[OmeImage] = []
        self._depth = 0
        self._text: list[str] | None = None
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.StartDoctypeDeclHandler = self._refuse
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        parser.CharacterDataHandler = self._characters
        # The parser would go by the encoding that the text declares, in which it isn't any more.
        parser.Parse(re.sub(r"^\s*<\?xml.*?\?>", "", text, flags=re.DOTALL).encode("utf-8"), True)

    def _refuse(self, *_: object) -> NoReturn:
        raise OmeError(
            "its OME-XML declares a document type or entities, which OME-XML never does; export it again"
        )

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        # By depth: annotations may hold elements of any name.
        self._depth += 1
        kind = self._depth, name.rsplit(" ", 1)[-1]
        if self._depth == 1:
            self.root, self.uuid = kind[1], attributes.get("UUID", "")
        elif kind == (2, "BinaryOnly"):
            self.elsewhere = attributes.get("MetadataFile", "another file")
        elif kind == (2, "Image"):
            # Where no directory is stated, the images follow each other in the file.
            planes = sum(each.size("Z") * each.size("T") for each in self.images)
            self.images.append(OmeImage(attributes.get("Name", ""), first=planes))
        elif kind == (3, "Pixels") and self.images:
            self.images[-1].pixels = attributes
        elif kind == (4, "Channel") and self.images:
            self.images[-1].channels.append(attributes.get("Name", ""))
        elif kind == (4, "TiffData") and self.images and "IFD" in attributes:
            image = self.images[-1]
            image.planes.append((int(attributes["IFD"]), int(attributes.get("FirstC", 0))))
            image.first = image.planes[0][0]
        elif kind == (5, "UUID") and self.images:
            self._text = []

    def _characters(self, text: str) -> None:
        if self._text is not None:
            self._text.append(text)

    def _end(self, name: str) -> None:
        self._depth -= 1
        if self._text is not None:
            self.images[-1].files.add("".join(self._text).strip())
            self._text = None


def _parsed(text: str) -> _Document | None:
    """The document, or None for what is no OME-XML or is damaged.

    Raises:
        OmeError: It declares entities, or stands in another file.
    """
    if not is_ome(text):
        return None
    try:
        document = _Document(text)
    except (expat.ExpatError, ValueError, IndexError):
        return None
    if document.elsewhere:
        raise OmeError(
            f"it holds a part of an image whose OME-XML is in {printable(document.elsewhere)[:100]}; "
            "give one OME-TIFF that holds the whole slide"
        )
    return document if document.root == "OME" and document.images else None


class _Directory(Protocol):
    """What has to be known of a main directory."""

    @property
    def width_px(self) -> int: ...
    @property
    def height_px(self) -> int: ...
    @property
    def samples(self) -> int: ...
    @property
    def photometric(self) -> int: ...


def is_ome(description: str) -> bool:
    """True if the text of a file's first directory ends like OME-XML."""
    return description[-16:].rstrip("\0 \t\r\n").endswith("OME>")


def find_slide_image(description: str, directories: Sequence[_Directory]) -> SlideImage | None:
    """The image of an OME-TIFF that is the slide: the first one that is neither label nor macro.

    Args:
        description: The text of the file's first directory.
        directories: Its main directories.

    Returns:
        The image, or None where there is no OME-XML, or one that is not of these images.

    Raises:
        OmeError: It is fluorescence, a stack, a part of several files or a label alone, or declares entities.
    """
    document = _parsed(description)
    if document is None:
        return None
    slides = [image for image in document.images if image.is_slide]
    if not slides:
        raise OmeError(f"it holds nothing but {document.images[0].shown_name}, which is no slide")
    image = slides[0]
    if len((image.files | {document.uuid}) - {""}) > 1:
        raise OmeError(
            "its images are spread over several files; give one OME-TIFF that holds the whole slide"
        )
    directory = next(iter(directories[image.first : image.first + 1]), None)
    if directory is None or (directory.width_px, directory.height_px) != (image.size("X"), image.size("Y")):
        return None
    count = 1 if _is_rgb(image, directory) else 3
    return SlideImage(
        image,
        tuple(range(image.first, image.first + count)),
        tuple(each.shown_name for each in slides[1:]),
        is_first=count == 1 and image.first == 0 and image is document.images[0],
    )


def _is_rgb(image: OmeImage, directory: _Directory) -> bool:
    """True if one directory holds the image in RGB, False for one directory a colour.

    Raises:
        OmeError: It is neither.
    """
    channels, kind = image.size("C"), image.pixels.get("Type", "uint8")
    if kind != "uint8":
        raise OmeError(
            f"its image has {channels} × {kind} a pixel, not 8-bit RGB (fluorescence is not read); "
            "convert it to 8-bit RGB if it is brightfield"
        )
    for axis, what in (("Z", "focal planes"), ("T", "points in time")):
        if image.size(axis) > 1:
            raise OmeError(f"it is a stack of {image.size(axis)} {what}; export the one to be read")
    if channels == directory.samples and channels >= len(_PRIMARIES) and directory.photometric in _COLOURS:
        return True
    names = tuple(name.strip().lower() for name in image.channels)
    in_order = all(number - channel == image.first for number, channel in image.planes)
    if names == _PRIMARIES and directory.samples == 1 and in_order:
        return False
    if channels == 1:
        raise OmeError(
            "it holds one grey channel (fluorescence or a single stain), not RGB; give the brightfield image"
        )
    remedy = "give the brightfield image"
    if channels == len(_PRIMARIES):
        remedy = "if they are red, green and blue, write it as RGB (raw2ometiff --rgb) or name them so"
    raise OmeError(f"it holds {channels} channels of one colour each (fluorescence), not RGB; {remedy}")


def ome_mpp(slide: Slide) -> tuple[float, float] | str:
    """µm per pixel of level 0 along x and y by the OME-XML, or the reason why there is none.

    The reason is half a sentence, empty where there is no OME-XML.

    Args:
        slide: An open slide; its properties are read.
    """
    try:
        document = _parsed(slide.properties.get("tiff.ImageDescription", ""))
    except OmeError as error:
        return str(error)
    image = next((each for each in document.images if each.is_slide), None) if document else None
    if image is None:
        return ""
    if (image.size("X"), image.size("Y")) != (slide.width_px, slide.height_px):
        return f"the OME-XML is of an image of {image.size('X')} × {image.size('Y')} px"
    found = []
    for axis in "XY":
        text, unit = (
            image.pixels.get(f"PhysicalSize{axis}"),
            image.pixels.get(f"PhysicalSize{axis}Unit", "µm"),
        )
        if text is None:
            return f"the OME-XML has no PhysicalSize{axis}"
        try:
            found.append(float(text) * _MICRONS[unit.strip()])
        except (ValueError, KeyError):
            return f"the OME-XML gives {printable(text)[:20]} {printable(unit)[:20]} a pixel, no length"
    return found[0], found[1]
