"""Simulates a large extraction: workers that share storage, a driver, claims, and failures.

    python benchmarks/scale_simulation.py [--set NAME=VALUE ...] [--seeds 5] [--json]
    python benchmarks/scale_simulation.py --calibrate RESULT.json [--json]

The default is the plan of docs/how-to/scale.md: 100,000 slides on 32 GPUs of 4 nodes. The scheduler is that
of the engine: a worker is handed a slide when it asks; slides of a lost worker go back at once; those of a
lost node wait until their claims lapse. Storage is shared fairly by the slides that are being read.
``--calibrate`` takes what ``ray_engine.py overhead --json`` printed, finds the rate at which the simulation
takes as long as its local run, and predicts its run on Ray with what the driver was measured to cost.
"""

import argparse
import dataclasses
import heapq
import itertools
import json
import math
import random
import statistics
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Plan:
    """A cluster and a job.

    Attributes:
        slides: Slides of the job.
        nodes: Machines.
        gpus: Workers of each machine.
        tiles: Mean tiles of a slide.
        tiles_spread: Sigma of the logarithm of that number.
        rate: Tiles per second that one worker encodes.
        kb_per_tile: Kilobytes read from storage for one tile.
        storage_gb_s: Gigabytes per second that storage gives to all readers together.
        node_gb_s: Gigabytes per second of one machine's network.
        slide_s: Seconds of a slide apart from its tiles that reading ahead does not hide.
        driver_ms: The driver's work for one slide, one slide after another.
        start_s: From a worker's start to its first slide: interpreter, encoder.
        worker_days: Mean days between losses of one worker.
        node_days: Mean days between losses of one machine.
        node_back_s: Until a lost machine is there again.
        lapse_s: Until claims of a lost machine are void.
        bad_share: Share of slides that can't be read; they take a second.
    """

    slides: int = 100_000
    nodes: int = 4
    gpus: int = 8
    tiles: float = 12_000
    tiles_spread: float = 0.8
    rate: float = 600
    kb_per_tile: float = 60
    storage_gb_s: float = 5.0
    node_gb_s: float = 3.0
    slide_s: float = 0.5
    driver_ms: float = 10.0
    start_s: float = 40.0
    worker_days: float = 10.0
    node_days: float = 30.0
    node_back_s: float = 1800.0
    lapse_s: float = 120.0
    bad_share: float = 0.005


@dataclasses.dataclass
class Worker:
    """One worker: what it has in hand and how far that is."""

    node: int
    slide: int | None = None
    left: float = 0.0
    since: float = 0.0
    epoch: int = 0
    alive: bool = True


