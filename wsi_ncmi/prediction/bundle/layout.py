"""What lies in a bundle, under which names; every other file is refused."""

from __future__ import annotations

import re

__all__ = [
    "CARD",
    "MANIFEST",
    "MEMBERS",
    "MOST_BYTES",
    "REFERENCE",
    "SCHEMA",
    "SUMS",
    "is_known_name",
]

SCHEMA = "wsi-ncmi-bundle/1"
"""Name and version of the layout."""

MANIFEST = "bundle.json"
CARD = "MODEL_CARD.md"
SUMS = "SHA256SUMS"
"""The hashes of all other files, as ``sha256sum --check`` reads them."""

REFERENCE = "reference.safetensors"
"""Statistics of the training slides, for telling slides that are unlike them."""

MEMBERS = "members"

MOST_BYTES = 8 << 30
"""A bundle that claims to be larger is refused before it is read into memory."""

_MEMBER = r"[A-Za-z0-9._-]+"
_KNOWN = re.compile(
    rf"(?:{re.escape(MANIFEST)}|{re.escape(CARD)}|{re.escape(SUMS)}|{re.escape(REFERENCE)}"
    rf"|{MEMBERS}/{_MEMBER}/model\.(?:json|safetensors)"
    rf"|portable/{_MEMBER}\.(?:onnx|torchscript))"
)


def is_known_name(name: str) -> bool:
    """Whether a file of this path below the bundle has a place in one."""
    return _KNOWN.fullmatch(name) is not None and ".." not in name.split("/")
