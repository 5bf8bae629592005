"""Contact sheet of a job: a thumbnail of every slide on one page, those with problems first.

Pictures are linked, relative to the page, and loaded when they come into view; the page needs no network and
works for thousands of slides. It can be made anew at any time from the files in the output folder.
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from urllib.parse import quote

from wsi_ncmi.core.files import write_text
from wsi_ncmi.extraction.ledger import ALREADY_EXTRACTED, LedgerRow, merge_rows, read_journal, read_or_rebuild
from wsi_ncmi.features.paths import contact_sheet_path, thumbnail_path
from wsi_ncmi.features.storage import translate_os_errors
from wsi_ncmi.features.thumbnails import COLOURS
from wsi_ncmi.tissue import ARTIFACT_KINDS

_MANY_ARTIFACTS = 0.2
_MANY_FAILED = 0.05
# Folders of an absolute path, on any system: they name people and hosts.
_FOLDERS = re.compile(r"(?<![\w.…:/\\])(?:[A-Za-z]:)?(?:[/\\][^\s/\\:;,'\"]+)+[/\\](?=[^\s/\\])")


@dataclass(frozen=True)
class ContactCard:
    """One slide on the sheet.

    Attributes:
        row: Its ledger row; of a slide that was extracted before, with the reason of then.
        thumbnail: Address of its thumbnail relative to the page; empty when there is none.
    """

    row: LedgerRow
    thumbnail: str

    @cached_property
    def severity(self) -> int:
        """3 failed, 2 tiles are missing, 1 a remark, 0 sound."""
        row = self.row
        if row.status == "failed":
            return 3
        selected = row.tiles + row.failed_reads + row.artifact_tiles
        if (
            not row.tiles
            or row.failed_reads > _MANY_FAILED * selected
            or self.artifacts > _MANY_ARTIFACTS * selected
        ):
            return 2
        return 1 if self.reason or row.failed_reads or self.artifacts else 0

    @property
    def artifacts(self) -> int:
        """Tiles in which artefacts were found, kept or dropped."""
        return max(self.row.artifacts_found, self.row.artifact_tiles)

    @property
    def artifact_kinds(self) -> dict[str, int]:
        """Kind → tiles that show it, of the kinds that were found."""
        return {kind: count for kind in ARTIFACT_KINDS if (count := getattr(self.row, kind))}

    @property
    def status(self) -> str:
        """The severity in words."""
        if self.row.status == "failed":
            return "failed"
        return ("fine", "with a remark", "to review")[self.severity]

    @property
    def reason(self) -> str:
        """The ledger's reason without the folders of this machine."""
        return _FOLDERS.sub("…/", self.row.reason.removeprefix(ALREADY_EXTRACTED).removeprefix("; "))

    @property
    def alt(self) -> str:
        """Alternative text of the thumbnail."""
        row = self.row
        parts = [f"{row.tiles} tiles kept"]
        if kept := self.artifacts - row.artifact_tiles:
            parts.append(f"{kept} of them with artefacts")
        if row.artifact_tiles:
            parts.append(f"{row.artifact_tiles} dropped for artefacts")
        if row.failed_reads:
            parts.append(f"{row.failed_reads} unreadable")
        return f"Thumbnail of slide {row.slide_id} with the outline of its tissue: {', '.join(parts)}"


def contact_cards(out: Path, features_set: str = "") -> tuple[ContactCard, ...]:
    """Collects the cards of all slides in an output folder, the most severe first, then by id.

    Args:
        out: Output folder of one or more extraction jobs, parts of a job array included.
        features_set: Set of features; empty for the main one.

    Raises:
        InputError: A ledger in the folder is damaged.
    """
    ledgers = sorted(out.glob(f"{_stem(features_set)}.csv")) + sorted(
        out.glob(f"{_stem(features_set)}_*_of_*.csv"), key=lambda path: path.stat().st_mtime
    )
    rows = merge_rows(*(read_or_rebuild(path, out / "ledger.jsonl", features_set) for path in ledgers))
    journal = _as_made(read_journal(out / "ledger.jsonl"), features_set)
    cards = []
    for row in rows:
        file = thumbnail_path(out, row.slide_id, features_set)
        made = journal.get(row.slide_id)
        if row.status == "skipped" and made is not None and made.tiles == row.tiles:
            # The remark of the extraction is of interest here, not that the features are there since.
            kinds = {kind: getattr(made, kind) for kind in ("artifacts_found", *ARTIFACT_KINDS)}
            row = replace(row, reason=made.reason, seconds=made.seconds, **kinds)
        address = quote(file.relative_to(out).as_posix()) if file.is_file() else ""
        cards.append(ContactCard(row, address))
    return tuple(sorted(cards, key=lambda card: (-card.severity, card.row.slide_id)))


def write_contact_sheet(
    out: Path, features_set: str = "", *, cards: Sequence[ContactCard] | None = None
) -> Path:
    """Writes the contact sheet of an output folder, atomically.

    Args:
        out: The folder; its ledger is written.
        features_set: Set of features; empty for the main one.
        cards: Cards to show; None collects them from the folder.

    Returns:
        The page.

    Raises:
        InputError: A ledger in the folder is damaged.
        JobStoppedError: The folder can't be written to.
    """
    from wsi_ncmi.core.pages import page_environment

    shown = contact_cards(out, features_set) if cards is None else cards
    environment = page_environment("wsi_ncmi.extraction", trim=False)
    script = (resources.files("wsi_ncmi.extraction") / "templates" / "contact_sheet.js").read_text("utf-8")
    path = contact_sheet_path(out, features_set)
    html = environment.get_template("contact_sheet.html").render(
        cards=shown,
        counts=_counts(shown),
        artifacts=[(kind, sum(kind in card.artifact_kinds for card in shown)) for kind in ARTIFACT_KINDS],
        tiles=sum(card.row.tiles for card in shown),
        features_set=features_set,
        colours=[(name, "#{:02x}{:02x}{:02x}".format(*rgb)) for name, rgb in COLOURS.items()],
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
    )
    with translate_os_errors(path):
        write_text(path, html)
    return path


def _stem(features_set: str) -> str:
    return f"ledger@{features_set}" if features_set else "ledger"


def _as_made(journal: Iterable[LedgerRow], features_set: str) -> dict[str, LedgerRow]:
    return {row.slide_id: row for row in journal if row.status == "done" and row.features_set == features_set}


def _counts(cards: Sequence[ContactCard]) -> list[tuple[str, str, int]]:
    kinds = (
        ("failed", "failed", 3),
        ("look", "to review", 2),
        ("remark", "with a remark", 1),
        ("fine", "fine", 0),
    )
    return [(key, words, sum(card.severity == severity for card in cards)) for key, words, severity in kinds]
