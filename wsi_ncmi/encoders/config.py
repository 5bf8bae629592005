"""The config of an encoder, and the families of encoders by the form of their names; imports no torch."""

import difflib
import importlib.util
import re
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from wsi_ncmi.core.config import configclass, contradiction, nearest
from wsi_ncmi.core.errors import InputError

__all__ = ["FAMILIES", "EncoderConfig", "EncoderFamily", "check_name", "plugin_names", "split_name"]

ENTRY_POINTS = "wsi_ncmi.encoders"


@dataclass(frozen=True)
class EncoderFamily:
    """Encoders that are named and built alike.

    Attributes:
        form: Their names.
        load: ``module:function`` that builds one from the part of its name after the colon and the config;
            imported only when called, for torch takes seconds to import.
        models: ``module:function`` that lists the parts after the colon; empty where the user names a file.
        knows: ``module:function`` that says whether there is a model, where more can be built than is listed.
        in_weights_folder: Its weights are looked for in the weights folder.
        takes_preprocessing: The user states mean, standard deviation and interpolation.
    """

    form: str
    load: str
    models: str = ""
    knows: str = ""
    in_weights_folder: bool = False
    takes_preprocessing: bool = False


FAMILIES = {
    "descriptor": EncoderFamily("descriptor", "descriptor:load_descriptor"),
    "torchvision": EncoderFamily(
        "torchvision:NAME", "torchvision_models:load_torchvision", "torchvision_models:torchvision_names",
        in_weights_folder=True,
    ),
    "timm": EncoderFamily(
        "timm:NAME", "timm_models:load_timm", "timm_models:timm_names", "timm_models:is_timm_name",
        in_weights_folder=True,
    ),
    "preset": EncoderFamily("KEY", "preset_models:load_preset", "presets:presets", in_weights_folder=True),
    "lazyslide": EncoderFamily(
        "lazyslide:KEY", "zoo_models:load_zoo", "zoo:zoo_keys", in_weights_folder=True
    ),
    "torchscript": EncoderFamily(
        "torchscript:FILE.pt", "model_files:load_torchscript",
        in_weights_folder=True, takes_preprocessing=True,
    ),
    "onnx": EncoderFamily(
        "onnx:FILE.onnx", "model_files:load_onnx", in_weights_folder=True, takes_preprocessing=True
    ),
    "file": EncoderFamily("file:FILE.py:CALLABLE", "own_code:load_file", takes_preprocessing=True),
    "plugin": EncoderFamily(
        "plugin:NAME", "own_code:load_plugin", "config:plugin_names", takes_preprocessing=True
    ),
}  # fmt: skip
"""Every family by the name before the colon; presets and the descriptor are named without one."""

_FP32_ON_CPU = ("descriptor", "onnx")
_PREFIXES = tuple(name for name, family in FAMILIES.items() if ":" in family.form)


def split_name(name: str) -> tuple[str, str]:
    """Splits an encoder's name into its family and its model; both empty where the form is not known."""
    prefix, colon, model = name.partition(":")
    if name == "descriptor":
        return name, ""
    if colon:
        return (prefix, model) if prefix in _PREFIXES else ("", "")
    from wsi_ncmi.encoders.presets import presets  # read for bare names alone: most jobs need none

    return ("preset", name) if name in presets() else ("", "")


def check_name(name: str) -> str:
    """Checks what can be known of an encoder's name without torch: presets wholly, of others the form.

    Args:
        name: Full name.

    Returns:
        The same name.

    Raises:
        ValueError: There is no such encoder; the sentence has the nearest names.
    """
    family, model = split_name(name)
    if family == "file" and not re.fullmatch(r".+\.py:[^\W\d]\w*", model):
        raise ValueError(f"an encoder from a file is named {FAMILIES[family].form}, not {name!r}")
    if not family or (not model and family != "descriptor"):
        raise ValueError(f"there is no encoder {name!r}; {_hint(name)}")
    if family == "lazyslide":
        return _served(model)
    known = plugin_names() if family == "plugin" else networks_of(family)
    if (known or family == "plugin") and model.partition(".")[0] not in known:
        near = difflib.get_close_matches(model, known, n=3, cutoff=0.5)
        none = (
            "no installed package announces one"
            if family == "plugin"
            else f"{family} has no network of such a name"
        )
        hint = f"did you mean {_either([f'{family}:{each}' for each in near])}?" if near else f"{none}."
        raise ValueError(f"there is no encoder {name!r}; {hint}")
    return name


def _served(key: str) -> str:
    from wsi_ncmi.encoders.zoo import find_zoo_model  # read for these names alone

    try:
        return find_zoo_model(key, slide=False).name
    except InputError as error:
        raise ValueError(str(error)) from error


def plugin_names() -> tuple[str, ...]:
    """Names of the encoders that installed packages announce."""
    return tuple(sorted(point.name for point in metadata.entry_points(group=ENTRY_POINTS)))


@cache
def networks_of(family: str) -> frozenset[str]:
    """Names of the networks that timm or torchvision registers, read from its source.

    Importing either takes seconds, as torch comes along; a wrong name is to be told at once.

    Returns:
        The names without tags; empty for other families, and where the source can't be read.
    """
    spec = importlib.util.find_spec(family) if family in ("timm", "torchvision") else None
    if spec is None or spec.origin is None:
        return frozenset()
    files = (Path(spec.origin).parent / "models").glob("*.py")
    return frozenset(name for file in files for name in _REGISTERED.findall(file.read_text("utf-8")))


