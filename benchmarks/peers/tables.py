"""Figures of all rounds as one table."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.peers.catalogue import OURS, PEERS
from benchmarks.peers.measure import PARTS, Part

Sample = Mapping[str, Any]
"""One run: part, case, peer, version, round, value, and what else was measured."""


def markdown(samples: Sequence[Sample]) -> str:
    """A table a part: a row a program, a column a case, the best median of a column in bold."""
    return "\n\n".join(
        table(part, [sample for sample in samples if sample["part"] == name])
        for name, part in PARTS.items()
        if any(sample["part"] == name for sample in samples)
    )


def table(part: Part, samples: Sequence[Sample]) -> str:
    """The table of one part."""
    names = [name for name in (OURS, *PEERS) if any(sample["peer"] == name for sample in samples)]
    lines = [
        f"| {part.title}, {part.unit} | {' | '.join(part.cases)} |",
        "|---" * (len(part.cases) + 1) + "|",
    ]
    best = {case: _best(part, case, samples) for case in part.cases}
    for name in names:
        version = next(sample["version"] for sample in reversed(samples) if sample["peer"] == name)
        title = "wsi-ncmi" if name == OURS else PEERS[name].title
        cells = [cell(part, case, name, samples, best[case]) for case in part.cases]
        lines.append(f"| {title} {version} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(part: Part, case: str, name: str, samples: Sequence[Sample], best: float) -> str:
    """Median, least and most of the rounds; how far ours is ahead by pairs; what goes with it."""
    own = _of(case, name, samples)
    if not own:
        return "–"
    values = [sample["value"] for sample in own.values()]
    middle = statistics.median(values)
    text = f"**{number(middle)}**" if middle == best else number(middle)
    if len(values) > 1:
        text += f" ({number(min(values))}–{number(max(values))})"
    if name != OURS and (ratio := lead(part, case, name, samples)) is not None:
        text += f", {ratio:.2f}×"
    last = list(own.values())[-1]
    if "dice" in last:
        text += f"; Dice {last['dice']:.3f}"
    if last.get("max_difference"):
        text += f"; ±{last['max_difference']:.0f}"
    return text


def lead(part: Part, case: str, name: str, samples: Sequence[Sample]) -> float | None:
    """How many times as well as the peer ours does: the median of the rounds in which both ran."""
    ours, theirs = _of(case, OURS, samples), _of(case, name, samples)
    ratios = [ours[key]["value"] / theirs[key]["value"] for key in ours.keys() & theirs.keys()]
    if not ratios:
        return None
    return statistics.median(ratios if part.more else [1 / ratio for ratio in ratios])


def number(value: float) -> str:
    """Three figures, thousands apart."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _best(part: Part, case: str, samples: Sequence[Sample]) -> float:
    medians = [
        statistics.median(sample["value"] for sample in own.values())
        for name in (OURS, *PEERS)
        if (own := _of(case, name, samples))
    ]
    return (max if part.more else min)(medians, default=0.0)


def _of(case: str, name: str, samples: Iterable[Sample]) -> dict[str, Sample]:
    """Samples of a program by round."""
    return {s["round"]: s for s in samples if s["case"] == case and s["peer"] == name}
