"""Features and labels as a dataset of PyTorch, for training loops of one's own."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from wsi_ncmi.cohorts import Cohort, empty_bags, match_features, open_bag_source, order_classes, read_labels
from wsi_ncmi.core.arguments import as_tensor, described
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.values import is_empty


@dataclass(frozen=True)
class _Slides:
    ids: tuple[str, ...]
    classes: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()
    case_ids: tuple[str, ...] = ()


class FeatureDataset(Dataset[tuple[Tensor, int | str]]):
    """The slides of a folder of features, one item a slide: (features, label).

    Any features that ``train`` takes: ours, CLAM's, TRIDENT's, STAMP's, a packed ``.npz``. Slides without
    tiles or without a label are left out. Files are read when an item is asked for, also in the processes of
    a ``DataLoader``.

    Args:
        features: Folder or file.
        labels: CSV or ``adapter:FILE`` as ``train`` takes it, or slide id → class; None takes the labels
            inside a packed file; without any, an item is (features, slide id).
        classes: All classes in the order of their numbers; None = as ``train`` orders them, or sorted.
        slide_ids: Only these slides, in this order: a part of a fold.

    Attributes:
        slide_ids: The slides, in order.
        classes: Class names; a label is a position in them.
        labels: The label of each slide; empty without labels.
        case_ids: The patient of each slide, for a split that keeps patients together; empty where unknown.
        in_features: Width D of the features.

    Raises:
        InputError: No such features or labels, a class that is not among ``classes``, or a slide without
            features.

    Example:
        >>> dataset = FeatureDataset("out/features/uni_v1", "labels.csv")  # doctest: +SKIP
        >>> loader = DataLoader(dataset, batch_size=8, shuffle=True, collate_fn=collate)  # doctest: +SKIP
        >>> for features, lengths, labels in loader:  # doctest: +SKIP
        ...     loss = criterion(model(features, lengths=lengths), labels)
    """

    def __init__(
        self,
        features: str | Path,
        labels: str | Path | Mapping[str, Any] | None = None,
        *,
        classes: Sequence[str] | None = None,
        slide_ids: Iterable[str] | None = None,
    ) -> None:
        if not isinstance(features, str | Path):
            raise InputError(
                f"Features are given by the path of a folder or file, got {described(features)}."
            )
        if not Path(features).exists():
            raise InputError(f"There is no file or folder of features {features}.")
        self._source = open_bag_source(Path(features))
        self.in_features = int(self._source.width)
        if classes is not None and (isinstance(classes, str) or len({*map(str, classes)}) < len(classes)):
            raise InputError(f"Classes are a list of names, each once, got {classes!r}.")
        found = self._labelled(labels, classes)
        if slide_ids is not None:
            found = _chosen(found, tuple(slide_ids), str(features))
        if not found.ids:
            raise InputError(f"{features} has no slide with tiles and a label.")
        self.slide_ids, self.classes = found.ids, found.classes
        self.labels, self.case_ids = found.labels, found.case_ids

    def _labelled(self, labels: Any, classes: Sequence[str] | None) -> _Slides:
        empty = set(empty_bags(self._source))
        ids = tuple(slide_id for slide_id in self._source.slide_ids if slide_id not in empty)
        if isinstance(labels, Mapping):
            known = {
                str(slide_id): str(label) for slide_id, label in labels.items() if not is_empty(str(label))
            }
            names = tuple(map(str, classes)) if classes is not None else order_classes(known.values())
            if wrong := set(known.values()) - set(names):
                raise InputError(f"The class {min(wrong)!r} is not among the classes {', '.join(names)}.")
            if missing := [slide_id for slide_id in known if slide_id not in ids]:
                raise InputError(f"{self._source.path} has no features of slide {missing[0]!r}.")
            kept = tuple(slide_id for slide_id in ids if slide_id in known)
            return _Slides(kept, names, tuple(names.index(known[slide_id]) for slide_id in kept))
        cohort: Cohort | None
        if labels is None:
            cohort = self._source.embedded_cohort("slide_id")
        elif isinstance(labels, str | Path):
            cohort = read_labels(labels, group="slide_id", classes=classes)
        else:
            raise InputError(f"Labels are the path of a table, or slide id → class, got {described(labels)}.")
        if cohort is None:
            return _Slides(ids)
        matched = match_features(cohort, self._source).cohort
        index = matched.class_index
        rows = matched.rows
        return _Slides(
            matched.slide_ids,
            matched.classes,
            tuple(index[row.label] for row in rows),
            () if cohort.case_id_assumed else tuple(row.case_id for row in rows),
        )

    def __len__(self) -> int:
        return len(self.slide_ids)

    def __getitem__(self, position: int) -> tuple[Tensor, int | str]:
        """Features float32 (N, D) of a slide, and its label (its id where there are no labels)."""
        slide_id = self.slide_ids[position]
        features = torch.from_numpy(self._source.load(slide_id)).float()
        return features, self.labels[position] if self.labels else slide_id

    def __repr__(self) -> str:
        counts = ", ".join(f"{name} {self.labels.count(n)}" for n, name in enumerate(self.classes))
        return f"<FeatureDataset {len(self)} slides × {self.in_features} features: {counts or 'no labels'}>"


class PaddedBags(NamedTuple):
    """A batch of a ``DataLoader``.

    Attributes:
        features: Bags side by side, (B, N, D), zeros behind the end of each.
        lengths: Instances of each bag, int64 (B,).
        labels: int64 (B,), or what the items had in their place.
    """

    features: Tensor
    lengths: Tensor
    labels: Any


def collate(items: Sequence[tuple[Tensor, Any]]) -> PaddedBags:
    """Brings items of a :class:`FeatureDataset` together: ``DataLoader(dataset, collate_fn=collate)``.

    The batch is what ``model(features, lengths=lengths)`` takes.

    Raises:
        InputError: No items, or no bags of one width.
    """
    if not items:
        raise InputError("A batch needs at least one bag; got none.")
    if any(not isinstance(item, tuple | list) or len(item) != 2 for item in items):
        raise InputError(f"The items of a batch are pairs (features, label), got {described(items[0])}.")
    bags = [as_tensor(bag, "A bag of a batch", "(N, D)") for bag, _ in items]
    labels = [label for _, label in items]
    if any(bag.ndim != 2 or bag.shape[1] != bags[0].shape[1] for bag in bags):
        raise InputError(
            f"The bags of a batch are (N, D) of one width, got {', '.join(map(described, bags))}."
        )
    lengths = torch.tensor([len(bag) for bag in bags])
    padded = torch.nn.utils.rnn.pad_sequence(bags, batch_first=True)
    try:
        return PaddedBags(padded, lengths, torch.tensor([operator.index(label) for label in labels]))
    except TypeError:  # names
        return PaddedBags(padded, lengths, labels)


def _chosen(found: _Slides, slide_ids: tuple[str, ...], where: str) -> _Slides:
    place = {slide_id: n for n, slide_id in enumerate(found.ids)}
    if missing := [slide_id for slide_id in slide_ids if slide_id not in place]:
        raise InputError(f"{where} has no slide {missing[0]!r} with tiles and a label.")
    rows = [place[slide_id] for slide_id in slide_ids]
    return _Slides(
        slide_ids,
        found.classes,
        tuple(found.labels[n] for n in rows) if found.labels else (),
        tuple(found.case_ids[n] for n in rows) if found.case_ids else (),
    )