_REGISTERED = re.compile(r"^@register_model\b[^\n]*\n(?:[@ )][^\n]*\n)*def (\w+)\(", re.MULTILINE)


def _hint(name: str) -> str:
    from wsi_ncmi.encoders.presets import near_presets

    prefix, colon, model = name.partition(":")
    if colon and prefix not in _PREFIXES:
        return nearest(name, [f"{each}:{model or 'NAME'}" for each in _PREFIXES])
    near = difflib.get_close_matches(name, ["descriptor"], n=1) or near_presets(name)
    # The commonest slip after a misspelt preset: a network without its family.
    near += [f"{each}:{name}" for each in ("torchvision", "timm") if name in networks_of(each)]
    near = near or near_presets(name, cutoff=0.4)
    if near:
        return f"did you mean {_either(near)}?"
    return "use descriptor, a preset (wsi-ncmi encoders list), torchvision:NAME or timm:NAME"


def _either(names: list[str]) -> str:
    return ", ".join([*names[:-2], " or ".join(names[-2:])])


Positive = Annotated[float, Field(gt=0)]


@configclass
class EncoderConfig:
    """Which encoder, with which weights, on which device.

    Attributes:
        name: ``descriptor``, the key of a preset, ``torchvision:NAME``, ``timm:NAME``, ``lazyslide:KEY``,
            ``torchscript:PATH``, ``onnx:PATH``, ``file:PATH.py:CALLABLE`` or ``plugin:NAME``.
        weights: File (safetensors, or .pt/.pth/.bin of tensors only) or a folder with a manifest or one file
            of the model's name; None gives torchvision's and timm's networks random weights from a fixed
            seed, with a warning; a preset does not go without.
        device: ``auto`` takes a CUDA device where there is one.
        precision: ``auto`` is fp32 on the CPU (the same numbers on every machine that computes exactly)
            and fp16 on CUDA (features are stored as float16, which bfloat16 would round more coarsely).
        batch_size: Tiles of one forward pass; every pass has this size, so it decides the numbers
            (to the rounding of float32). ``auto`` is 16 on the CPU; on CUDA, up to 256 that fit its memory.
        backend: Runtime of a network: ``torch``, ``compile`` (``torch.compile``), or an optional package
            on the CPU, ``onnx`` (ONNX Runtime) or ``openvino``. ``auto`` is ``torch``. Each rounds in its own
            way, so it is part of a feature file's identity.
        input_px: Edge of the network's input in pixels; None takes the model's own.
        mean: Of each channel in 0 … 1, for networks from a user's file; None takes ImageNet's.
        std: Standard deviation, same.
        interpolation: Of the resize to ``input_px``, same; None takes bilinear.
    """

    name: Annotated[str, AfterValidator(check_name)] = "descriptor"
    weights: Path | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    batch_size: Annotated[int, Field(ge=1, le=4096)] | Literal["auto"] = "auto"
    backend: Literal["auto", "torch", "compile", "onnx", "openvino"] = "auto"
    input_px: Annotated[int, Field(ge=16, le=2048)] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[Positive, Positive, Positive] | None = None
    interpolation: Literal["bilinear", "bicubic"] | None = None

    @model_validator(mode="after")
    def _check_settings(self) -> Self:
        """Refuses settings that would have no effect, and what no runtime can do."""
        family, _ = split_name(self.name)
        halved = self.precision not in ("auto", "fp32")
        faults = (
            (family == "descriptor" and self.weights is not None, "weights", "name",
             "the descriptor has no weights; leave them out, or choose a network"),
            (family == "descriptor" and self.backend != "auto", "backend", "name",
             "the descriptor is no network and has no backend; leave it out, or choose a network"),
            (family == "onnx" and self.backend in ("compile", "openvino"), "backend", "name",
             "ONNX files are run by ONNX Runtime; leave the backend out"),
            (family in _FP32_ON_CPU and halved, "precision", "name",
             "it computes in fp32; leave the precision out, or choose another encoder"),
            (family in _FP32_ON_CPU and self.device == "cuda", "device", "name",
             "it computes on the CPU; take device cpu or auto"),
            (self.backend in ("onnx", "openvino") and self.device == "cuda", "backend", "device",
             f"the backend {self.backend} runs on the CPU only here; take device cpu or auto"),
            (self.backend == "onnx" and halved, "backend", "precision",
             f"the backend onnx computes in fp32, not {self.precision}"),
            (self.backend == "openvino" and self.precision == "fp16", "backend", "precision",
             "the backend openvino computes in fp32 or bf16, not fp16"),
            (self.precision == "fp16" and self.device == "cpu", "precision", "device",
             "half precision is for a GPU; on the CPU take fp32, or bf16 where the processor has it"),
        )  # fmt: skip
        for wrong, key, other, message in faults:
            if wrong:
                raise contradiction(message, key, other)
        own = ["mean", "std", "interpolation"] if not FAMILIES[family].takes_preprocessing else []
        own += ["input_px"] if family in ("descriptor", "preset", "lazyslide") else []
        for field in own:
            if getattr(self, field) is not None:
                raise contradiction(
                    f"{self.name} brings its own preprocessing; leave {field} out", field, "name"
                )
        return self
