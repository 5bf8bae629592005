"""Epochs of gated ABMIL against the plain loop of the peers, and against the floor of the machine.

    OMP_NUM_THREADS=1 python benchmarks/training.py --json [--rcc tcga_rcc.npz]
    OMP_NUM_THREADS=1 python benchmarks/training.py --memory

The plain loop reads one bag file at a time (``torch.load``, as CLAM does), casts it to float32, and takes one
Adam step a bag with a model of its own: separate linear layers for the two branches, ``nn.Dropout``. Ours is
the loop that ``train`` runs, with its default batches, bags kept within the memory budget. Both have the same
widths, dropout and precision, and one thread. An epoch is the training pass without validation; rounds
alternate and the figures are medians of the rounds' ratios.

``small``: the training part of a fold of TCGA-RCC (drawn bags of the same lengths where no file is given).
``large``: 40 bags of 500 to 5,000 × 1,024, float16 on disk; ``vs_peer_loop_large`` runs our steps in
bfloat16 where the CPU has it, ``_fp32`` and ``_bf16`` run both sides in the same precision.

The floor is what the machine needs for the matrix products of an epoch (those of the forward pass, of the
weights' gradients, and of the inner layers' inputs' gradients; timed alone, in the shapes of the batches
and the precision of ours) and for moving the activations that must be written and read between them (7 passes
over the hidden layer and 8 over a branch, at the measured copying rate of an array of that size).
``share_of_floor`` = floor / epoch.

``--memory``: trains on a cohort of four times the budget and tells the peak of private memory above that of
the loaded libraries and model.
"""

import argparse
import gc
import json
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from wsi_ncmi.cohorts import open_bag_source
from wsi_ncmi.features.interchange import PackedColumns, write_packed
from wsi_ncmi.losses import loss_config
from wsi_ncmi.mil import model_config
from wsi_ncmi.parallel import keep_large_buffers
from wsi_ncmi.training import BagCache, LabelledSlides, RunConfig, TrainingConfig
from wsi_ncmi.training.fitting import build_modules
from wsi_ncmi.training.loop import TrainingLoop

HIDDEN, ATTENTION, DROPOUT = 128, 64, 0.25
CLOCK: Callable[[], float] = time.perf_counter


class PlainGatedABMIL(nn.Module):
    """Gated attention as the peers write it: one bag, separate branches."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.projection = nn.Sequential(nn.Linear(width, HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT))
        self.content = nn.Sequential(nn.Linear(HIDDEN, ATTENTION), nn.Tanh(), nn.Dropout(DROPOUT))
        self.gate = nn.Sequential(nn.Linear(HIDDEN, ATTENTION), nn.Sigmoid(), nn.Dropout(DROPOUT))
        self.score = nn.Linear(ATTENTION, 1)
        self.head = nn.Linear(HIDDEN, classes)

    def forward(self, bag: Tensor) -> Tensor:
        """Logits (1, C) of a bag (N, D)."""
        hidden = self.projection(bag)
        attention = self.score(self.content(hidden) * self.gate(hidden)).T.softmax(dim=1)
        logits: Tensor = self.head(attention @ hidden)
        return logits


class PlainLoop:
    """Batch of one, a file a step."""

    def __init__(self, files: list[Path], y: np.ndarray, width: int, bf16: bool) -> None:
        self.files, self.y, self.bf16 = files, torch.from_numpy(y), bf16
        self.model = PlainGatedABMIL(width, int(y.max()) + 1)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=2e-4, weight_decay=1e-5)
        self.loss = nn.CrossEntropyLoss()

    def epoch(self) -> float:
        """Seconds of an epoch."""
        began, total = CLOCK(), 0.0
        self.model.train()
        for i in torch.randperm(len(self.files)).tolist():
            bag = torch.load(self.files[i], weights_only=True).float()
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                loss = self.loss(self.model(bag), self.y[i : i + 1])
            total += loss.item()
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
        return CLOCK() - began


class OurLoop:
    """The loop of ``fit``, epoch by epoch."""

    def __init__(self, cache: BagCache, slides: LabelledSlides, precision: str) -> None:
        model = model_config(hidden=HIDDEN, attention=ATTENTION, dropout=DROPOUT)
        counts = np.bincount(slides.y).tolist()
        aggregator, criterion = build_modules(
            RunConfig(model=model, loss=loss_config(name="ce")), cache.source.width, counts
        )
        options = TrainingConfig(device="cpu", precision=precision, epochs=1000, batch_size=16)
        self.loop = TrainingLoop(
            aggregator, criterion, cache, train=slides, validation=slides, config=RunConfig(training=options)
        )
        aggregator.train()
        criterion.train()
        self.batches = [sum(cache.lengths([slides.slide_ids[i] for i in b])) for b in self.next_batches()]

    def next_batches(self) -> list[np.ndarray]:
        """The bags of each step of the next epoch."""
        return self.loop._bags.of_epoch(self.loop._epoch)

    def epoch(self) -> float:
        """Seconds of an epoch."""
        began = CLOCK()
        self.loop._take_steps()
        elapsed = CLOCK() - began
        self.loop._epoch, self.loop._step, self.loop._loss_sum = self.loop._epoch + 1, 0, 0.0
        return elapsed


def best(action: Callable[[], object], repeats: int = 5) -> float:
    """Least seconds of a call."""
    found = []
    for _ in range(repeats):
        began = CLOCK()
        action()
        found.append(CLOCK() - began)
    return min(found)


def floor_of(tiles: list[int], width: int, dtype: torch.dtype) -> float:
    """Seconds that an epoch can't go below: products of the mean batch, and activations moved."""
    n = int(np.mean(tiles))
    x, hidden = torch.randn(n, width).to(dtype), torch.randn(n, HIDDEN).to(dtype)
    branches, score = torch.randn(n, 2 * ATTENTION).to(dtype), torch.randn(n, ATTENTION).to(dtype)
    first, second = torch.randn(width, HIDDEN).to(dtype), torch.randn(HIDDEN, 2 * ATTENTION).to(dtype)
    last, one = torch.randn(ATTENTION, 1).to(dtype), torch.randn(n, 1).to(dtype)
    products = [
        (x, first), (x.T, hidden), (hidden, second), (hidden.T, branches), (branches, second.T),
        (score, last),
        (score.T, one), (one, last.T),
    ]  # fmt: skip
    seconds = sum(best(lambda a=a, b=b: torch.mm(a, b)) for a, b in products)
    source = torch.randn(n, HIDDEN)
    target = torch.empty_like(source)
    rate = 2 * source.nbytes / best(lambda: target.copy_(source), 9)  # a copy reads and writes
    seconds += 4 * n * (7 * HIDDEN + 8 * ATTENTION) / rate
    return seconds * sum(tiles) / n


