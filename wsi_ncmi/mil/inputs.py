"""Bags as users hold them (a matrix, a padded batch, a list of matrices), packed for the models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from wsi_ncmi.core.arguments import as_tensor, described, whole_numbers
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.mil.bags import BagBatch

Unpack: TypeAlias = Callable[[Tensor], Tensor | list[Tensor]]
_WANTED = "(N, D) of one bag, (B, N, D) of padded bags, or a list of (N, D)"


def pack_bags(
    features: Any, *, lengths: Any = None, mask: Any = None, coords: Any = None
) -> tuple[BagBatch, Unpack]:
    """Packs bags; padding is left out, so that it can't change a result.

    Args:
        features: Tensor or array (N, D) of one bag, (ΣN, D) of bags one after the other with ``lengths``,
            (B, N, D) of padded bags, or a list of (N, D); floating point.
        lengths: Instances of each bag, (B,); the rows behind them are padding.
        mask: (B, N), True where a row is an instance; in place of ``lengths``.
        coords: Places of the instances in the layout of the features, with 2 in place of D.

    Returns:
        The batch, and a function that gives one value an instance, (ΣN,), the layout of the features: (N,),
        (B, N) with 0 for padding, or a list of (N,).

    Raises:
        InputError: They are no such bags, or don't fit together.
    """
    if lengths is not None and mask is not None:
        raise InputError("Lengths and a mask say the same of a batch; give one of them.")
    if isinstance(features, list | tuple):
        if lengths is not None or mask is not None:
            raise InputError("A list of bags has no padding; leave lengths and mask out.")
        bags = [_floats(bag, f"Bag {n} of the list", "(N, D)", (2,)) for n, bag in enumerate(features)]
        if coords is not None and len(coords) != len(bags):
            raise InputError(
                f"There are coordinates of {len(coords)} bags for {len(bags)}; give some of each."
            )
        places = [] if coords is None else list(map(_places, coords, bags))
        batch = BagBatch.pack(bags, places)
        return batch, lambda values: list(values.split(batch.sizes))
    x = _floats(features, "The features", _WANTED, (2, 3))
    of_rows = None if coords is None else _places(coords, x)
    if x.ndim == 2:
        if mask is not None:
            raise InputError("A mask goes with padded bags (B, N, D); leave it out for a single bag.")
        of_bags = torch.tensor([len(x)]) if lengths is None else _lengths(lengths, None)
        return BagBatch(x, of_bags.to(x.device), of_rows), lambda values: values
    kept = _kept(x, lengths, mask)
    batch = BagBatch(x[kept], kept.sum(dim=1), None if of_rows is None else of_rows[kept])

    def unpack(values: Tensor) -> Tensor:
        padded = values.new_zeros(kept.shape)
        padded[kept] = values
        return padded

    return batch, unpack


def _floats(value: Any, what: str, wanted: str, dimensions: tuple[int, ...]) -> Tensor:
    tensor = as_tensor(value, what, wanted)
    plain = tensor.is_floating_point() and tensor.layout == torch.strided  # not sparse, not nested
    if tensor.ndim not in dimensions or not plain:
        raise InputError(f"{what} must be {wanted}, of floating-point numbers, got {described(tensor)}.")
    return tensor


def _places(value: Any, features: Tensor) -> Tensor:
    coords = as_tensor(value, "The coordinates", "(…, 2)")
    if coords.shape != (*features.shape[:-1], 2):
        raise InputError(
            f"The coordinates must be {(*features.shape[:-1], 2)}, a place for every row of the features, "
            f"got {described(coords)}."
        )
    return coords.to(features.device)


def _lengths(value: Any, bags: int | None) -> Tensor:
    lengths = whole_numbers(value, "The lengths", "(B,), one whole number a bag")
    if lengths.ndim != 1 or (bags is not None and len(lengths) != bags):
        raise InputError(
            f"The lengths must be ({'B' if bags is None else bags},), one whole number a bag, got "
            f"{described(lengths)}."
        )
    return lengths.long()


def _kept(x: Tensor, lengths: Any, mask: Any) -> Tensor:
    """Which rows of padded bags are instances, bool (B, N)."""
    bags, longest = x.shape[:2]
    if mask is not None:
        kept = as_tensor(mask, "The mask", "(B, N), True where a row is an instance")
        if kept.shape != (bags, longest) or kept.is_floating_point():
            raise InputError(
                f"The mask must be ({bags}, {longest}), True where a row is an instance, got "
                f"{described(kept)}."
            )
        return kept.to(x.device, torch.bool)
    if lengths is None:
        return torch.ones(bags, longest, dtype=torch.bool, device=x.device)
    of_bags = _lengths(lengths, bags)
    if bags and (int(of_bags.min()) < 1 or int(of_bags.max()) > longest):
        raise InputError(
            f"The lengths of bags of {longest} rows are {of_bags.tolist()[:8]}; each must be 1 to {longest}."
        )
    return torch.arange(longest, device=x.device) < of_bags.to(x.device).unsqueeze(1)
