"""Cost of NCMI beside cross-entropy: a training step of three models, and a whole run.

    python benchmarks/loss_step.py [--seconds 32] [--json]

Both losses do the same work one after the other on the same data, in alternating order, on one thread; each
round gives one ratio of thread CPU times and the median counts, so that what else the machine does mostly
cancels out.

- ``ncmi_over_ce_mil``: a step (forward, loss, backward, AdamW) of gated ABMIL; the larger of the ratios on 16
  bags of 200 × 192 and on 2 bags of 2,000 × 1,024.
- ``ncmi_over_ce_mil_43_classes``: the same with 43 classes and the preset ``long_tail``, 16 bags of 40 × 192.
- ``ncmi_over_ce_image``: a step of ResNet-18 on 32 images of 32 × 32, 100 classes.
- ``ncmi_over_ce_run``: a whole training with validation, the default's alternating passes (where it has any)
  and the fit of the decision, on bags of the size of TCGA-RCC (905 slides, 42 tiles of 192 on average).
  ``…_run_alternating`` is the same with class means that follow the network (running means).
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor, nn

from wsi_ncmi.cohorts import BagSource
from wsi_ncmi.losses import LossConfig, build_loss, loss_config
from wsi_ncmi.mil import BagBatch, build_aggregator, model_config
from wsi_ncmi.training import BagCache, LabelledSlides, RunConfig, TrainingConfig, fit_in_memory

CE = loss_config(name="ce")
NCMI = loss_config(name="ncmi")
LONG_TAIL = loss_config(name="ncmi", preset="long_tail")
ALTERNATING = loss_config(name="ncmi", code_words="means", means_update="running", means_momentum=0.99)
EPOCHS = 5

Step = Callable[[], object]


def paired_ratio(first: Step, second: Step, seconds: float, least: int = 5) -> tuple[float, int]:
    """Median over rounds of the thread CPU time of ``first`` over that of ``second``, and the rounds."""
    ratios: list[float] = []
    for step in (first, second):
        step()
    end = time.monotonic() + seconds
    while len(ratios) < least or time.monotonic() < end:
        spent = {}
        for step in (first, second) if len(ratios) % 2 else (second, first):
            began = time.thread_time()
            step()
            spent[step] = time.thread_time() - began
        ratios.append(spent[first] / spent[second])
    return statistics.median(ratios), len(ratios)


def training_step(
    model: nn.Module, loss: LossConfig, width: int, inputs: Any, y: Tensor, repeat: int
) -> Step:
    """``repeat`` steps of a model with a loss."""
    torch.manual_seed(0)
    classes = int(y.max()) + 1
    criterion = build_loss(loss, classes, width, [1] * classes)
    parameters = [*model.parameters(), *criterion.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)

    def step() -> None:
        for _ in range(repeat):
            optimizer.zero_grad(set_to_none=True)
            output = model(inputs)
            criterion(output if isinstance(output, Tensor) else output.embedding, y).backward()
            optimizer.step()

    return step


def mil_steps(
    bags: int, tiles: int, width: int, repeat: int, classes: int = 3, ncmi: LossConfig = NCMI
) -> tuple[Step, Step]:
    """NCMI's and cross-entropy's step of gated ABMIL."""
    generator = torch.Generator().manual_seed(0)
    batch = BagBatch.pack([torch.randn(tiles, width, generator=generator) for _ in range(bags)])
    y = torch.arange(bags) % classes
    y[-1] = classes - 1
    steps = []
    for loss in (ncmi, CE):
        torch.manual_seed(0)
        model = build_aggregator(model_config(), width, classes)
        steps.append(training_step(model, loss, model.embedding_width, batch, y, repeat))
    return steps[0], steps[1]


def image_steps(images: int) -> tuple[Step, Step]:
    """NCMI's and cross-entropy's step of ResNet-18."""
    generator = torch.Generator().manual_seed(0)
    pixels, y = torch.randn(images, 3, 32, 32, generator=generator), torch.arange(images)
    y[-1] = 99
    steps = []
    for loss in (NCMI, CE):
        torch.manual_seed(0)
        model = torchvision.models.resnet18()
        model.fc = nn.Identity()
        steps.append(training_step(model, loss, 512, pixels, y, 1))
    return steps[0], steps[1]


def rcc_like() -> tuple[BagCache, LabelledSlides, LabelledSlides]:
    """Bags with the numbers of tiles of TCGA-RCC, of random features that carry the class weakly."""
    rng = np.random.default_rng(0)
    lengths = np.maximum(1, rng.gamma(1.6, 26.0, size=905)).astype(np.int64)
    y = rng.choice(3, size=905, p=[0.55, 0.13, 0.32]).astype(np.int64)
    ids = tuple(f"slide_{i}" for i in range(905))
    bags: dict[str, NDArray[np.float16]] = {}
    for name, length, label in zip(ids, lengths.tolist(), y.tolist(), strict=True):
        bag = rng.normal(size=(length, 192))
        bag[:, label] += 0.5
        bags[name] = bag.astype(np.float16)
    source = SimpleNamespace(
        slide_ids=ids, lengths=lengths, width=192, encoder="", path=Path("bags"), load=bags.__getitem__
    )
    cache = BagCache(cast("BagSource", source), 2**31)
    train, validation = slice(0, 580), slice(580, 724)
    return (
        cache,
        LabelledSlides(ids[train], y[train]),
        LabelledSlides(ids[validation], y[validation]),
    )


def run_of(loss: LossConfig, data: tuple[BagCache, LabelledSlides, LabelledSlides], epochs: int) -> Step:
    """A whole training."""
    cache, train, validation = data
    options = TrainingConfig(epochs=epochs, batch_size=16, device="cpu", decision="validation")
    return lambda: fit_in_memory(
        cache, train, validation, 3, RunConfig(model=model_config(), loss=loss, training=options)
    )


def measure(seconds: float) -> Mapping[str, float]:
    """All ratios; ``seconds`` is the budget of the whole, one eighth for each, two or more for the runs."""
    share = seconds / 8
    small, _ = paired_ratio(*mil_steps(16, 200, 192, repeat=4), share)
    large, _ = paired_ratio(*mil_steps(2, 2000, 1024, repeat=1), share)
    image, _ = paired_ratio(*image_steps(32), share)
    many, _ = paired_ratio(*mil_steps(16, 40, 192, repeat=4, classes=43, ncmi=LONG_TAIL), share)
    data = rcc_like()
    found = {
        "ncmi_over_ce_mil": max(small, large),
        "ncmi_over_ce_mil_200x192": small,
        "ncmi_over_ce_mil_2000x1024": large,
        "ncmi_over_ce_image": image,
        "ncmi_over_ce_mil_43_classes": many,
    }
    reference = run_of(CE, data, EPOCHS)
    for name, loss, part in (("", NCMI, 2.5), ("_alternating", ALTERNATING, 1.5)):
        run = run_of(loss, data, EPOCHS)
        found[f"ncmi_over_ce_run{name}"], _ = paired_ratio(run, reference, share * part, 3)
    return {name: round(value, 4) for name, value in found.items()}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=32.0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(given.seconds)
    if not given.json:
        for name, value in found.items():
            print(f"{name:<32} {value:.3f}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
