"""Features in a batch of one, (1, N, D), as published collections hold them."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from tests.features.interchange import makers
from wsi_ncmi.cohorts import open_bag_source
from wsi_ncmi.core.errors import InputError


@pytest.mark.parametrize("form", ["trident", "stamp", "clam", "pt"])
@pytest.mark.parametrize("n", [1, 6])
def test_a_batch_of_one_is_its_slide(tmp_path: Path, form: str, n: int) -> None:
    folder = tmp_path / ("features_e" if form in ("trident", "stamp") else "")
    if form == "pt":
        features, coords = makers.clam(folder, "a", n, h5=False)[0], None
        file = folder / "pt_files" / "a.pt"
        torch.save(torch.load(file, weights_only=True)[None], file)
    else:
        features, coords = getattr(makers, form)(folder, "a", n)
        file = folder / ("h5_files/a.h5" if form == "clam" else "a.h5")
        with h5py.File(file, "r+") as handle:
            for name in ("feats" if form == "stamp" else "features", "coords"):
                rows, attrs = handle[name][()], dict(handle[name].attrs)
                del handle[name]
                handle[name] = rows[None]
                handle[name].attrs.update(attrs)
        for other in tmp_path.glob("pt_files/*"):
            other.unlink()
    source = open_bag_source(folder)
    assert source.lengths.tolist() == [n]
    np.testing.assert_array_equal(source.load("a"), features.astype(np.float16))
    if form in ("trident", "clam"):
        np.testing.assert_array_equal(source.coordinates("a"), coords)


@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 1, 3, 4), (1, 3, 0)])
def test_other_axes_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    folder = tmp_path / "features_e"
    folder.mkdir()
    with h5py.File(folder / "a.h5", "w") as handle:
        handle["features"] = np.ones(shape, np.float32)
    with pytest.raises(InputError, match=r"not \(tiles, dimensions\)"):
        open_bag_source(folder)
