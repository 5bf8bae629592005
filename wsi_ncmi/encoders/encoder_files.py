"""The file of an encoder: weights, exported model or program; found without torch."""

from collections.abc import Sequence
from pathlib import Path

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.encoders.config import EncoderConfig, split_name
from wsi_ncmi.encoders.presets import presets
from wsi_ncmi.encoders.weights_folder import find_entry
from wsi_ncmi.encoders.zoo import ZooModel, find_zoo_model

_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # the layout of a downloaded hub repository
_MODEL_FILES = {"torchscript": "TorchScript file", "onnx": "ONNX file", "file": "Python file"}


def encoder_file(config: EncoderConfig) -> Path | None:
    """Finds the file of an encoder.

    Args:
        config: The user's choice.

    Returns:
        The file; None where the encoder has none, or random weights.

    Raises:
        InputError: It isn't there; the sentence names what is.
    """
    family, model = split_name(config.name)
    if family in _MODEL_FILES:
        return _model_file(family, model, config.weights)
    if family == "preset":
        return _preset_file(model, config.weights)
    if family == "lazyslide":
        return find_snapshot(find_zoo_model(model, slide=False), config.weights)
    if family in ("torchvision", "timm") and config.weights is not None:
        return find_weights(config.weights, model)
    return None


def needed_file(config: EncoderConfig) -> Path:
    """:func:`encoder_file` of an encoder that has one in any case."""
    path = encoder_file(config)
    assert path is not None
    return path


def _model_file(family: str, model: str, weights: Path | None) -> Path:
    if family == "file":  # its weights are the callable's business
        model, weights = model.rpartition(":")[0], None
    candidates = [Path(model)]
    if weights is not None:
        candidates.insert(0, weights / Path(model).name if weights.is_dir() else weights)
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise InputError(
        f"There is no {_MODEL_FILES[family]} {candidates[-1]}; give its path after the colon, or its folder "
        "with --weights."
    )


def _preset_file(key: str, weights: Path | None) -> Path:
    preset = presets()[key]
    # A preset without its weights would give features of a random network under a trusted name.
    if weights is None:
        raise InputError(
            f"The preset {preset.key} needs its weights: set WSI_NCMI_WEIGHTS, or give file or folder "
            f"(--weights, in Python weights=…); get them by `wsi-ncmi encoders fetch {preset.weights_key}`"
            f" or `encoders import`. {preset.access}"
        )
    try:
        return find_weights(weights, preset.weights_key)
    except InputError as error:
        raise InputError(f"{error} {preset.access}") from error


def find_snapshot(model: ZooModel, folder: Path | None) -> Path:
    """The listing of an encoder's snapshot in a weights folder.

    Raises:
        InputError: There is none; the sentence says how to fetch it.
    """
    entry = find_entry(folder, model.name) if folder is not None and folder.is_dir() else None
    if folder is None or entry is None:
        where = f"the weights folder {folder} has none" if folder else "no weights folder is named"
        raise InputError(
            f"{model.name} needs its snapshot, and {where}: set WSI_NCMI_WEIGHTS or give --weights-dir, and "
            f"get it by `wsi-ncmi encoders fetch {model.name}`."
        )
    return folder / entry.file


def find_weights(path: Path, model: str) -> Path:
    """Finds the weights file of a model.

    Args:
        path: The file itself, or a folder whose manifest names the model, or that holds ``MODEL.suffix``, one
            ``MODEL_*``/``MODEL-*``/``MODEL.*`` file, or a hub download (``model.safetensors`` or
            ``pytorch_model.bin``).
        model: Name of the model without its family, for example ``squeezenet1_1``.

    Returns:
        The file.

    Raises:
        InputError: There is none or more than one; the sentence names what is there.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise InputError(
            f"There is no weights file or folder {path}; give a file that exists with --weights."
        )
    if (entry := find_entry(path, model)) is not None:
        return path / entry.file
    files = sorted(each for each in path.iterdir() if each.is_file() and each.suffix in _SUFFIXES)
    # A timm name may carry a tag (resnet18.a1_in1k); its file may be named with or without it.
    for name in dict.fromkeys((model, model.partition(".")[0])):
        exact = [each for each in files if each.stem == name]
        near = [each for each in files if each.name.startswith(tuple(f"{name}{mark}" for mark in "_-."))]
        found = exact or near
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(
                f"The folder {path} holds {len(found)} weights files for {model} "
                f"({some_of([each.name for each in found])}); give one of them with --weights."
            )
    for hub_file in _HUB_FILES:
        if (path / hub_file).is_file():
            return path / hub_file
    holds = f"it holds {some_of([each.name for each in files])}" if files else "it holds no weights file"
    raise InputError(
        f"The folder {path} has no weights for {model} ({holds}); name the file {model}.safetensors "
        "or give the file itself with --weights."
    )


def some_of(names: Sequence[str], limit: int = 3) -> str:
    """The first names, for a message."""
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")
