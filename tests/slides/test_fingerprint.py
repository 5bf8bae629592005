"""Content identity."""

from __future__ import annotations

import shutil

import pytest

from wsi_ncmi.slides.identity import files_sha256, fingerprint


def test_name_and_place_do_not_matter(svs, tmp_path):
    (tmp_path / "deep").mkdir()
    copy = tmp_path / "deep" / "other name.svs"
    shutil.copy(svs, copy)
    assert fingerprint(copy) == fingerprint(svs)
    assert files_sha256(copy) == files_sha256(svs)
    assert len(fingerprint(svs)) == 32


def test_golden_fingerprint(tmp_path):
    """Fingerprints are stored in feature files: this number must never change unseen."""
    (tmp_path / "a").write_bytes(bytes(range(256)) * 300)
    assert fingerprint(tmp_path / "a") == "3b7e527b612a6ed0c78cc4602ef9131e"


def test_other_pixels_of_the_same_size_differ(tmp_path, kit):
    one = kit.write_tiff(tmp_path / "a.tif", kit.texture(seed=1), compression=None)
    two = kit.write_tiff(tmp_path / "b.tif", kit.texture(seed=2), compression=None)
    assert one.stat().st_size == two.stat().st_size
    assert fingerprint(one) != fingerprint(two)


def test_one_tiles_size_in_the_table_differs(svs, tmp_path, kit):
    _, sizes = kit.level0_table(svs)
    data = bytearray(svs.read_bytes())
    place = data.index(sizes[3].to_bytes(4, "little") + sizes[4].to_bytes(4, "little"))
    data[place] ^= 1
    (tmp_path / "a.svs").write_bytes(data)
    assert fingerprint(tmp_path / "a.svs") != fingerprint(svs)


def test_bytes_of_label_and_macro_images_do_not_enter(svs, tmp_path):
    import tifffile

    data = bytearray(svs.read_bytes())
    with tifffile.TiffFile(svs) as file:
        for page in file.pages:
            if not page.is_tiled:
                for offset, size in zip(page.dataoffsets, page.databytecounts, strict=True):
                    data[offset : offset + size] = bytes(size)
    (tmp_path / "blank_label.svs").write_bytes(data)
    assert fingerprint(tmp_path / "blank_label.svs") == fingerprint(svs)
    assert files_sha256(tmp_path / "blank_label.svs") != files_sha256(svs)


def test_companions_count_by_content_not_order(tmp_path):
    files = [tmp_path / name for name in "abc"]
    for index, file in enumerate(files):
        file.write_bytes(bytes([index]) * 100)
    main, *others = files
    assert fingerprint(main, others) == fingerprint(main, others[::-1])
    assert files_sha256(main, others) == files_sha256(main, others[::-1])
    before = fingerprint(main, others)
    others[0].write_bytes(b"changed")
    assert fingerprint(main, others) != before != fingerprint(main)


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097])
def test_small_files(tmp_path, size):
    (tmp_path / "a").write_bytes(b"x" * size)
    (tmp_path / "b").write_bytes(b"x" * (size + 1))
    assert fingerprint(tmp_path / "a") != fingerprint(tmp_path / "b")
