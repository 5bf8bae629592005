"""Verdicts of pathologists on a model's answers: ``verdicts.csv``, and how far the model agrees with them."""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from wsi_ncmi.core.errors import InputError, counted
from wsi_ncmi.core.tables import Table, read_table
from wsi_ncmi.core.values import printable, tidy

VERDICTS_FILE = "verdicts.csv"
VERDICTS = ("agree", "disagree", "unsure")
"""About the most probable class, whether or not the model abstained."""

_MAX_COMMENT, _MAX_INITIALS = 2000, 12
_TAIL_BYTES = 1 << 16


@dataclass(frozen=True)
class Verdict:
    """One person's verdict on one answer.

    Attributes:
        slide_id: The slide.
        case_id: Its patient, where known.
        prediction: The answer that was shown; empty where there was none.
        decision: The same, or ``abstain``.
        verdict: One of ``VERDICTS``.
        label: The class that the person sees: that of the answer where they agree, empty where unknown.
        comment: What they had to say.
        initials: Who.
        time: When, in UTC.
        model: Name of the model that answered.
        model_digest: Its digest.
    """

    slide_id: str
    case_id: str
    prediction: str
    decision: str
    verdict: str
    label: str
    comment: str
    initials: str
    time: str
    model: str
    model_digest: str


_COLUMNS = tuple(field.name for field in fields(Verdict))


def checked_entries(
    content: Mapping[str, Any], prediction: str, classes: Sequence[str]
) -> tuple[str, str, str, str]:
    """Verdict, label, comment and initials as a page sent them, in order.

    Args:
        content: ``verdict``, ``label``, ``comment`` and ``initials``.
        prediction: The answer that they are about; empty where there is none.
        classes: Classes of the model.

    Raises:
        InputError: One of them can't stand in the table.
    """
    texts = {name: content.get(name, "") for name in ("verdict", "label", "comment", "initials")}
    if not all(isinstance(text, str) for text in texts.values()):
        raise InputError("A verdict is made of texts.")
    verdict, label, comment, initials = (printable(" ".join(tidy(t).split())) for t in texts.values())
    if verdict not in VERDICTS:
        raise InputError("Choose agree, disagree or unsure.")
    if verdict != "unsure" and not prediction:
        raise InputError(
            "There is no answer to agree or disagree with; choose unsure, and say more in the comment."
        )
    if verdict == "disagree" and label and (label not in classes or label == prediction):
        raise InputError(f"The class {label!r} is none that the answer {prediction!r} could be mistaken for.")
    if not initials or len(initials) > _MAX_INITIALS:
        raise InputError(f"Give your initials, at most {_MAX_INITIALS} letters.")
    if len(comment) > _MAX_COMMENT:
        raise InputError(f"The comment has {len(comment)} letters; at most {_MAX_COMMENT} fit.")
    return verdict, {"agree": prediction, "disagree": label}.get(verdict, ""), comment, initials


