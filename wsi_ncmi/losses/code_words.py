"""Fixed code words: the symbol scores at which each class's centroid starts (and, mostly, stays)."""

from __future__ import annotations

import torch
from scipy.linalg import hadamard
from torch import Tensor
from torch.nn.functional import normalize

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.losses.ncmi_form import Centroids

__all__ = ["code_word_scores", "symbols_needed"]


def symbols_needed(kind: Centroids, num_classes: int, wished: int) -> int:
    """The number of symbols m to project to: ``wished``, or the next size that fits the code words.

    Orthogonal words of the Sylvester–Hadamard kind (also the start of learned words and class means) need a
    power of two above C, as the constant row is left out; simplex and identity words need m ≥ C.
    """
    if kind in ("simplex", "identity"):
        return max(wished, num_classes)
    smallest = 1 << num_classes.bit_length()
    return wished if wished >= smallest and _is_power_of_two(wished) else max(smallest, _next_power(wished))


def code_word_scores(kind: Centroids, num_classes: int, symbols: int, scale: float) -> Tensor:
    """Scores (C, m) whose sigmax or softmax are the code words.

    - ``orthogonal`` (and the start of ``learned`` and ``means``): rows 2…C+1 of the Hadamard matrix times the
      scale where m is a power of two above C: each word has half of the symbols on, and any two words agree
      on exactly half. For other m ≥ C: one symbol (group) a class, ±scale.
    - ``simplex``: the C vertices of a regular simplex (equiangular tight frame, cosine −1/(C−1)), padded.
    - ``identity``: scale · eye(C, m) + 1e-6, the start of the paper's public code.

    Args:
        kind: Which words.
        num_classes: Number of classes C.
        symbols: Number of symbols m, at least C.
        scale: Size of a score.

    Returns:
        float64 (C, m).

    Raises:
        InputError: Fewer symbols than classes.
    """
    if symbols < num_classes:
        raise InputError(
            f"{symbols} symbols can't tell {num_classes} classes apart; give at least one symbol a class."
        )
    if kind == "identity":
        return scale * torch.eye(num_classes, symbols, dtype=torch.float64) + 1e-6
    if kind == "simplex":
        words = torch.eye(num_classes, symbols, dtype=torch.float64)
        words[:, :num_classes] -= 1 / num_classes
        return scale * normalize(words, dim=1)
    if _is_power_of_two(symbols) and symbols > num_classes:
        rows: Tensor = torch.from_numpy(hadamard(symbols, dtype=float))
        return scale * rows[1 : num_classes + 1]
    assigned = torch.arange(symbols) * num_classes // symbols
    return scale * torch.where(assigned == torch.arange(num_classes).unsqueeze(1), 1.0, -1.0).double()


def _is_power_of_two(n: int) -> bool:
    return n & (n - 1) == 0


def _next_power(n: int) -> int:
    return 1 << (n - 1).bit_length()