def save_bags(
    folder: Path, bags: list[np.ndarray], y: np.ndarray
) -> tuple[list[Path], BagCache, LabelledSlides]:
    """The bags as a file each for the plain loop, and packed for ours."""
    files = []
    for i, bag in enumerate(bags):
        files.append(folder / f"{i}.pt")
        torch.save(torch.from_numpy(bag), files[-1])
    names = [f"s{i:04d}" for i in range(len(bags))]
    lengths = [len(bag) for bag in bags]
    of = dict(zip(names, bags, strict=True))
    write_packed(folder / "bags.npz", PackedColumns(names, lengths), bags[0].shape[1], lambda name: of[name])
    cache = BagCache(open_bag_source(folder / "bags.npz"), TrainingConfig().cache_mib * 2**20)
    return files, cache, LabelledSlides(tuple(names), y)


def compared(ours: OurLoop, plain: PlainLoop, rounds: int) -> tuple[float, float, float]:
    """Median of the rounds' ratios plain / ours, and the medians of both epochs' seconds."""
    ours.epoch(), plain.epoch()
    pairs = [(ours.epoch(), plain.epoch()) for _ in range(rounds)]
    a, b = np.array(pairs).T
    return float(np.median(b / a)), float(np.median(a)), float(np.median(b))


def small_bags(path: Path | None) -> tuple[list[np.ndarray], np.ndarray]:
    """The training part of the first fold of RCC (579 slides), or drawn bags of such lengths."""
    rng = np.random.default_rng(0)
    if path is None:
        lengths = np.clip(rng.lognormal(3.7, 0.45, 579), 1, 254).astype(int)
        return [rng.normal(size=(n, 192)).astype(np.float16) for n in lengths], rng.integers(0, 3, 579)
    from wsi_ncmi.cohorts import SplitConfig, make_splits

    source = open_bag_source(path)
    cohort = source.embedded_cohort()
    assert cohort is not None
    chosen = make_splits(cohort, SplitConfig()).folds[0].train
    y = [cohort.class_index[cohort.by_slide[slide_id].label] for slide_id in chosen]
    return [source.load(slide_id) for slide_id in chosen], np.array(y, dtype=np.int64)


