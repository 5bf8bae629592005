"""Weights from local files: found, read without running anything in them, loaded strictly, hashed."""

import hashlib
import pickle
import warnings
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wsi_ncmi.core.errors import InputError, first_line
from wsi_ncmi.encoders.encoder_files import some_of
from wsi_ncmi.encoders.weights_folder import check_listed_file


def read_weights(path: Path) -> dict[str, dict[str, Tensor]]:
    """Reads the tensors of a weights file; nothing in the file is executed.

    Args:
        path: ``.safetensors``, or a file of ``torch.save`` that holds tensors and plain values only (read
            with ``weights_only``).

    Returns:
        Tensors by name, on the CPU, for each dictionary of the file that holds some: by its place, such as
        ``state_dict`` or ``model.teacher``; empty for the file itself.

    Raises:
        InputError: The file is damaged, no weights file, holds no named tensors, or is not the one that the
            manifest of its folder names.
    """
    check_listed_file(path)
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    content = content if isinstance(content, Mapping) else {}
    if parts := _parts(content, ""):
        return parts
    mixed = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if 0 < len(mixed) < len(content):
        raise InputError(
            f"The weights file {path} holds entries that are no tensors ({some_of(mixed)}); save the "
            "state dict alone."
        )
    raise InputError(f"The weights file {path} holds no named tensors; give a state dict of the model.")


def _parts(content: Mapping[Any, Any], place: str, depth: int = 4) -> dict[str, dict[str, Tensor]]:
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in content.items():
        if isinstance(key, str) and isinstance(value, Mapping) and depth:
            parts |= _parts(value, f"{place}.{key}" if place else key, depth - 1)
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    # Tensors among other values are a record of the training, unless state dicts stand beside them.
    whole = len(tensors) == len(content) or parts
    if tensors and whole and all(isinstance(key, str) for key in tensors):
        parts[place] = tensors
    return parts


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"The weights file {path} can't be read ({first_line(error)}); fetch it again."
        ) from error


def _read_pickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about TorchScript: the error that follows says it
            # DINO's checkpoints hold the arguments of the training in one: attributes, no code.
            with torch.serialization.safe_globals([Namespace]):
                return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"The weights file {path} was refused: it is damaged or holds Python objects beside tensors, "
            f"which could "
            "run code when loaded; ask for it as safetensors."
        ) from error
    except Exception as error:  # the reader is a stack machine: other bytes make it raise anything
        raise InputError(
            f"The weights file {path} can't be read ({first_line(error)}); fetch it again."
        ) from error


def load_strictly(
    model: nn.Module, state: Mapping[str, Tensor], *, head: Sequence[str], path: Path, name: str
) -> None:
    """Loads every tensor of a headless model, and allows nothing left over but the removed head.

    Args:
        model: The network without its classifier; on the ``meta`` device its tensors become those of
            ``state``, in the model's own number type.
        state: Tensors by name.
        head: Name prefixes of what was removed from the network (for example ``("fc.",)``).
        path: The file, for the error.
        name: The encoder's name, for the error.

    Raises:
        InputError: Tensors are missing, unexpected or of another shape; names the first and counts all.
    """
    check_fit(model, state, head=head, path=path, name=name)
    expected = model.state_dict()
    given = {key: state[key] for key in expected if key in state}
    if any(tensor.is_meta for tensor in expected.values()):
        given = {key: value.to(expected[key].dtype) for key, value in given.items()}
        model.load_state_dict(given, assign=True)
    else:
        model.load_state_dict({**expected, **given})


def check_fit(
    model: nn.Module, state: Mapping[str, Tensor], *, head: Sequence[str], path: Path, name: str
) -> None:
    """Checks that a state fits as :func:`load_strictly` wants it, without loading it.

    Raises:
        InputError: Tensors are missing, unexpected or of another shape; names the first and counts all.
    """
    missing, extra, shapes = misfits(model, state)
    extra = [key for key in extra if not key.startswith(tuple(head))]
    faults = [
        f"{len(keys)} {what} ({some_of(keys)})"
        for keys, what in ((missing, "missing"), (extra, "unexpected"), (shapes, "of another shape"))
        if keys
    ]
    if faults:
        raise InputError(
            f"The weights file {path} does not fit {name}: of {len(_needed(model))} tensors needed, "
            f"{', '.join(faults)}; give the weights of this very model."
        )


def misfits(model: nn.Module, state: Mapping[str, Tensor]) -> tuple[list[str], list[str], list[str]]:
    """Names of a network's tensors that a state lacks, that it has beside them, and of another shape."""
    expected = model.state_dict()
    return (
        sorted(_needed(model) - state.keys()),
        sorted(state.keys() - expected.keys()),
        sorted(key for key in expected if key in state and state[key].shape != expected[key].shape),
    )


def _needed(model: nn.Module) -> set[str]:
    # Counters of training batches: evaluation never reads them and many published files lack them.
    return {key for key in model.state_dict() if not key.endswith("num_batches_tracked")}


def state_sha256(model: nn.Module) -> str:
    """SHA-256 of the tensors a network computes with.

    Taken over name, dtype, shape and bytes of each tensor in use, sorted by name, after loading: the same
    tensors give the same hash from safetensors or pickle, with or without a head or a prefix.

    Args:
        model: The network.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for key, tensor in sorted(model.state_dict().items()):
        if key.endswith("num_batches_tracked"):
            continue
        digest.update(f"{key}|{tensor.dtype}|{tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
