"""Contents of a file beside the one image that is read: scenes, focal planes, channels; and grey images.

Source: OME-TIFF 6 and the OME schema 2016-06 (``Image``, ``Pixels`` with ``SizeZ``, ``SizeC``, ``SizeT``).
"""

import re

from wsi_ncmi.slides.base import Slide
from wsi_ncmi.slides.tiff_layout import TiffLayout

_MOST_CHARACTERS = 1 << 20
_IMAGE = re.compile(r"<(?:\w+:)?Image\s([^>]*)>")
_PIXELS = re.compile(r"<(?:\w+:)?Pixels\s([^>]*)>")
_SIZE = re.compile(r'\bSize([ZCT])="(\d{1,6})"')
_NO_SCENE = re.compile(r'\bName="[^"]*(?:label|macro|thumbnail|overview)[^"]*"', re.IGNORECASE)
# They join several scanned areas, which may be equal in size, to one image.
_JOINING = ("leica", "ventana", "trestle", "philips")


def describe_contents(slide: Slide, layout: TiffLayout) -> str:
    """Sentences on what of a TIFF file is not read, or not as what it is; empty where all is read.

    Args:
        slide: The open slide.
        layout: Its directories.
    """
    size = slide.width_px, slide.height_px
    alike = [image for image in layout.directories if (image.width_px, image.height_px) == size]
    grey = bool(alike) and alike[0].samples == 1
    text = slide.properties.get("tiff.ImageDescription", "")[:_MOST_CHARACTERS]
    held: list[str] = []
    if _PIXELS.search(text):
        held = _of_ome(text, grey)
    elif len(alike) > 1 and slide.vendor not in _JOINING:
        held = [f"{len(alike)} images of one size (focal planes, channels or scenes)"]
    read = f"the first one, {size[0]} × {size[1]} px, is read"
    if grey and slide.reader == "tiffslide" and held:
        read = "the first three are read as red, green and blue"
    said = f"The file holds {' and '.join(held)}; {read}." if held else ""
    if grey:
        said += " The image is grey, without the colours by which stains, pen and artefacts are told apart."
    return said.strip()


def _of_ome(text: str, grey: bool) -> list[str]:
    scenes = sum(not _NO_SCENE.search(image) for image in _IMAGE.findall(text))
    sizes = {axis: int(size) for axis, size in _SIZE.findall(_PIXELS.findall(text)[0])}
    counts = {
        "scenes": scenes,
        "focal planes": sizes.get("Z", 1),
        "channels of one colour (fluorescence)": sizes.get("C", 1) if grey else 1,
        "points in time": sizes.get("T", 1),
    }
    return [f"{count} {what}" for what, count in counts.items() if count > 1]
