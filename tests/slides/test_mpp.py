"""The resolution chain."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_ncmi.core.errors import InputError, MissingMppError
from wsi_ncmi.slides import Mpp, open_slide, resolve_mpp
from wsi_ncmi.slides.mpp import is_believable_mpp

VENDOR = {"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.26"}
TIFF = {"tiff.XResolution": "20000", "tiff.YResolution": "10000", "tiff.ResolutionUnit": "centimeter"}
POWER = {"openslide.objective-power": "40"}


def _slide(*parts, vendor="aperio"):
    properties = {key: value for part in parts for key, value in part.items()}
    return SimpleNamespace(path=SimpleNamespace(name="a.svs"), properties=properties, vendor=vendor)


@pytest.mark.parametrize(
    ("parts", "given_", "expected"),
    [
        ((VENDOR, TIFF, POWER), {"table_mpp": 0.3, "default_mpp": 0.4}, Mpp(0.3, 0.3, "table")),
        ((VENDOR, TIFF, POWER), {"default_mpp": 0.4}, Mpp(0.25, 0.26, "vendor")),
        ((TIFF, POWER), {"default_mpp": 0.4}, Mpp(0.5, 1.0, "tiff")),
        ((POWER,), {"default_mpp": 0.4}, Mpp(0.25, 0.25, "objective")),
        ((), {"default_mpp": 0.4}, Mpp(0.4, 0.4, "default")),
    ],
)
def test_the_links_in_their_order(parts, given_, expected):
    assert resolve_mpp(_slide(*parts), **given_) == expected


def test_without_any_link_the_message_says_what_each_holds():
    slide = _slide({"tiff.XResolution": "72", "tiff.YResolution": "72", "tiff.ResolutionUnit": "inch"})
    with pytest.raises(
        MissingMppError,
        match=r"^a\.svs .*no vendor property; the TIFF resolution tag 72 × 72 per inch is a placeholder; no objective power.*--mpp-table",
    ):
        resolve_mpp(slide)


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "0.02", "101", "x", ""])
@pytest.mark.parametrize("axis", ["x", "y"])
def test_absurd_vendor_values_are_not_believed_on_either_axis(value, axis):
    slide = _slide(VENDOR, POWER, {f"openslide.mpp-{axis}": value})
    assert resolve_mpp(slide).source == "objective"


def test_one_vendor_axis_alone_is_not_completed_by_a_guess():
    with pytest.raises(MissingMppError):
        resolve_mpp(_slide({"openslide.mpp-x": "0.25"}))


@pytest.mark.parametrize(
    ("x", "y", "unit"),
    [("72", "72", "inch"), ("96", "96", "inch"), ("300", "300", "inch"), ("28.35", "28.35", "centimeter"), ("37.8", "37.8", "centimeter"),
     ("118.11", "118.11", "centimeter"), ("1", "1", "inch"), ("1", "1", "centimeter"), ("1", "1", "micrometer"), ("40000", "40000", "none"), ("0", "0", "centimeter"),
     ("nan", "nan", "inch"), ("1e9", "1e9", "centimeter"), ("40000", "72", "inch")],
)  # fmt: skip
def test_placeholders_in_the_tiff_tags_are_not_believed(x, y, unit):
    slide = _slide({"tiff.XResolution": x, "tiff.YResolution": y, "tiff.ResolutionUnit": unit})
    with pytest.raises(MissingMppError, match="is a placeholder"):
        resolve_mpp(slide)


@pytest.mark.parametrize("power", ["0", "-40", "1000", "nan", "forty"])
def test_absurd_objective_powers_are_not_believed(power):
    with pytest.raises(MissingMppError, match=f"the objective power is {power}"):
        resolve_mpp(_slide({"openslide.objective-power": power}))


@pytest.mark.parametrize(
    "given_", [{"table_mpp": 0.0}, {"table_mpp": 250.0}, {"default_mpp": -0.5}, {"default_mpp": math.nan}]
)
def test_absurd_values_of_the_user_are_input_errors_even_if_unused(given_):
    with pytest.raises(InputError, match="µm per pixel"):
        resolve_mpp(_slide(VENDOR), **given_)


@given(
    st.floats(0.05, 5.0),
    st.floats(0.05, 5.0),
    st.sampled_from([("inch", 25400.0), ("centimeter", 10000.0), ("millimeter", 1000.0)]),
)
def test_tiff_tags_of_any_real_resolution_come_back_on_both_axes(x, y, unit):
    name, microns = unit
    tags = {
        "tiff.XResolution": repr(microns / x),
        "tiff.YResolution": repr(microns / y),
        "tiff.ResolutionUnit": name.upper(),
    }
    found = resolve_mpp(_slide(tags))
    assert found.source == "tiff"
    assert found.x == pytest.approx(x, rel=1e-12)
    assert found.y == pytest.approx(y, rel=1e-12)
    assert found.mean**2 == pytest.approx(x * y)


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_every_resolved_value_is_believable(value):
    slide = _slide({"openslide.mpp-x": repr(value), "openslide.mpp-y": repr(value)})
    try:
        found = resolve_mpp(slide)
    except MissingMppError:
        assert not is_believable_mpp(value)
    else:
        assert found == Mpp(value, value, "vendor")


@pytest.mark.parametrize("values", [(0.0, 1.0), (1.0, -1.0), (math.nan, 1.0), (1.0, math.inf)])
def test_an_impossible_mpp_can_not_exist(values):
    with pytest.raises(ValueError, match="positive and finite"):
        Mpp(*values, "vendor")


@pytest.mark.parametrize("reader", ["openslide", "tiffslide"])
def test_real_files_through_both_readers(tmp_path, kit, svs, generic, reader):
    bare = kit.write_svs(tmp_path / "bare.svs", mpp=None)
    none = kit.write_tiff(tmp_path / "none.tif")
    dpi = kit.write_tiff(tmp_path / "dpi.tif", resolution=(72, 72), unit="INCH")
    found = {path.name: _resolved(path, reader) for path in (svs, generic, bare, none, dpi)}
    # OpenSlide shows a generic TIFF's tags as its own mpp: the source must still be the tag.
    assert found == {
        "aperio.svs": Mpp(0.499, 0.499, "vendor"), "generic.tif": Mpp(0.25, 0.5, "tiff"),
        "bare.svs": Mpp(0.5, 0.5, "objective"), "none.tif": None, "dpi.tif": None,
    }  # fmt: skip


def _resolved(path, reader):
    with open_slide(path, reader) as slide:
        try:
            return resolve_mpp(slide)
        except MissingMppError:
            return None
