"""A watched folder as a service: every answer once into the audit trail, the outbox and the metrics."""

import contextlib
import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

from wsi_ncmi.core.files import check_folder, sha256_file
from wsi_ncmi.core.heartbeat import beat
from wsi_ncmi.prediction.bundle import ModelBundle
from wsi_ncmi.prediction.config import PredictConfig
from wsi_ncmi.prediction.slide_prediction import ABSTAIN, SlidePrediction
from wsi_ncmi.prediction.slide_records import rules
from wsi_ncmi.prediction.watch import WatchedSlide
from wsi_ncmi.service.audit_log import AuditLog
from wsi_ncmi.service.hook import Outbox
from wsi_ncmi.service.metrics import ServiceMetrics, listening

_ANSWER_SCHEMA = "wsi-ncmi-answer/1"
_BESIDE = ("slide_id", "case_id", "model")  # of an answer: said beside it, or, the patient, not at all
_METRICS_INTERVAL_S = 15.0


class Service:
    """What stands around the rounds of a watched folder.

    Args:
        config: Of the prediction.
        bundle: The model.
        clock: Monotonic seconds.

    Attributes:
        files: ``audit_log`` and ``metrics``.
        answers: Slide id → its latest answer in the audit trail, which doesn't know the patient.

    Raises:
        InputError: Another process writes to the audit trail or it is broken, there is no such command, or
            the port is taken.
    """

    def __init__(
        self, config: PredictConfig, bundle: ModelBundle, clock: Callable[[], float] = time.monotonic
    ) -> None:
        times = config.watch
        self._config, self._out, self._clock = config, config.out, clock
        self.files = {
            "audit_log": times.audit_log or config.out / "audit-log",
            "metrics": times.metrics or config.out / "metrics.prom",
        }
        check_folder(self.files["metrics"].parent, "--metrics")
        self.files["metrics"].parent.mkdir(parents=True, exist_ok=True)
        self._metrics = ServiceMetrics(clock)
        self._take(bundle)
        self.answers: dict[str, SlidePrediction] = {}
        self._given: dict[str, tuple[str, Mapping[str, Any]]] = {}
        self._stop = threading.Event()
        self._closing = contextlib.ExitStack()
        with contextlib.ExitStack() as closing:
            self._outbox = Outbox(config.out, times.on_answer, times.on_answer_timeout_s)
            self._log = closing.enter_context(AuditLog(self.files["audit_log"], self._remember))
            self._say_start()
            if times.metrics_port is not None:
                closing.enter_context(listening(self._metrics, times.metrics_port))
            writer = threading.Thread(target=self._keep_writing, daemon=True, name="metrics file")
            writer.start()
            closing.callback(writer.join)
            closing.callback(self._stop.set)
            self._closing = closing.pop_all()

    def use(self, bundle: ModelBundle) -> None:
        """Takes another model into use; the audit trail says so."""
        self._take(bundle)
        self._say_start()

    def _take(self, bundle: ModelBundle) -> None:
        self._model = dict(bundle.identity)
        self._metrics.use_model(self._model, bundle.ood)

    def _say_start(self) -> None:
        configuration = _configuration(self._config)
        self._configuration = _hash(configuration)
        entry = self._log.append(
            "start", model=self._model, configuration=configuration, configuration_sha256=self._configuration
        )
        self._remember(entry)

    def publish(self, prediction: SlidePrediction, fingerprint: str, arrived: float) -> None:
        """Gives an answer, once: what is in the audit trail as the slide's latest is not said again.

        Args:
            prediction: The answer.
            fingerprint: Of the slide's content; empty where it can't be read.
            arrived: When the slide came, by the clock.

        Raises:
            OSError: It can't be written.
        """
        page = self._out / "slides" / f"{prediction.slide_id}.html"
        answer = {name: value for name, value in prediction.to_json().items() if name not in _BESIDE}
        status = "abstained" if prediction.decision == ABSTAIN else "decided"
        content: dict[str, Any] = {
            "slide_id": prediction.slide_id,
            "fingerprint": fingerprint,
            "model": self._model,
            "configuration_sha256": self._configuration,
            "answer": {"status": status if prediction.prediction else "failed", **answer},
        }
        key, entry = self._given.get(prediction.slide_id, ("", {}))
        if key != _hash(content):
            entry = self._log.append("answer", **content)
            self._remember(entry)
            self._metrics.waited(self._clock() - arrived)
        self._outbox.put(
            prediction.slide_id,
            {
                "schema": _ANSWER_SCHEMA,
                "utc": entry["utc"],
                **content,
                "case_id": prediction.case_id,
                "page": page.relative_to(self._out).as_posix() if page.is_file() else "",
                "audit": {"seq": entry["seq"], "sha256": entry["sha256"]},
            },
        )
        beat()

    def took(self, stage: str, seconds: float) -> None:
        """Counts the seconds of a stage of one slide."""
        self._metrics.took(stage, seconds)

    def looked(self, waiting: int, oldest: float | None, seen: Iterable[WatchedSlide]) -> None:
        """Says what lies in the folder, and hands answers on.

        Args:
            waiting: Slides without an answer.
            oldest: When the one came that waits longest, by the clock; None = none waits.
            seen: Those with one, or in quarantine.
        """
        beat()
        self._metrics.looked({**Counter(slide.status for slide in seen), "waiting": waiting}, oldest)
        self._metrics.delivered(*self._outbox.deliver())

    def _remember(self, entry: Mapping[str, Any]) -> None:
        self._metrics.answered(entry)
        if entry["event"] == "answer":
            content = {
                name: entry[name]
                for name in ("slide_id", "fingerprint", "model", "configuration_sha256", "answer")
            }
            seen = {name: entry[name] for name in ("utc", "seq", "sha256")}
            self._given[entry["slide_id"]] = (_hash(content), seen)
            beside = {"slide_id": entry["slide_id"], "case_id": "", "model": entry["model"]}
            self.answers[entry["slide_id"]] = SlidePrediction.from_json({**entry["answer"], **beside})

    def _keep_writing(self) -> None:
        ended = False
        while not ended:  # once more at the end
            ended = self._stop.wait(_METRICS_INTERVAL_S)
            self._metrics.write(self.files["metrics"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()


def _configuration(config: PredictConfig) -> dict[str, Any]:
    """What an answer depends on besides slide and model; tables by their content, nothing by its path."""
    tables = {name: getattr(config, name) for name in ("mpp_table", "cases", "known_failures")}
    return {
        **rules(config),
        "default_mpp": config.default_mpp,
        "device": config.device,
        **{name: None if path is None else sha256_file(path) for name, path in tables.items()},
    }


def _hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