def append_verdict(path: Path, verdict: Verdict) -> None:
    """Adds a row and waits until it is on the disk; no row that is there is changed.

    Several viewers may share the file. What a full disk took in part is taken back.

    Raises:
        InputError: The file has other columns.
        OSError: It can't be written to.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        size = os.fstat(descriptor).st_size
        head = _line(_COLUMNS)
        if size:
            if os.pread(descriptor, len(head), 0) != head:
                raise InputError(f"{path.name} has other columns than those of this version; move it away.")
            tail = os.pread(descriptor, _TAIL_BYTES, max(0, size - _TAIL_BYTES)).rpartition(b"\n")[2]
            # A row that a power failure tore spoils no other: it is ended, and a text in it closed.
            head = b"" if not tail else b'"\n' if tail.count(b'"') % 2 else b"\n"
        line = head + _line(astuple(verdict))
        try:
            if os.write(descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)


def _line(values: Iterable[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue().encode()


def read_verdicts(path: Path) -> tuple[Verdict, ...]:
    """All verdicts in the order in which they were given; the latest on a slide counts.

    Rows that a power failure tore are left out.

    Raises:
        InputError: The file can't be read, has no verdict, or one that isn't known.
    """
    table = read_table(path)
    table.require(_COLUMNS)
    whole = [row for row in table.rows if set(_COLUMNS) <= set(row.values)]
    for row in whole:
        if row.values["verdict"] not in VERDICTS:
            raise table.problem(row, "verdict", f"it is none of {', '.join(VERDICTS)}")
    return tuple(Verdict(**{name: row.values[name] for name in _COLUMNS}) for row in whole)


def latest_verdicts(verdicts: Iterable[Verdict]) -> dict[str, Verdict]:
    """Slide id → its latest verdict."""
    return {verdict.slide_id: verdict for verdict in verdicts}


def agreement(table: Table, verdicts: Iterable[Verdict], *, resamples: int, seed: int) -> dict[str, Any]:
    """How often pathologists agreed with the answers of a predictions table.

    The latest verdict on a slide counts, if it was about the answer that the table has.

    Args:
        table: With ``slide_id`` and ``prediction``; ``decision`` and ``case_id`` where known.
        verdicts: All of them.
        resamples: Draws of patients for the intervals.
        seed: Seed of the draws.

    Returns:
        JSON-ready: ``slides`` with an answer, ``other_answer`` (verdicts about another one), counts and
        agreement of all, ``groups`` (decided and abstained, each class, each person) with the same, and
        ``disagreed``: answer → class given instead → count.

    Raises:
        InputError: A column is missing.
    """
    table.require(("slide_id", "prediction"))
    latest = latest_verdicts(verdicts)
    # Not row["…"]: a slide or class may be called what else means "no value".
    answers = {row.values["slide_id"]: row for row in table.rows if row.values["prediction"]}
    judged = [
        (latest[name], f"case {row['case_id']}" if row["case_id"] else name, row["decision"] == "abstain")
        for name, row in answers.items()
        if name in latest and latest[name].prediction == row.values["prediction"]
    ]
    groups: dict[str, list[tuple[Verdict, str, bool]]] = {}
    for each in judged:
        verdict, _, abstained = each
        for name in (
            "abstained" if abstained else "decided",
            f"class {verdict.prediction}",
            f"by {verdict.initials}",
        ):
            groups.setdefault(name, []).append(each)
    disagreed: dict[str, Counter[str]] = {}
    for verdict, *_ in judged:
        if verdict.verdict == "disagree":
            disagreed.setdefault(verdict.prediction, Counter())[verdict.label] += 1
    return {
        "slides": len(answers),
        "other_answer": len(latest.keys() & answers.keys()) - len(judged),
        **_share(judged, resamples, seed),
        "groups": {name: _share(members, resamples, seed) for name, members in sorted(groups.items())},
        "disagreed": {name: dict(counts) for name, counts in sorted(disagreed.items())},
    }


def _share(judged: Sequence[tuple[Verdict, str, bool]], resamples: int, seed: int) -> dict[str, Any]:
    """Counts of verdicts, and the share of ``agree`` in those that are not ``unsure``, with its interval."""
    from wsi_ncmi.metrics import bootstrap

    counts = Counter(verdict.verdict for verdict, *_ in judged)
    sure = [(int(v.verdict == "agree"), patient) for v, patient, _ in judged if v.verdict != "unsure"]
    found: dict[str, Any] = {name: counts[name] for name in VERDICTS}
    if not sure:
        return {**found, "agreement": None}
    agreed, patients = zip(*sure, strict=True)
    share = bootstrap(
        "accuracy", [1] * len(sure), agreed, patients, resamples=resamples, seed=seed, classes=[0, 1]
    )
    ends = {name: getattr(share, name) for name in ("value", "ci_low", "ci_high")}
    return {**found, "agreement": {n: None if math.isnan(end) else end for n, end in ends.items()}}


def agreement_note(found: Mapping[str, Any]) -> str:
    """The agreement in a sentence or two."""
    share = found["agreement"]
    sure = found["agree"] + found["disagree"]
    said = f"{counted(found['unsure'], 'verdict')} unsure, {found['slides'] - sure - found['unsure']} of "
    said += f"{counted(found['slides'], 'slide')} without one"
    if found["other_answer"]:
        said += f" ({found['other_answer']} judged when the answer was another)"
    if share is None:
        return f"No verdict agrees or disagrees with an answer; {said}."
    ends = [share["ci_low"], share["ci_high"]]
    interval = "" if None in ends else " (95 % CI {:.1f}–{:.1f} %)".format(*(100 * end for end in ends))
    return (
        f"Pathologists agreed with {found['agree']} of {sure} answers, {100 * share['value']:.1f} %"
        f"{interval}; {said}. They saw the answers and may have chosen the slides, so this is no accuracy."
    )
