"""Slide extensions, and the ids of slides by their file names."""

import hashlib
from collections import Counter
from collections.abc import Sequence

FLAT_EXTENSIONS = (".png", ".jpg", ".jpeg")
"""Flat images: one level, no resolution of their own."""

SLIDE_EXTENSIONS = (
    ".ome.tiff", ".ome.tif", ".svslide", ".qptiff", ".tiff", ".mrxs", ".ndpi", ".svs", ".tif", ".btf", ".scn",
    ".bif", ".vms", ".vmu", ".czi", ".dcm", *FLAT_EXTENSIONS,
)  # fmt: skip
"""Lower-case extensions of the files that an inventory lists, longer ones first where one ends another."""

_MAX_ID_BYTES = 180


def has_slide_extension(name: str) -> bool:
    """True if a file name ends like a slide's (upper or lower case)."""
    return name.lower().endswith(SLIDE_EXTENSIONS)


def slide_id_of(name: str) -> str:
    """The id of a slide from its file's name: without the slide extension, and only that.

    TCGA names contain dots, so anything else that looks like an extension stays.

    Args:
        name: A file name without folders, or an id (which is returned as it is).

    Returns:
        The id; a name of nothing but dots becomes underscores, because ids become file names.
    """
    lower = name.lower()
    for extension in SLIDE_EXTENSIONS:
        if lower.endswith(extension) and len(name) > len(extension):
            name = name[: -len(extension)]
            break
    return name if name.strip(".") else "_" * max(len(name), 1)


def assign_slide_ids(relative_paths: Sequence[str]) -> list[str]:
    """Gives every file of a job an id of its own.

    A name that only one file has is its id. Files that share a name get their path below the root with
    ``/`` as ``__`` (still without extension); where even that is shared (``a.svs`` beside ``a.tif``), the
    extension stays; in the last resort a hash of the path is added, as it is to paths too long for a file
    name.

    Args:
        relative_paths: Paths below the root with ``/``, each once.

    Returns:
        One id a path, all different, independent of the order of the paths.
    """
    ways = (
        lambda path: slide_id_of(path.rsplit("/", 1)[-1]),
        lambda path: _short(slide_id_of(path.replace("/", "__")), path),
        lambda path: _short(path.replace("/", "__"), path),
        lambda path: _short(f"{path.replace('/', '__')}.{_digest(path)}", path),
    )
    step = dict.fromkeys(relative_paths, 0)
    while True:
        ids = {path: ways[step[path]](path) for path in relative_paths}
        count = Counter(ids.values())
        shared = [path for path in relative_paths if count[ids[path]] > 1 and step[path] < len(ways) - 1]
        if not shared:
            return [ids[path] for path in relative_paths]
        for path in shared:
            step[path] += 1


def _short(name: str, path: str) -> str:
    if len(name.encode("utf-8", "surrogateescape")) <= _MAX_ID_BYTES:
        return name
    return f"{name[: _MAX_ID_BYTES // 4]}.{_digest(path)}"


def _digest(path: str) -> str:
    return hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:12]
