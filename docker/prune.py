"""Removes from an environment what a run on the CPU never loads; run by the interpreter of that environment.

The locked PyTorch is built for CUDA and its libraries are linked to the CUDA libraries, so those have to
be there, GPU or not. What it loads is what the process has mapped once networks have computed; of the CUDA
packages everything else goes, and so do Triton (a compiler for GPUs) and headers.
"""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path

SITE = Path(sysconfig.get_path("purelib"))
GONE = ("triton", "triton-*.dist-info", "torch/include")
KEPT_SUFFIXES = (".py", ".txt", ".typed", ".md")


def use() -> None:
    """Loads what a job on the CPU loads."""
    import timm
    import torch
    import torchvision

    with torch.inference_mode():
        tiles = torch.zeros(1, 3, 224, 224)
        torchvision.models.resnet18()(tiles)
        timm.create_model("vit_tiny_patch16_224")(tiles)
        torch.linalg.svd(torch.eye(4))
    torch.eye(4, requires_grad=True).sum().backward()


def mapped() -> set[Path]:
    """The files that this process has in its memory."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {Path(line.split(maxsplit=5)[5]).resolve() for line in lines if line.count("/")}


def main() -> None:
    """Prunes and says what that gave."""
    for pattern in GONE:
        for path in SITE.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    use()
    loaded = mapped()
    freed = 0
    for path in sorted((SITE / "nvidia").rglob("*")):
        if path.is_file() and path.suffix not in KEPT_SUFFIXES and path.resolve() not in loaded:
            freed += path.lstat().st_size
            path.unlink()
    print(f"{freed / 1e9:.2f} GB of CUDA libraries that nothing loads are gone", file=sys.stderr)


if __name__ == "__main__":
    main()