def has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 itself."""
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text(encoding="ascii")
    except OSError:
        return False


def measure(rcc: Path | None, rounds: int) -> dict[str, float | str]:
    """All figures of speed."""
    figures: dict[str, float | str] = {
        "clock": CLOCK.__name__,
        "threads": torch.get_num_threads(),
        "small_bags": "drawn" if rcc is None else "rcc",
    }
    with tempfile.TemporaryDirectory() as folder:
        bags, y = small_bags(rcc)
        files, cache, slides = save_bags(Path(folder), bags, y)
        ours = OurLoop(cache, slides, "fp32")
        ratio, mine, theirs = compared(ours, PlainLoop(files, y, bags[0].shape[1], bf16=False), rounds)
        figures |= {"vs_peer_loop_small": ratio, "small_epoch_s": mine, "small_peer_epoch_s": theirs}
        figures["share_of_floor_small"] = floor_of(ours.batches, bags[0].shape[1], torch.float32) / mine
    rng = np.random.default_rng(0)
    lengths = rng.integers(500, 5001, size=40)
    bags = [rng.standard_normal((n, 1024), np.float32).astype(np.float16) for n in lengths]
    y = np.arange(40) % 2
    with tempfile.TemporaryDirectory() as folder:
        files, cache, slides = save_bags(Path(folder), bags, y)
        del bags
        plain = PlainLoop(files, y, 1024, bf16=False)
        full = OurLoop(cache, slides, "fp32")
        ratio, mine, theirs = compared(full, plain, rounds)
        figures |= {
            "vs_peer_loop_large_fp32": ratio,
            "large_epoch_s_fp32": mine,
            "large_peer_epoch_s": theirs,
        }
        figures["vs_peer_loop_large"] = ratio
        figures["share_of_floor"] = floor_of(full.batches, 1024, torch.float32) / mine
        if has_bf16():
            half = OurLoop(cache, slides, "bf16")
            ratio, mine, _ = compared(half, plain, rounds)
            same, _, theirs = compared(half, PlainLoop(files, y, 1024, bf16=True), rounds)
            figures |= {
                "vs_peer_loop_large": ratio,
                "large_epoch_s_bf16": mine,
                "vs_peer_loop_large_bf16": same,
            }
            figures["large_peer_epoch_s_bf16"] = theirs
            figures["share_of_floor_bf16"] = floor_of(half.batches, 1024, torch.bfloat16) / mine
    return figures


def private_mib() -> float:
    """Private memory of this process in MiB; pages of files that are mapped or cached don't count."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    return float("nan")


def measure_memory(budget_mib: int) -> dict[str, float]:
    """Trains two epochs on a cohort four times the budget, float16 on disk, and watches the memory."""
    rng = np.random.default_rng(0)
    count = 4 * budget_mib * 2**20 // (2 * 1024 * 1000)
    lengths = rng.integers(500, 1501, size=count).tolist()
    names = [f"s{i:04d}" for i in range(count)]
    by_name = dict(zip(names, lengths, strict=True))
    base = rng.standard_normal((1500, 1024), np.float32).astype(np.float16)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bags.npz"
        write_packed(path, PackedColumns(names, lengths), 1024, lambda name: base[: by_name[name]])
        slides = LabelledSlides(tuple(names), np.arange(count) % 2)
        # The first steps take what libraries and allocator need whatever the cohort's size.
        OurLoop(
            BagCache(open_bag_source(path), 0), LabelledSlides(slides.slide_ids[:16], slides.y[:16]), "fp32"
        ).epoch()
        gc.collect()
        before, peak, done = private_mib(), [0.0], threading.Event()

        def watch() -> None:
            while not done.wait(0.002):
                peak[0] = max(peak[0], private_mib())

        watcher = threading.Thread(target=watch)
        watcher.start()
        cache = BagCache(open_bag_source(path), budget_mib * 2**20)
        ours = OurLoop(cache, slides, "fp32")
        seconds = [ours.epoch(), ours.epoch()]
        ours.loop._close_epoch()
        done.set()
        watcher.join()
        return {
            "budget_mib": budget_mib,
            "cohort_mib": 2 * 1024 * sum(lengths) / 2**20,
            "kept_mib": cache.bytes_kept / 2**20,
            "peak_above_start_mib": peak[0] - before,
            "peak_over_budget": (peak[0] - before) / budget_mib,
            "first_epoch_s": seconds[0],
            "second_epoch_s": seconds[1],
        }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rcc", type=Path, help="packed bags of TCGA-RCC")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="count the process's CPU seconds: on a machine that isn't idle",
    )
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--budget-mib", type=int, default=512)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.cpu_time:
        global CLOCK
        CLOCK = time.process_time
    torch.set_num_threads(given.threads)
    # As `train` does in its processes. It serves the plain loop as well, which gains a little by it.
    keep_large_buffers()
    figures = measure_memory(given.budget_mib) if given.memory else measure(given.rcc, given.rounds)
    if given.json:
        print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}))
    else:
        for name, value in figures.items():
            print(f"{name:28s} {value if isinstance(value, str) else f'{value:10.3f}'}")


if __name__ == "__main__":
    main()
