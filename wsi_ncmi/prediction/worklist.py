"""The slides of a prediction job as a list to work through: those that need a person first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import parse_json
from wsi_ncmi.extraction.contact_sheet import ContactCard, contact_cards
from wsi_ncmi.prediction.calibration import Calibration
from wsi_ncmi.prediction.pages import other_model
from wsi_ncmi.prediction.slide_prediction import ABSTAIN, SlidePrediction
from wsi_ncmi.prediction.verdicts import VERDICTS_FILE, Verdict, latest_verdicts, read_verdicts

ANSWERS_FILE = "predictions.json"
PAGE_ROWS = 50


@dataclass(frozen=True)
class Answers:
    """Answers of one model, from ``predictions.json``.

    Attributes:
        model: Its name.
        digest: Its digest.
        classes: Its classes.
        slides: Slide id → answer.
        calibration: How probabilities are read out.
    """

    model: str
    digest: str
    classes: tuple[str, ...]
    slides: Mapping[str, SlidePrediction]
    calibration: Calibration

    @classmethod
    def read(cls, folder: Path) -> Answers:
        """Reads the answers of an output folder of ``predict``.

        Raises:
            InputError: It holds none.
        """
        path = folder / ANSWERS_FILE
        try:
            content = parse_json(path.read_bytes())
            model = content["model"]
            answers = [SlidePrediction.from_json(answer) for answer in content["slides"]]
            return cls(
                str(model["name"]),
                str(model["digest"]),
                tuple(map(str, model["classes"])),
                {answer.slide_id: answer for answer in answers},
                Calibration.from_json(content["calibration"], path.name),
            )
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise InputError(
                f"{path} can't be read as answers of predict ({reason}); give a slide, or an output folder "
                "of wsi-ncmi predict."
            ) from error

    def given_by(self, answer: SlidePrediction) -> tuple[str, str]:
        """Name and digest of the model that gave an answer; it may be an earlier one."""
        return answer.model.get("name", self.model), answer.model.get("digest", self.digest)

    def row(self, slide_id: str) -> dict[str, Any] | None:
        """One answer for a page; None where the model has none."""
        answer = self.slides.get(slide_id)
        if answer is None:
            return None
        shown = answer.read_out(self.calibration)
        return {
            "prediction": answer.prediction,
            "decision": answer.decision,
            "shown": shown.get(answer.prediction, ""),
            "chances": shown,
            "by": other_model(answer, self.digest),
            "agreement": answer.agreement,
            "tiles": answer.tiles,
            "flags": [name.replace("_", " ") for name in answer.flag_names],
            "words": [flag.words for flag in answer.flags],
            "reason": answer.reason,
        }


@dataclass(frozen=True)
class Entry:
    """One slide of the list.

    Attributes:
        answer: The model's answer.
        remark: What the extraction remarked of the slide's quality.
        verdict: The latest verdict on it.
        other: Another model's answer.
    """

    answer: SlidePrediction
    remark: str
    verdict: Verdict | None
    other: SlidePrediction | None

    @property
    def needs(self) -> str:
        """Why a person must look at it; empty where nothing asks for one."""
        if not self.answer.prediction:
            return "no answer"
        if self.answer.decision == ABSTAIN:
            return "abstained"
        if self.answer.flags:
            return "out of distribution"
        return "quality" if self.remark else ""

    @property
    def differs(self) -> bool:
        """Whether the other model says something else."""
        return self.other is not None and self.other.decision != self.answer.decision

    @cached_property
    def text(self) -> str:
        """What a search looks into."""
        answer, verdict = self.answer, self.verdict
        said = (verdict.verdict, verdict.label, verdict.comment, verdict.initials) if verdict else ()
        flags = (name.replace("_", " ") for name in answer.flag_names)
        parts = (answer.slide_id, answer.case_id, answer.prediction, answer.decision, answer.reason, *flags)
        return "\n".join((*parts, self.needs, self.remark, *said)).casefold()

    @property
    def urgency(self) -> tuple[int, float]:
        """The smaller, the earlier a person should look at it."""
        rank = _NEEDS.index(self.needs)
        answer = self.answer
        return rank, -(answer.ood_score or 0.0) if rank == 1 else answer.confidence or 0.0


_NEEDS = ("no answer", "abstained", "out of distribution", "quality", "")
SORTS: Mapping[str, Callable[[Entry], Any]] = {
    "person": lambda entry: entry.urgency,
    "slide": lambda entry: (),
    "patient": lambda entry: entry.answer.case_id,
    "class": lambda entry: (entry.answer.prediction, -(entry.answer.confidence or 0.0)),
    "probability": lambda entry: entry.answer.confidence or 0.0,
    "ood": lambda entry: -(entry.answer.ood_score or 0.0),
}
"""What the list can be sorted by; then by slide."""

SHOWS: Mapping[str, Callable[[Entry], bool]] = {
    "all": lambda entry: True,
    "person": lambda entry: bool(entry.needs),
    "open": lambda entry: entry.verdict is None,
    "disagree": lambda entry: entry.verdict is not None and entry.verdict.verdict != "agree",
    "differ": lambda entry: entry.differs,
}
"""Parts of the list."""


class Worklist:
    """The slides of an output folder; read anew when its files change, as ``predict --watch`` does it.

    Args:
        folder: Output folder of ``predict``.
        extracted: Folder with ledger and thumbnails; that of ``--cache`` where predict had one.
        against: Output folder of another model for the same slides.

    Raises:
        InputError: A folder without answers, a damaged ledger, or a damaged table of verdicts.
    """

    def __init__(self, folder: Path, extracted: Path, against: Path | None = None) -> None:
        self.folder, self.extracted, self.against = folder, extracted, against
        self._reading = threading.Lock()
        self._seen: tuple[Any, Any] = (None, None)
        self._refresh()

    @property
    def entries(self) -> Mapping[str, Entry]:
        """Slide id → entry, of now."""
        self._refresh()
        return self._entries

    def _refresh(self) -> None:
        others = [self.against / ANSWERS_FILE] if self.against else []
        answers = _signature(self.folder / ANSWERS_FILE, self.extracted / "ledger.csv", *others)
        table = self.folder / VERDICTS_FILE
        verdicts = _signature(table)
        with self._reading:
            if answers != self._seen[0]:
                self.answers = Answers.read(self.folder)
                self.other = None if self.against is None else Answers.read(self.against)
                self._remarks = {card.row.slide_id: _remark(card) for card in contact_cards(self.extracted)}
            if (answers, verdicts) != self._seen:
                self.verdicts: Sequence[Verdict] = read_verdicts(table) if table.is_file() else ()
                latest = latest_verdicts(self.verdicts)
                others_said = {} if self.other is None else self.other.slides
                self._entries = {
                    slide_id: Entry(
                        answer,
                        self._remarks.get(slide_id, ""),
                        latest.get(slide_id),
                        others_said.get(slide_id),
                    )
                    for slide_id, answer in self.answers.slides.items()
                }
                entries = self._entries.values()
                self._counts = {name: sum(map(is_shown, entries)) for name, is_shown in SHOWS.items()}
            self._seen = answers, verdicts

    def select(self, query: Mapping[str, str], keep: str = "") -> list[str]:
        """Ids of the slides that a query asks for, in its order.

        Args:
            query: ``search`` (words that must all be there), ``show``, ``sort`` and ``order=down``; what is
                unknown in it is as if it weren't there.
            keep: A slide that is there in any case.
        """
        words = query.get("search", "").casefold().split()
        is_shown = SHOWS.get(query.get("show", ""), SHOWS["all"])
        key = SORTS.get(query.get("sort", ""), SORTS["person"])
        found = [
            (key(entry), slide_id)
            for slide_id, entry in self.entries.items()
            if slide_id == keep or (is_shown(entry) and all(word in entry.text for word in words))
        ]
        found.sort(reverse=query.get("order") == "down")
        return [slide_id for _, slide_id in found]

    def page(self, query: Mapping[str, str]) -> dict[str, Any]:
        """A page of the list, JSON-ready; ``page`` of the query counts from 0."""
        selected = self.select(query)
        number = (
            int(query["page"]) if query.get("page", "").isascii() and query.get("page", "").isdigit() else 0
        )
        pages = max(1, -(-len(selected) // PAGE_ROWS))
        number = min(number, pages - 1)
        shown = selected[number * PAGE_ROWS : (number + 1) * PAGE_ROWS]
        return {
            "model": self.answers.model,
            "other": None if self.other is None else self.other.model,
            "total": len(selected),
            "page": number,
            "pages": pages,
            "counts": self._counts,
            "rows": [self.row(slide_id) for slide_id in shown],
        }

    def row(self, slide_id: str) -> dict[str, Any]:
        """One slide, JSON-ready."""
        entry = self.entries[slide_id]
        return {
            "id": slide_id,
            "case": entry.answer.case_id,
            **(self.answers.row(slide_id) or {}),
            "needs": entry.needs,
            "remark": entry.remark,
            "verdict": "" if entry.verdict is None else entry.verdict.verdict,
            "other": None if self.other is None else self.other.row(slide_id),
            "differs": entry.differs,
        }


def _signature(*paths: Path) -> tuple[tuple[int, int] | None, ...]:
    """What changes with the files."""
    return tuple((path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else None for path in paths)


def _remark(card: ContactCard) -> str:
    """What the ledger says of a slide's quality, where it is worth a look."""
    if card.row.status == "failed":
        return ""
    parts = [card.reason] if card.reason else []
    if card.severity == 2:
        parts += [f"{card.row.failed_reads} tiles can't be read"] * bool(card.row.failed_reads)
        parts += [f"artefacts in {card.artifacts} tiles"] * bool(card.artifacts)
    return "; ".join(parts)
