"""The packages beyond a base install, and which extra brings each: the one place that says it.

A base install has what losses, aggregators and metrics need. Any other package is imported where it is used;
where one is missing, the import itself says in one sentence which extra to install.
"""

import importlib.util
import sys
from collections.abc import Iterable, Sequence
from importlib.abc import MetaPathFinder
from types import FrameType, ModuleType

from wsi_ncmi.core.errors import InputError

_CLI = ("typer", "rich", "yaml", "psutil")
_REPORT = (*_CLI, "pandas", "jinja2", "matplotlib", "PIL")
EXTRAS: dict[str, tuple[str, ...]] = {
    "cli": _CLI,
    "slides": (
        *_CLI, "openslide", "openslide_bin", "tiffslide", "tifffile", "imagecodecs", "simplejpeg", "cv2",
        "pydicom", "PIL", "h5py", "shapely", "skimage", "jinja2", "torchvision", "timm", "safetensors",
        "huggingface_hub",
    ),
    "report": _REPORT,
    "train": (*_REPORT, "h5py", "safetensors", "sklearn"),
    "tensorboard": ("tensorboard",),
    "onnx": ("onnx", "onnxruntime"),
    "openvino": ("openvino",),
    "ray": ("ray",),
    "excel": ("openpyxl",),
    "search": ("optuna",),
    "dicom": ("highdicom", "wsidicom"),
    "isyntax": ("isyntax",),
    "czi": ("pylibCZIrw",),
    "fastslide": ("fastslide",),
    "zoo": ("lazyslide_models",),
}  # fmt: skip
"""Extra → import names of its packages; from ``dicom`` on, what they add to ``slides``.
``all`` is ``slides``, ``train`` and ``dicom``.
"""


_HOMES = {
    "slides": ("slides", "tissue", "tiling", "features", "encoders", "extraction", "synthesis"),
    "report": ("reporting", "metrics"),
    "train": ("cohorts", "training", "prediction"),
}
"""Extra → our packages whose work it is: which one to name where several extras bring a package."""


class MissingPackageError(InputError, ModuleNotFoundError):
    """A package of an extra isn't installed (exit code 2)."""


def require(extras: Iterable[str], for_what: str) -> None:
    """Makes sure, before any work, that all packages of some extras are installed; none is imported.

    Args:
        extras: Names of extras.
        for_what: What needs them, for the message.

    Raises:
        MissingPackageError: Some are missing; the message names the extras that bring them.
    """
    absent = {
        extra: [name for name in EXTRAS[extra] if importlib.util.find_spec(name) is None] for extra in extras
    }
    missing = list(dict.fromkeys(name for names in absent.values() for name in names))
    if missing:
        raise _missing(missing, ",".join(extra for extra in absent if absent[extra]), f"{for_what} needs ")


def _missing(packages: Sequence[str], extra: str, needs: str = "") -> MissingPackageError:
    names = ", ".join(packages[:3]) + (f" and {len(packages) - 3} more packages" if len(packages) > 3 else "")
    verb = "isn't" if len(packages) == 1 else "aren't"
    which = f", which {verb} installed" if needs else f" {verb} installed"
    return MissingPackageError(f'{needs}{names}{which}: pip install "wsi-ncmi[{extra}]"', name=packages[0])


class _Extras(MetaPathFinder):
    """The last finder, asked for what no other has found."""

    def find_spec(self, fullname: str, path: object = None, target: ModuleType | None = None) -> None:
        extras = [extra for extra, names in EXTRAS.items() if fullname in names]
        asked = _asked_package() if extras else None
        if asked is not None:
            home = [extra for extra in extras if asked in _HOMES.get(extra, ())]
            raise _missing([fullname], (home or extras)[0] if len(home or extras) == 1 else "all")


def _asked_package() -> str | None:
    """Our package that the caller asked for what can't be imported; None where another package imports.

    Other packages do without each other as they will.
    """
    frame: FrameType | None = sys._getframe(2)
    names = []
    while frame:
        names.append(str(frame.f_globals.get("__name__")))
        frame = frame.f_back
    names = [name for name in names if name not in ("importlib", "importlib._bootstrap")]
    ours = [name for name in names if name.partition(".")[0] == "wsi_ncmi"]
    return (ours[-1] + ".").split(".")[1] if ours and names[0] == ours[0] else None


def install() -> None:
    """Lets imports of this package name the missing extra, from here on."""
    if not any(isinstance(finder, _Extras) for finder in sys.meta_path):
        sys.meta_path.append(_Extras())
