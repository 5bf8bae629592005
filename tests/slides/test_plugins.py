"""Readers that installed packages announce, and the kit that tests them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from wsi_ncmi.core.errors import SlideOpenError
from wsi_ncmi.doctor.finding import DoctorConfig
from wsi_ncmi.doctor.readers import more_readers
from wsi_ncmi.slides import check_reader, list_readers, open_slide, slide_id_of, slide_key, take_inventory
from wsi_ncmi.slides.plugins import announced, plugin_fault

PAGE = Path(__file__).parents[2] / "docs" / "development" / "readers.md"
EXAMPLE = next(
    code for code in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.S) if "class " in code
)
Install = Callable[..., None]


def forget() -> None:
    announced.cache_clear()
    plugin_fault.cache_clear()


@pytest.fixture
def install(tmp_path_factory, monkeypatch) -> Iterator[Install]:
    """Installs a package of one module that announces readers."""

    def made(name: str, code: str, points: str) -> None:
        folder = tmp_path_factory.mktemp(name)
        (folder / f"{name}.py").write_text(code)
        info = folder / f"{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[wsi_ncmi.readers]\n{points}\n")
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.delitem(sys.modules, name, raising=False)
        forget()

    yield made
    forget()


@pytest.fixture
def picture(kit) -> np.ndarray:
    return kit.texture(301, 260)


def store(path: Path, pixels: np.ndarray) -> Path:
    with path.open("wb") as handle:
        np.save(handle, pixels)
    return path


def test_the_documented_reader_passes_the_kit(tmp_path, install, picture):
    install("array_reader", EXAMPLE, "array = array_reader:ArraySlide")
    path = store(tmp_path / "S1.array", picture)
    check_reader(path, mpp=0.5)
    with open_slide(path) as slide:
        assert (slide.reader, slide.vendor) == ("plugin:array", "array")
        assert "array_reader 1.2" in slide.note
        np.testing.assert_array_equal(slide.read_region(0, 0, 1, 150, 130), picture[::2, ::2][:130, :150])
    assert "plugin:array" in [reader.name for reader in list_readers()]


def test_its_slides_are_slides_of_the_inventory(tmp_path, install, picture):
    install("array_reader", EXAMPLE, "array = array_reader:ArraySlide")
    store(tmp_path / "S1.ARRAY", picture)
    (record,) = take_inventory(tmp_path)
    assert (record.slide_id, record.problem, record.reader) == ("S1", "", "plugin:array")
    assert (record.mpp_x, record.mpp_source, record.n_levels) == (0.5, "vendor", 2)
    assert len(record.fingerprint) == 32
    assert slide_key("S1.array") == slide_id_of("S1.array") == "S1"


BROKEN = {
    "import no_such_library": "ModuleNotFoundError: No module named 'no_such_library'",
    "raise SystemExit(3)": "SystemExit: 3",
    "": "AttributeError",
    "Reader = 7": "announces a int, which opens nothing",
}


@pytest.mark.parametrize("code", BROKEN)
def test_a_package_that_cant_be_loaded_costs_its_own_slides_alone(tmp_path, install, picture, code):
    install("array_reader", EXAMPLE, "array = array_reader:ArraySlide")
    install("broken_reader", code, "kfb = broken_reader:Reader")
    store(tmp_path / "a.kfb", picture)
    store(tmp_path / "b.array", picture)
    bad, good = take_inventory(tmp_path)
    assert bad.problem.startswith("a.kfb can't be opened as a slide; the package broken_reader 1.2")
    assert BROKEN[code] in bad.problem
    assert good.problem == ""


def test_the_machine_check_lists_what_is_announced(install):
    install("array_reader", EXAMPLE, "array = array_reader:ArraySlide")
    install("broken_reader", "1 / 0", "kfb = broken_reader:Reader")
    found = {finding.name: finding for finding in more_readers(DoctorConfig())}
    assert (found["reader plugin:array"].status, found["reader plugin:array"].detail) == (
        "ok",
        "reads .array",
    )
    assert found["reader plugin:kfb"].status == "fail"
    assert "broken_reader 1.2" in found["reader plugin:kfb"].detail
    assert found["reader czi"].detail == "reads .czi"


def test_two_packages_for_one_extension_are_named_and_neither_is_taken(tmp_path, install, picture):
    for name in ("one_reader", "other_reader"):
        install(name, EXAMPLE, f"array = {name}:ArraySlide")
    with pytest.raises(SlideOpenError, match=r"2 packages announce .*\(one_reader 1.2, other_reader 1.2\)"):
        open_slide(store(tmp_path / "a.array", picture))


def test_a_reader_of_an_extension_that_is_read_already_comes_last(tmp_path, install, picture, kit):
    install("array_reader", EXAMPLE, "tif = array_reader:ArraySlide")
    with open_slide(kit.write_tiff(tmp_path / "sound.tif")) as slide:
        assert slide.reader == "openslide"
    with open_slide(store(tmp_path / "array.tif", picture)) as slide:
        assert slide.reader == "plugin:tif"
        assert "because openslide refuses it" in slide.note


def test_what_gives_no_slide_is_told(tmp_path, install, picture):
    install("odd_reader", "def opened(path): return 7", "array = odd_reader:opened")
    with pytest.raises(SlideOpenError, match=r"odd_reader 1.2 gave a int for it, not a wsi_ncmi Slide"):
        open_slide(store(tmp_path / "a.array", picture))


def test_companions_of_a_plugin_belong_to_the_slide(tmp_path, install, picture):
    more = '\n    @staticmethod\n    def companions(path):\n        return [path.with_suffix(".part")]\n'
    install("array_reader", EXAMPLE + more, "array = array_reader:ArraySlide")
    path = store(tmp_path / "a.array", picture)
    path.with_suffix(".part").write_bytes(b"1234567")
    (record,) = take_inventory(tmp_path)
    assert record.size_bytes == path.stat().st_size + 7


FAULTS = {
    "other": ("np.load(path, mmap_mode=\"r\")", "np.random.default_rng().integers(0, 255, np.load(path).shape, np.uint8)",
              "another process reads other pixels"),
    "again": ("return self._pixels[level]", "return (self._pixels[level] + np.random.randint(9)).astype(np.uint8)",
              "a second reading gives other pixels"),
    "shift": ("top : top", "top // 2 * 2 : top // 2 * 2", "four quarters are not their whole"),
    "sizes": ("(1.0, 2.0)", "(1.0, 4.0)", "is no 4th of"),
    "mpp": ('-x": "0.5"', '-x": "0.4"', "µm per pixel, not 0.5"),
    "close": ('self._pixels = [', 'self.held = __import__("os").open(path, 0)\n        self._pixels = [', "closing leaves files open (S1.array)"),
    "crash": ("np.load(path", "__import__('os').abort() if path.parent.name == 'half' else np.load(path", "half a file ends the process"),
    "passes": ("np.load(path, mmap_mode=\"r\")", "np.zeros((99, 99, 3), np.uint8)", "passes for a sound one"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_the_kit_finds_faults(tmp_path, install, picture, fault, monkeypatch):
    sound, wrong, told = FAULTS[fault]
    assert sound in EXAMPLE
    install("array_reader", EXAMPLE.replace(sound, wrong), "array = array_reader:ArraySlide")
    path = store(tmp_path / "S1.array", picture)
    if told.split()[0] not in ("another", "half", "passes"):
        monkeypatch.setattr("wsi_ncmi.slides.testing._faults_elsewhere", lambda path: [])
    with pytest.raises(AssertionError, match=re.escape(told)):
        check_reader(path, mpp=0.5)
