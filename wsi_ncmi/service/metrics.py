"""Metrics of a watched folder in the text format of Prometheus, as a file and over the loopback.

Source: prometheus.io/docs/instrumenting/exposition_formats (version 0.0.4) and …/practices/naming. Counters
of answers are those of the audit trail, so they go on over restarts and agree with it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import subprocess
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from wsi_ncmi import __version__
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import write_text
from wsi_ncmi.prediction.ood import OodDetector

_LOG = logging.getLogger(__name__)
_SECONDS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)
_LATENCY = (60.0, 300.0, 900.0, 1800.0, 3600.0, 14400.0, 86400.0)
_SCORES = (0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0)
_RECENT = 200
_MIN_RECENT = 20
_GPU_INTERVAL_S = 60.0
_PATIENCE_S = 10.0

Sample = tuple[Mapping[str, object], float]


class Histogram:
    """Counts of values up to bounds.

    Args:
        bounds: Upper bounds, ascending; what is above all of them counts too.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds, self._counts, self._sum = bounds, [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        """Counts a value."""
        self._counts[sum(value > bound for bound in self._bounds)] += 1
        self._sum += value

    def samples(self, name: str, labels: Mapping[str, object]) -> list[str]:
        """Lines of the text format."""
        total, lines = 0, []
        for bound, count in zip((*map(repr, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            lines.append(_line(f"{name}_bucket", {**labels, "le": bound}, total))
        return [*lines, _line(f"{name}_sum", labels, self._sum), _line(f"{name}_count", labels, total)]


class ServiceMetrics:
    """What a service tells of itself; :meth:`text` may be called by another thread.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._model: Mapping[str, str] = {}
        self._ood: OodDetector | None = None
        self._answers: Counter[str] = Counter()
        self._stages: dict[str, Histogram] = {}
        self._latency, self._scores = Histogram(_LATENCY), Histogram(_SCORES)
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._slides: Counter[str] = Counter()
        self._oldest: float | None = None
        self._hook_failures = self._undelivered = self._entries = 0
        self._answered_at = self._looked_at = 0.0
        self._gpus: list[tuple[str, int, int]] = []
        self._gpus_at = -_GPU_INTERVAL_S
        self._started = time.time()

    def use_model(self, model: Mapping[str, str], ood: OodDetector | None) -> None:
        """A model is in use from now on; drift is measured from here.

        Args:
            model: Its ``name``, ``version`` and ``digest``.
            ood: Its statistics, whose scores of training slides recent ones are compared with.
        """
        self._model, self._ood = model, ood
        self._recent.clear()

    def answered(self, entry: Mapping[str, Any]) -> None:
        """Counts an entry of the audit trail."""
        self._entries += 1
        if entry["event"] != "answer":
            return
        self._answers[entry["answer"]["status"]] += 1
        score = entry["answer"].get("ood_score")
        if score is not None:
            self._scores.observe(score)
            if entry["model"]["digest"] == self._model.get("digest"):
                self._recent.append(score)

    def took(self, stage: str, seconds: float) -> None:
        """Counts the seconds of a stage of one slide."""
        self._stages.setdefault(stage, Histogram(_SECONDS)).observe(seconds)

    def waited(self, seconds: float) -> None:
        """Counts the seconds from the arrival of a slide to its answer."""
        self._latency.observe(seconds)
        self._answered_at = time.time()

    def looked(self, slides: Mapping[str, int], oldest: float | None) -> None:
        """Says what lies in the folder.

        Args:
            slides: State (``waiting``, ``done``, ``quarantined``) → slides.
            oldest: When the slide came that waits longest, by the clock; None = none waits.
        """
        self._slides, self._oldest, self._looked_at = Counter(slides), oldest, time.time()
        if time.monotonic() - self._gpus_at >= _GPU_INTERVAL_S:
            self._gpus, self._gpus_at = gpu_memory(), time.monotonic()

    def delivered(self, failures: int, undelivered: int) -> None:
        """Counts failures of the hook, and says how many answers it has yet to take."""
        self._hook_failures += failures
        self._undelivered = undelivered

    @property
    def drift(self) -> tuple[float, float] | None:
        """Kolmogorov-Smirnov statistic of the recent OOD scores against the training's, and its p-value."""
        quantiles = () if self._ood is None else self._ood.bounds.score_quantiles
        if self._ood is None or not quantiles or len(self._recent) < _MIN_RECENT:
            return None
        import numpy as np
        from scipy.stats import kstwobign

        recent = np.sort(list(self._recent))  # a copy at once: the other thread may add
        expected = np.interp(recent, quantiles, np.linspace(0, 1, len(quantiles)), left=0.0, right=1.0)
        above = np.arange(1, len(recent) + 1) / len(recent) - expected
        below = expected - np.arange(len(recent)) / len(recent)
        statistic = float(max(above.max(), below.max()))
        size = len(recent) * self._ood.bounds.slides / (len(recent) + self._ood.bounds.slides)
        return statistic, float(kstwobign.sf(statistic * size**0.5))

    def text(self) -> str:
        """All metrics in the text format."""
        lines: list[str] = []

        def family(kind: str, name: str, about: str, samples: float | Iterable[Sample]) -> None:
            each = [({}, samples)] if isinstance(samples, float | int) else samples
            found = [_line(f"wsi_ncmi_{name}", labels, value) for labels, value in each]
            if found:
                lines.extend([*_head(name, kind, about), *found])

        def histogram(name: str, about: str, found: Mapping[str, Histogram], label: str = "") -> None:
            lines.extend(_head(name, "histogram", about))
            for value, each in found.items():
                lines.extend(each.samples(f"wsi_ncmi_{name}", {label: value} if label else {}))

        age = 0.0 if self._oldest is None else max(0.0, self._clock() - self._oldest)
        states, outcomes = ("waiting", "done", "quarantined"), ("decided", "abstained", "failed")
        slides = [({"state": state}, self._slides[state]) for state in states]
        answers = [({"outcome": outcome}, self._answers[outcome]) for outcome in outcomes]
        family("gauge", "build_info", "Version of the program.", [({"version": __version__}, 1)])
        family("gauge", "model_info", "The model in use.", [(self._model, 1)])
        family("gauge", "start_time_seconds", "When the service started.", self._started)
        family("gauge", "last_look_timestamp_seconds", "Last look at the folder.", self._looked_at)
        family("gauge", "last_answer_timestamp_seconds", "Last answer; 0 = none yet.", self._answered_at)
        family("gauge", "slides", "Slides of the folder by state.", slides)
        family("gauge", "queue_age_seconds", "Age of the slide that waits longest.", age)
        family("counter", "answers_total", "Answers in the audit trail by outcome.", answers)
        family("counter", "audit_log_entries_total", "Entries of the audit trail.", self._entries)
        family("gauge", "undelivered_answers", "Answers that the hook has yet to take.", self._undelivered)
        family("counter", "hook_failures_total", "Failures of the hook.", self._hook_failures)
        histogram("stage_seconds", "Seconds of a slide by stage.", dict(self._stages), "stage")
        histogram("answer_latency_seconds", "From a slide's arrival to its answer.", {"": self._latency})
        histogram("ood_score", "OOD scores of the answers; flagged above 1.", {"": self._scores})
        if drift := self.drift:
            about = "Kolmogorov-Smirnov distance of recent OOD scores from those of the training."
            family("gauge", "ood_drift", about, drift[0])
            family("gauge", "ood_drift_pvalue", "Chance of such a distance without drift.", drift[1])
        used = [({"gpu": number}, used) for number, used, _ in self._gpus]
        total = [({"gpu": number}, total) for number, _, total in self._gpus]
        family("gauge", "gpu_memory_used_bytes", "Memory of the GPU in use.", used)
        family("gauge", "gpu_memory_total_bytes", "Memory of the GPU.", total)
        family("gauge", "resident_memory_bytes", "Memory of the service's main process.", _resident_memory())
        return "\n".join(lines) + "\n"

    def write(self, path: Path) -> None:
        """Writes the text atomically; a disk that is full costs the metrics and not the service."""
        try:
            write_text(path, self.text())
        except OSError as error:
            _LOG.warning("The metrics %s can't be written (%s).", path.name, error.strerror)


def gpu_memory() -> list[tuple[str, int, int]]:
    """Number of each GPU, bytes in use and in all; none where no driver tells."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, "--query-gpu=index,memory.used,memory.total", "--format=csv,noheader,nounits"]
    try:
        ended = subprocess.run(  # noqa: S603 - the driver's own tool
            query, capture_output=True, text=True, check=True, timeout=_PATIENCE_S
        )
        rows = [line.split(", ") for line in ended.stdout.splitlines()]
        return [(number, int(used) << 20, int(total) << 20) for number, used, total in rows]
    except (OSError, ValueError, subprocess.SubprocessError):  # ValueError: "[N/A]" of a divided GPU
        return []


def _resident_memory() -> list[Sample]:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # no Linux
        return []
    return [({}, pages * os.sysconf("SC_PAGE_SIZE"))]


def _head(name: str, kind: str, about: str) -> tuple[str, str]:
    return f"# HELP wsi_ncmi_{name} {about}", f"# TYPE wsi_ncmi_{name} {kind}"


def _line(name: str, labels: Mapping[str, object], value: float) -> str:
    escaped = (
        '{}="{}"'.format(key, str(each).replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n"))
        for key, each in labels.items()
    )
    inside = ",".join(escaped)
    return f"{name}{{{inside}}} {value!r}" if inside else f"{name} {value!r}"


@contextlib.contextmanager
def listening(metrics: ServiceMetrics, port: int) -> Iterator[int]:
    """Answers ``GET /metrics`` on the loopback, from one thread, while the block runs.

    Args:
        metrics: What to tell.
        port: Port; 0 = any that is free.

    Yields:
        The port.

    Raises:
        InputError: The port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = _PATIENCE_S  # of one who says nothing

        def do_GET(self) -> None:
            if self.path != "/metrics":
                self.send_error(404)
                return
            content = metrics.text().encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            pass

    try:
        server = HTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise InputError(
            f"Port {port} can't be listened on ({error.strerror}); choose another --metrics-port."
        ) from error
    with server:
        threading.Thread(target=server.serve_forever, daemon=True, name="metrics").start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
