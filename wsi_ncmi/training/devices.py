"""Which GPUs this process may use, without taking hold of any."""

from __future__ import annotations

import os

__all__ = ["visible_gpus"]


def visible_gpus() -> tuple[str, ...]:
    """Names of the usable GPUs as ``CUDA_VISIBLE_DEVICES`` writes them; empty without any.

    The driver is asked how many there are; no memory is taken on a GPU, so that processes started afterwards
    can share them out.
    """
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return tuple(map(str, range(count)))
    return tuple(name.strip() for name in named.split(",") if name.strip())[:count]