class Simulation:
    """One run.

    Args:
        plan: Cluster and job.
        seed: Of slides and failures.
        tiles: Tiles of each slide; None draws them.
    """

    def __init__(self, plan: Plan, seed: int, tiles: list[int] | None = None) -> None:
        self.plan = plan
        self.rng = random.Random(seed)
        shift = math.log(plan.tiles) - plan.tiles_spread**2 / 2
        self.tiles = tiles or [
            1
            if self.rng.random() < plan.bad_share
            else max(1, round(self.rng.lognormvariate(shift, plan.tiles_spread)))
            for _ in range(plan.slides)
        ]
        self.queue = list(range(len(self.tiles)))[::-1]
        self.workers = [Worker(node) for node in range(plan.nodes) for _ in range(plan.gpus)]
        self.events: list[tuple[float, int, str, int, int]] = []
        self.order = itertools.count()
        self.now = self.driver_free = self.driver_busy = self.lost_s = self.busy_s = 0.0
        self.reading = 0
        self.done = [0] * len(self.tiles)
        self.losses = {"worker": 0, "node": 0}

    def run(self) -> dict[str, float]:
        """Runs to the last slide."""
        plan = self.plan
        for number, _ in enumerate(self.workers):
            self.at(plan.start_s, "ready", number, 0)
            self.at(self.rng.expovariate(1 / (plan.worker_days * 86400)), "worker dies", number, 0)
        for node in range(plan.nodes):
            self.at(self.rng.expovariate(1 / (plan.node_days * 86400)), "node dies", node, 0)
        finished = 0
        last = 0.0
        while finished < len(self.tiles):
            self.now, _, what, number, epoch = heapq.heappop(self.events)
            if what == "node dies":
                self.node_dies(number)
            elif what == "lapsed":
                self.queue.append(number)
                self.wake()
            elif what == "worker dies":
                self.worker_dies(number)
                self.at(self.now + self.rng.expovariate(1 / (plan.worker_days * 86400)), what, number, 0)
            elif self.workers[number].epoch == epoch:
                worker = self.workers[number]
                if what == "finished":
                    self.done[worker.slide or 0] += 1
                    self.busy_s += self.now - worker.since
                    finished += 1
                    last = self.now
                    worker.slide = None
                    self.reading -= 1
                worker.alive = True
                self.take(number)
        ideal = sum(self.tiles) / plan.rate / len(self.workers)
        assert all(count == 1 for count in self.done)
        return {
            "hours": last / 3600,
            "ideal_hours": ideal / 3600,
            "efficiency": ideal / last,
            "tail_min": (last - self.tail) / 60 if hasattr(self, "tail") else 0.0,
            "driver_share": self.driver_busy / last,
            "lost_gpu_hours": self.lost_s / 3600,
            "workers_lost": self.losses["worker"],
            "nodes_lost": self.losses["node"],
            "read_gb_s": sum(self.tiles) * plan.kb_per_tile / 1e6 / last,
            "claims_per_s": len(self.tiles) / last,
        }

    def at(self, moment: float, what: str, number: int, epoch: int) -> None:
        """Lets something happen."""
        heapq.heappush(self.events, (moment, next(self.order), what, number, epoch))

    def take(self, number: int) -> None:
        """A worker asks, and the driver hands over when it comes to it."""
        worker = self.workers[number]
        if not self.queue or not worker.alive or worker.slide is not None:
            if not self.queue and not hasattr(self, "tail"):
                self.tail = self.now  # from here on workers are idle
            return
        self.driver_free = max(self.driver_free, self.now) + self.plan.driver_ms / 1e3
        self.driver_busy += self.plan.driver_ms / 1e3
        worker.slide = self.queue.pop()
        worker.since = self.driver_free
        worker.epoch += 1
        self.reading += 1
        self.at(self.driver_free + self.duration(worker.slide), "finished", number, worker.epoch)

    def duration(self, slide: int) -> float:
        """Seconds of a slide: the slower of encoder and storage, whose share is that of this moment."""
        plan = self.plan
        mates = max(1, min(self.reading, plan.gpus))
        share = min(plan.storage_gb_s / max(1, self.reading), plan.node_gb_s / mates) * 1e6 / plan.kb_per_tile
        return self.tiles[slide] / min(plan.rate, share) + plan.slide_s

    def worker_dies(self, number: int) -> None:
        """Its slide goes back to the queue at once, for its node knows that it is dead."""
        worker = self.workers[number]
        if not worker.alive:
            return
        self.losses["worker"] += 1
        self.drop(worker, 0.0)
        self.at(self.now + self.plan.start_s, "ready", number, worker.epoch)

    def node_dies(self, node: int) -> None:
        """Claims of all its workers lapse; it comes back later."""
        plan = self.plan
        self.losses["node"] += 1
        for number, worker in enumerate(self.workers):
            if worker.node == node:
                self.drop(worker, plan.lapse_s)
                self.at(self.now + plan.node_back_s + plan.start_s, "ready", number, worker.epoch)
        self.at(self.now + self.rng.expovariate(1 / (plan.node_days * 86400)), "node dies", node, 0)

    def drop(self, worker: Worker, wait_s: float) -> None:
        """What it had in hand is begun anew."""
        worker.epoch += 1
        worker.alive = False
        if worker.slide is not None:
            self.lost_s += max(0.0, self.now - worker.since)
            self.reading -= 1
            self.at(self.now + wait_s, "lapsed", worker.slide, 0)
            worker.slide = None

    def wake(self) -> None:
        """Idle workers ask again."""
        for number, worker in enumerate(self.workers):
            if worker.alive and worker.slide is None:
                self.take(number)


def calibrate(measured: dict[str, Any]) -> dict[str, float]:
    """Predicts a measured run on Ray from the local run of the same job."""

    def simulated(tiles: list[int], rate: float, driver_ms: float) -> float:
        plan = Plan(
            slides=len(tiles), nodes=1, gpus=int(measured["cores"]), rate=rate, kb_per_tile=1e-6, slide_s=0.0,
            driver_ms=driver_ms, start_s=0.0, worker_days=1e9, node_days=1e9, bad_share=0.0,
        )  # fmt: skip
        return Simulation(plan, 0, tiles).run()["hours"] * 3600

    local, on_ray = measured["local"], measured["ray"]
    low, high = 1e-3, 1e6
    for _ in range(60):
        rate = math.sqrt(low * high)
        low, high = (
            (rate, high)
            if simulated(local["tiles_each"], rate, local["driver_ms"]) > local["work_s"]
            else (low, rate)
        )
    predicted = simulated(on_ray["tiles_each"], low, on_ray["driver_ms"])
    real = on_ray["work_s"]
    return {
        "tiles_per_s_of_a_worker": round(low, 2), "driver_ms": on_ray["driver_ms"],
        "predicted_s": round(predicted, 1), "measured_s": real, "error": round(predicted / real - 1, 4),
    }  # fmt: skip


def main() -> None:
    """Runs the simulation."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--calibrate", type=Path, default=None)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.calibrate is not None:
        lines = arguments.calibrate.read_text().strip().splitlines()
        result: dict[str, object] = dict(calibrate(json.loads(lines[-1])))
    else:
        kinds = {field.name: type(field.default) for field in dataclasses.fields(Plan)}
        pairs = dict(item.split("=", 1) for item in arguments.set)
        plan = Plan(**{name: kinds[name](value) for name, value in pairs.items()})
        runs = [Simulation(plan, seed).run() for seed in range(arguments.seeds)]
        result = {
            name: [round(min(values), 4), round(statistics.median(values), 4), round(max(values), 4)]
            for name in runs[0]
            if (values := [run[name] for run in runs])
        }
    if arguments.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:18} {value}")


if __name__ == "__main__":
    main()
