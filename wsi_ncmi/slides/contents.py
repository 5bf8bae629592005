"""Contents of a file beside the one image that is read: scenes, focal planes, channels; and grey images."""

from wsi_ncmi.slides.base import Slide
from wsi_ncmi.slides.ome import SlideImage, is_ome
from wsi_ncmi.slides.tiff_layout import TiffLayout

_NAMED = 5
# They join several scanned areas, which may be equal in size, to one image.
_JOINING = ("leica", "ventana", "trestle", "philips")


def describe_contents(slide: Slide, layout: TiffLayout, chosen: SlideImage | None) -> str:
    """Sentences on what of a TIFF file is not read, or not as what it is; empty where all is read.

    Args:
        slide: The open slide.
        layout: Its directories.
        chosen: The image of an OME-TIFF that is read.
    """
    width, height = slide.level_dimensions[0]
    read = f"the first one, {width} × {height} px, is read"
    if chosen is not None:
        if not chosen.others:
            return ""
        count, others = 1 + len(chosen.others), ", ".join(chosen.others[:_NAMED])
        more = ", …" if count > 1 + _NAMED else ""
        return f"The file holds {count} scenes; {read}. Not read: {others}{more}."
    alike = [image for image in layout.directories if (image.width_px, image.height_px) == (width, height)]
    grey = bool(alike) and alike[0].samples == 1
    said = ""
    if len(alike) > 1 and slide.vendor not in _JOINING:
        if grey and slide.reader == "tiffslide":
            read = "the first three are read as red, green and blue"
        said = f"The file holds {len(alike)} images of one size (focal planes, channels or scenes); {read}."
    if grey:
        said += " The image is grey, without the colours by which stains, pen and artefacts are told apart."
    if is_ome(layout.description):
        said += " Its OME-XML is damaged or not of this image, and is not used."
    return said.strip()
