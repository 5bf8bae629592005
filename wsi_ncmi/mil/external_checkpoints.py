"""Tensors of a checkpoint of another codebase: numbers alone, each taken exactly once."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.mil.segments import promote

_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "model.", "net.")
_PARALLEL = "attention_net.module."  # CLAM's own loader takes it off, too
_LOSS = re.compile(r"(^|\.)([a-z]\w*_)?(criterion|loss)(_fn|_func)?\.")
_LOG = logging.getLogger(__name__)


class Tensors:
    """The tensors of a checkpoint, taken one by one; what is missing or left over is an error.

    Args:
        values: Name → tensor.
        place: Where they come from, for messages.
    """

    def __init__(self, values: Mapping[str, Tensor], place: str) -> None:
        self._values = dict(values)
        self.place = place

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def names(self) -> list[str]:
        """Names that were not taken yet."""
        return list(self._values)

    def take(self, name: str, *shape: int | None) -> Tensor:
        """Takes a tensor away, in float32 (float64 stays).

        Args:
            name: Its name in the checkpoint.
            *shape: Its shape; None matches any size.

        Raises:
            InputError: It is missing or has another shape.
        """
        if name not in self._values:
            raise InputError(
                f"{self.place} doesn't fit: it lacks {name!r}; only the published architecture is imported."
            )
        value = self._values.pop(name)
        fits = value.ndim == len(shape) and all(
            n in (None, m) for n, m in zip(shape, value.shape, strict=True)
        )
        if not fits:
            expected = " × ".join("any" if n is None else str(n) for n in shape)
            raise InputError(
                f"{self.place} doesn't fit: {name!r} has the shape {tuple(value.shape)} where {expected} is "
                "expected; only the published architecture is imported."
            )
        return promote(value.detach()).clone()

    def finish(self) -> None:
        """Makes sure that nothing is left.

        Raises:
            InputError: Something is; names it.
        """
        if self._values:
            shown = ", ".join(sorted(self._values)[:4])
            raise InputError(
                f"{self.place} doesn't fit: it holds {len(self._values)} tensors without a place here "
                f"({shown}); only the published architecture is imported."
            )


def read_tensors(path: Path) -> Tensors:
    """Reads a ``.pt``/``.pth``/``.ckpt``/``.safetensors`` without executing anything in it.

    A state inside ``state_dict``, ``model_state_dict`` or ``model`` is found. What training code puts around
    it is taken off: the prefixes ``module.``, ``model.`` and ``net.`` that all names share, in any nesting,
    ``_orig_mod`` of ``torch.compile`` anywhere, and ``attention_net.module.``, CLAM's data-parallel
    attention. Entries of the loss (``criterion.weight``, ``instance_loss_fn.…``), which no prediction reads,
    are left out and named in the log.

    Raises:
        InputError: The file is missing, isn't a checkpoint, or holds more than numbers.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file  # of an extra, which models need not have

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"There is no checkpoint {path}.") from error
    except Exception as error:  # an unpickler on someone else's bytes can fail in any way
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"{path} can't be read as a checkpoint of plain tensors ({reason}); save its state_dict() alone."
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(name, str) and isinstance(t, Tensor) for name, t in content.items())
    ):
        raise InputError(f"{path} holds no state_dict (names and tensors); save the model's state_dict().")
    losses = sorted(name for name in content if _LOSS.search(name))
    if losses and len(losses) < len(content):
        _LOG.info("%s: left out what belongs to the loss: %s.", path.name, ", ".join(losses))
        content = {name: value for name, value in content.items() if name not in losses}
    plain: dict[str, Tensor] = {}
    for name, value in content.items():
        own = name.replace("_orig_mod.", "")
        plain[name if own in content or own in plain else own] = value
    while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in plain)), None):
        plain = {name.removeprefix(prefix): value for name, value in plain.items()}
    if all(name.startswith(_PARALLEL) for name in plain if name.startswith("attention_net.")):
        plain = {name.replace(_PARALLEL, "attention_net.", 1): value for name, value in plain.items()}
    return Tensors(plain, str(path))
