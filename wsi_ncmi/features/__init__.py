"""Feature files: their layout, atomic writing, proof, and the extraction of one slide into one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_ncmi._lazy import attach

if TYPE_CHECKING:  # the names below are loaded lazily at run time
    from wsi_ncmi.features.contact_sheet import write_contact_sheet as write_contact_sheet
    from wsi_ncmi.features.extraction import check_conflicts as check_conflicts
    from wsi_ncmi.features.extraction import clean_up as clean_up
    from wsi_ncmi.features.extraction import extract_slide as extract_slide
    from wsi_ncmi.features.extraction import failed_row as failed_row
    from wsi_ncmi.features.identity_difference import difference as difference
    from wsi_ncmi.features.ledger import Journal as Journal
    from wsi_ncmi.features.ledger import LedgerRow as LedgerRow
    from wsi_ncmi.features.ledger import merge_rows as merge_rows
    from wsi_ncmi.features.ledger import read_journal as read_journal
    from wsi_ncmi.features.ledger import read_ledger as read_ledger
    from wsi_ncmi.features.ledger import write_ledger as write_ledger
    from wsi_ncmi.features.paths import feature_path as feature_path
    from wsi_ncmi.features.paths import thumbnail_path as thumbnail_path
    from wsi_ncmi.features.paths import tissue_path as tissue_path
    from wsi_ncmi.features.reader import FeatureFile as FeatureFile
    from wsi_ncmi.features.reader import open_features_file as open_features_file
    from wsi_ncmi.features.reader import read_identity as read_identity
    from wsi_ncmi.features.schema import Identity as Identity
    from wsi_ncmi.features.schema import identity_of as identity_of
    from wsi_ncmi.features.task import SlideTask as SlideTask
    from wsi_ncmi.features.thumbnails import thumbnail_area as thumbnail_area
    from wsi_ncmi.features.thumbnails import undrawn_thumbnail as undrawn_thumbnail
    from wsi_ncmi.features.verify import Verdict as Verdict
    from wsi_ncmi.features.verify import verify_file as verify_file
    from wsi_ncmi.features.verify import verify_folder as verify_folder
    from wsi_ncmi.features.writer import SlideFacts as SlideFacts
    from wsi_ncmi.features.writer import write_features as write_features

_EXPORTS = {
    "FeatureFile": "wsi_ncmi.features.reader",
    "Identity": "wsi_ncmi.features.schema",
    "Journal": "wsi_ncmi.features.ledger",
    "LedgerRow": "wsi_ncmi.features.ledger",
    "SlideFacts": "wsi_ncmi.features.writer",
    "SlideTask": "wsi_ncmi.features.task",
    "Verdict": "wsi_ncmi.features.verify",
    "clean_up": "wsi_ncmi.features.extraction",
    "failed_row": "wsi_ncmi.features.extraction",
    "check_conflicts": "wsi_ncmi.features.extraction",
    "difference": "wsi_ncmi.features.identity_difference",
    "extract_slide": "wsi_ncmi.features.extraction",
    "feature_path": "wsi_ncmi.features.paths",
    "identity_of": "wsi_ncmi.features.schema",
    "merge_rows": "wsi_ncmi.features.ledger",
    "open_features_file": "wsi_ncmi.features.reader",
    "read_identity": "wsi_ncmi.features.reader",
    "read_journal": "wsi_ncmi.features.ledger",
    "read_ledger": "wsi_ncmi.features.ledger",
    "thumbnail_area": "wsi_ncmi.features.thumbnails",
    "thumbnail_path": "wsi_ncmi.features.paths",
    "tissue_path": "wsi_ncmi.features.paths",
    "undrawn_thumbnail": "wsi_ncmi.features.thumbnails",
    "verify_file": "wsi_ncmi.features.verify",
    "verify_folder": "wsi_ncmi.features.verify",
    "write_contact_sheet": "wsi_ncmi.features.contact_sheet",
    "write_features": "wsi_ncmi.features.writer",
    "write_ledger": "wsi_ncmi.features.ledger",
}

__all__ = sorted(_EXPORTS)

__getattr__, __dir__ = attach(__name__, _EXPORTS)
