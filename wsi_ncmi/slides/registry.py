"""The registry of slide readers, in the order in which they are tried."""

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.slides.base import Slide
from wsi_ncmi.slides.dicom_header import load_pydicom
from wsi_ncmi.slides.identity import has_base_extension, unread_format
from wsi_ncmi.slides.plugins import announced, open_with_plugin, plugin_companions, plugin_fault


@dataclass(frozen=True)
class Reader:
    """One way to open slides.

    Attributes:
        name: Its name for users, in ledgers and in feature files.
        open: Opens a local file; raises whatever it likes.
        unavailable: Empty text where the reader works on this machine, else the reason.
        open_remote: Opens an fsspec address such as ``s3://bucket/slide.svs``, where the reader can.
        open_dicom: Opens a DICOM slide by one of its files and all of them, where the reader can.
        extensions: Lower-case endings of the only names that it is asked for; empty = all names.
        companions: Further files that belong to a slide of these extensions.
    """

    name: str
    open: Callable[[Path], Slide]
    unavailable: Callable[[], str]
    open_remote: Callable[[str], Slide] | None = None
    open_dicom: Callable[[Path, Sequence[Path]], Slide] | None = None
    extensions: tuple[str, ...] = ()
    companions: Callable[[Path], Iterable[Path]] = lambda _: ()

    @property
    def is_available(self) -> bool:
        """True if the reader works on this machine."""
        return not self.unavailable()


def _open_with(module: str, name: str) -> Callable[..., Slide]:
    """Opens with a class of a module of this package, which is imported at the first call."""

    def opened(*named: Any) -> Slide:
        slide: Slide = getattr(importlib.import_module(f"wsi_ncmi.slides.{module}"), name)(*named)
        return slide

    return opened


def list_readers() -> tuple[Reader, ...]:
    """All readers in the order in which :func:`~wsi_ncmi.slides.opening.open_slide` asks them."""
    plugins = (
        Reader(
            name=f"plugin:{extension[1:]}",
            open=partial(open_with_plugin, extension),
            unavailable=partial(plugin_fault, extension),
            extensions=(extension,),
            companions=partial(plugin_companions, extension),
        )
        for extension in announced()
    )
    return (*_READERS[:-1], *plugins, _READERS[-1])  # flat images are what no other opens


def readers_of(name: str) -> tuple[Reader, ...]:
    """The readers that are asked for a file of a name, in their order.

    A format of its own readers is shown to them alone: others might take a label picture in it for the slide.
    """
    lower = name.lower()
    readers = list_readers()
    own = tuple(reader for reader in readers if lower.endswith(reader.extensions))
    if unread_format(name) or (own and not has_base_extension(name)):
        return own
    return tuple(reader for reader in readers if not reader.extensions or reader in own)


def refusal(name: str) -> str:
    """What a file name says that no reader opens, in one sentence; empty for all other names."""
    kind = unread_format(name)
    if not kind or readers_of(name):
        return ""
    remedy = "unpack it" if " packed " in kind else "export it as SVS, DICOM or OME-TIFF"
    return f"{name} is {kind}, which no reader here opens; {remedy}."


def companions_of(path: Path) -> tuple[Path, ...]:
    """Further files of a slide of a format with its own readers, sorted."""
    return tuple(sorted(file for reader in readers_of(path.name) for file in reader.companions(path)))


def get_reader(name: str) -> Reader:
    """The reader of a name.

    Raises:
        InputError: There is none; the message lists those that exist.
    """
    readers = {reader.name: reader for reader in list_readers()}
    if name not in readers:
        raise InputError(f"There is no slide reader {name!r}; choose auto or one of {', '.join(readers)}.")
    return readers[name]


def import_reason(module: str) -> str:
    """The reason why a module can't be imported (a missing package or shared library), or an empty text."""
    try:
        importlib.import_module(module)
    except Exception as error:  # a broken shared library raises OSError, a half install anything
        return f"the package {module} can't be loaded ({error})"
    return ""


PAGES_READER = "tifffile"
"""Name of the reader that is asked only for what the others don't see: levels in sub-directories of TIFF
files, and the slide of an OME-TIFF that begins with another image."""

DICOM_READER = "dicom"
"""Name of the reader that opens DICOM alone."""


def _optional(module: str, package: str, extra: str) -> Callable[[], str]:
    """Why a package beyond a base install can't be used, as half a sentence; empty where it can."""

    def reason() -> str:
        if importlib.util.find_spec(module) is None:
            return f'it needs {package}: pip install "wsi-ncmi[{extra}]"'
        return import_reason(module)

    return reason


def _pydicom_reason() -> str:
    try:
        load_pydicom()
    except Exception as error:  # as of import_reason
        return f"the package pydicom can't be loaded ({error})"
    return ""


def _vsi_files(path: Path) -> Iterable[Path]:
    """The pixels of ``S1.vsi`` stand in ``_S1_``, in a folder for each image."""
    folder = path.with_name(f"_{path.stem}_")
    return (file for file in folder.rglob("*") if file.is_file())


_TIFFSLIDE = _open_with("tiffslide_reader", "TiffSlideSlide")
_OPENSLIDE = _open_with("openslide_reader", "OpenSlideSlide")
_DICOM = _open_with("dicom_reader", "DicomSlide")
_READERS = (
    Reader(
        name="openslide",
        open=_OPENSLIDE,
        open_dicom=_OPENSLIDE,
        unavailable=lambda: import_reason("openslide"),
    ),
    Reader(
        name="tiffslide",
        open=_TIFFSLIDE,
        unavailable=lambda: import_reason("tiffslide"),
        open_remote=_TIFFSLIDE,
    ),
    Reader(
        name=DICOM_READER,
        open=_DICOM,
        open_dicom=_DICOM,
        unavailable=_pydicom_reason,
    ),
    Reader(
        name=PAGES_READER,
        open=_open_with("pages_reader", "TiffPagesSlide"),
        unavailable=lambda: import_reason("tifffile"),
    ),
    Reader(
        name="czi",
        open=_open_with("czi_reader", "CziSlide"),
        unavailable=_optional("pylibCZIrw", "pylibCZIrw", "czi"),
        extensions=(".czi",),
    ),
    Reader(
        name="isyntax",
        open=_open_with("isyntax_reader", "ISyntaxSlide"),
        unavailable=_optional("isyntax", "pyisyntax", "isyntax"),
        extensions=(".isyntax",),
    ),
    Reader(
        name="fastslide",
        open=_open_with("fastslide_reader", "FastSlideSlide"),
        unavailable=_optional("fastslide", "fastslide", "fastslide"),
        extensions=(".vsi",),
        companions=_vsi_files,
    ),
    Reader(
        name="image",
        open=_open_with("image_reader", "FlatImageSlide"),
        unavailable=lambda: import_reason("PIL"),
    ),
)
