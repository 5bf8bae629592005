"""The private codes of the results, scheme ``99WSINCMI``, where DICOM and SNOMED CT have none.

``docs/reference/dicom-codes.md`` lists them for readers of the objects.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from highdicom.sr import CodedConcept

SCHEME = "99WSINCMI"
SCHEME_NAME = "wsi-ncmi, codes of tile values and slide answers"

_MAX_MEANING = 64  # of a Long String (DICOM PS3.5, 6.2); in bytes, as not all that reads it knows UTF-8

PRIVATE_CODES = {
    "attention": "Attention",
    "prediction": "Most probable class",
    "decision": "Decision",
    "abstain": "Abstained",
    "reason": "Reason of abstention",
    "confidence": "Confidence as supported by validation",
    "agreement": "Share of models that agree",
    "tiles": "Number of tiles",
    "ood": "Out-of-distribution finding",
    "ood_detail": "Out-of-distribution finding in words",
    "ood_score": "Distance from the training slides, multiple of the bound",
    "few_tiles": "Too few tiles",
    "resolution": "Other resolution than the training slides",
    "stain": "Other colours than the training slides",
    "features": "Mean embedding far from the training slides",
    "foreign_tiles": "Many tiles unlike the training tiles",
    "use": "Intended use",
    "limits": "Limits",
}
"""Value → meaning."""

CLASS_CODES = {"c": "{}", "p": "Probability of {}", "e": "Evidence for {}"}
"""First letter → meaning of the codes of a class; the rest of a code is the start of a hash of its name."""


def private_code(value: str) -> CodedConcept:
    """One of :data:`PRIVATE_CODES`."""
    return _concept(value, PRIVATE_CODES[value])


def class_code(letter: str, name: str) -> CodedConcept:
    """The code of a class (``c``), of its probability (``p``) or of a tile's evidence for it (``e``).

    Code values have at most 16 characters and class names may have any, so that the value is the letter and
    12 hex digits of the SHA-256 of the name: another class is another code, in every model.
    """
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    return _concept(f"{letter}-{digest}", CLASS_CODES[letter].format(name))


def plain_text(text: str, most_bytes: int = _MAX_MEANING) -> str:
    """A text as a DICOM string may hold it: no backslash (it parts values), not too long."""
    text = text.replace("\\", "/").strip() or "-"
    encoded = text.encode()
    return text if len(encoded) <= most_bytes else encoded[: most_bytes - 3].decode("utf-8", "ignore") + "…"


def _concept(value: str, meaning: str) -> CodedConcept:
    from highdicom.sr import CodedConcept

    return CodedConcept(value, SCHEME, plain_text(meaning))
