"""The CUDA devices that this process may use, each slice of a divided GPU as one."""

import os
import re
import subprocess
from collections.abc import Callable, Mapping

_SLICE = "MIG-"
_LINE = re.compile(r"\(UUID: (?P<name>(?:GPU|MIG)-[^)\s]+)\)")
_PATIENCE_S = 20.0


def list_devices() -> str:
    """What ``nvidia-smi -L`` prints; empty where it can't be asked."""
    try:
        ended = subprocess.run(
            ["nvidia-smi", "-L"],  # noqa: S607 - the driver's own tool, wherever it was installed
            capture_output=True, text=True, check=True, timeout=_PATIENCE_S,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return ended.stdout


def visible_gpus(
    environment: Mapping[str, str] = os.environ,
    listing: Callable[[], str] = list_devices,
) -> tuple[str, ...]:
    """The devices to share out, as ``CUDA_VISIBLE_DEVICES`` names them.

    A list that is set already is shared out as it stands, so chosen cards are respected. CUDA shows a process
    the first of several MIG slices only, so those are counted by their names, from the list or the driver. No
    memory is taken on a GPU.

    Args:
        environment: May hold ``CUDA_VISIBLE_DEVICES``.
        listing: Gives the driver's list of devices.
    """
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        return ()
    listed = [name.strip() for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    if any(name.startswith(_SLICE) for name in listed):
        return tuple(listed)
    if listed:
        return tuple(listed[:count])
    return _with_slices(listing()) or tuple(map(str, range(count)))


def _with_slices(text: str) -> tuple[str, ...]:
    """The slices of divided GPUs and the undivided GPUs; empty where no GPU is divided."""
    found: list[tuple[str, list[str]]] = []
    for match in _LINE.finditer(text):
        name = match["name"]
        if name.startswith(_SLICE):
            if found:
                found[-1][1].append(name)
        else:
            found.append((name, []))
    if not any(slices for _, slices in found):
        return ()
    return tuple(name for card, slices in found for name in slices or [card])
