"""OME-TIFF and other pyramids in sub-directories: every writer's files, what is refused, and the resolution."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from tests.slides.ome_slide import OME, halves, image_xml, write_nested
from wsi_ncmi.core.errors import MissingMppError, SlideOpenError
from wsi_ncmi.slides import open_slide, probe_against_openslide, resolve_mpp, take_inventory
from wsi_ncmi.slides.absent_tiles import find_absent_tiles
from wsi_ncmi.slides.overview import thumbnail

LABEL = np.full((90, 70, 3), 33, np.uint8)


def ome(*images: str, root: str = "") -> str:
    return OME.format(root=root, body="".join(images))


@pytest.fixture(scope="module")
def levels(kit):
    return halves(kit.texture())


def raw2ometiff(path, levels):
    images = [
        image_xml(700, 600, name="CMU-1", data='<TiffData IFD="0" PlaneCount="1"/>'),
        image_xml(70, 90, name="Label", data='<TiffData IFD="1" PlaneCount="1"/>'),
        image_xml(70, 90, name="Macro", data='<TiffData IFD="2" PlaneCount="1"/>'),
    ]
    return write_nested(path, levels, description=ome(*images), planar=True, after=(LABEL, LABEL))


def qupath(path, levels):
    size = 'PhysicalSizeX="0.25" PhysicalSizeXUnit="µm" PhysicalSizeY="0.25" PhysicalSizeYUnit="µm"'
    return write_nested(
        path, levels, description=ome(image_xml(700, 600, physical=size)), compression="deflate"
    )


def vips(path, levels):
    return write_nested(path, levels, predictor=True, resolution=(20000, 20000), resolutionunit="CENTIMETER")


def vips_from_svs(path, levels):
    text = "Aperio Image Library v11.2.1 \r\n700x600 (128x128)|AppMag = 20|MPP = 0.4990"
    return write_nested(path, levels, description=text)


def by_tifffile(path, levels):
    with tifffile.TiffWriter(path, bigtiff=True, ome=True) as file:
        label = {"axes": "YXS", "Name": "label image"}
        file.write(LABEL, metadata=label, photometric="rgb", tile=(64, 64))
        options = {"tile": (128, 128), "photometric": "rgb", "compression": "zstd"}
        file.write(levels[0], subifds=2, metadata={"axes": "YXS", "Name": "scan"}, **options)
        for level in levels[1:]:
            file.write(level, subfiletype=1, **options)
    return path


def named_channels(path, levels):
    names = "".join(f'<Channel Name="{name}" SamplesPerPixel="1"/>' for name in ("Red", "Green", "Blue"))
    text = ome(image_xml(700, 600, channels=names, data='<TiffData IFD="0" PlaneCount="3"/>'))
    planes = [np.ascontiguousarray(np.moveaxis(level, 2, 0)) for level in levels]
    options = {"tile": (128, 128), "photometric": "minisblack", "metadata": None}
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for colour in range(3):
            file.write(
                planes[0][colour], subifds=2, description=text.encode() if colour == 0 else None, **options
            )
            for level in planes[1:]:
                file.write(level[colour], subfiletype=1, **options)
    return path


WRITERS = (raw2ometiff, qupath, vips, vips_from_svs, by_tifffile, named_channels)


@pytest.mark.parametrize("write", WRITERS)
def test_every_level_of_every_writers_file_is_read_to_the_pixel(tmp_path, levels, write):
    path = write(tmp_path / "a.ome.tif", levels)
    with open_slide(path) as slide:
        assert (slide.reader, slide.note) == ("tifffile", "")
        assert slide.level_dimensions == ((700, 600), (350, 300), (175, 150))
        for number, level in enumerate(levels):
            height, width = level.shape[:2]
            np.testing.assert_array_equal(slide.read_region(0, 0, number, width, height), level)
            x, y = 60 << number, 40 << number
            part = slide.read_region(x, y, number, 90, 85)
            np.testing.assert_array_equal(part, level[40:125, 60:150])
        outside = slide.read_region(-20, 590, 0, 40, 40)
        np.testing.assert_array_equal(outside[:10, 20:], levels[0][590:, :20])
        assert (outside[10:] == 255).all()
        assert (outside[:, :20] == 255).all()
        assert (slide.read_region(9000, 0, 0, 8, 8) == 255).all()


def test_an_inventory_sees_the_nested_levels_and_reads_no_pixel(tmp_path, levels):
    (record,) = take_inventory(by_tifffile(tmp_path / "a.ome.tif", levels), default_mpp=0.5)
    assert (record.reader, record.width_px, record.n_levels, record.problem) == ("tifffile", 700, 3, "")


def test_a_scanners_text_is_read_as_openslide_reads_it(tmp_path, levels):
    with open_slide(vips_from_svs(tmp_path / "a.tif", levels)) as slide:
        assert (slide.vendor, resolve_mpp(slide).source, resolve_mpp(slide).x) == ("aperio", "vendor", 0.499)


def test_a_label_in_front_is_never_the_slide_whatever_reader_is_asked_for(tmp_path, levels):
    path = by_tifffile(tmp_path / "a.ome.tif", levels)
    for reader in ("openslide", "tiffslide", "image"):
        with open_slide(path, reader) as slide:
            assert (slide.reader, slide.dimensions) == ("tifffile", (700, 600))
    from wsi_ncmi.slides.tiffslide_reader import TiffSlideSlide

    with pytest.raises(SlideOpenError, match="its first image is not the slide"):
        TiffSlideSlide(path)  # as for a remote address


def test_probes_compare_the_levels_that_both_have(tmp_path, levels):
    path = qupath(tmp_path / "a.ome.tif", levels)
    with open_slide(path, "tiffslide") as slide:
        assert (slide.reader, slide.level_count, slide.note) == ("tiffslide", 3, "")
        assert probe_against_openslide(slide) == 0
    other = [levels[0].copy(), *levels[1:]]
    with open_slide(path) as slide:
        honest = slide._tile
        slide._tile = lambda *request: honest(*request) ^ 8
        assert 0 < probe_against_openslide(slide) <= 8
    with open_slide(write_nested(tmp_path / "b.tif", other[:1])) as single, open_slide(path) as slide:
        single.path = path
        assert probe_against_openslide(single) == 0  # one level of three
        slide.path = write_nested(tmp_path / "c.tif", [levels[1]])
        assert probe_against_openslide(slide) == 255


def test_pixels_that_differ_from_openslides_cost_the_nested_levels_and_are_said(
    tmp_path, levels, monkeypatch
):
    from wsi_ncmi.slides.pages_reader import TiffPagesSlide

    honest = TiffPagesSlide._tile
    monkeypatch.setattr(TiffPagesSlide, "_tile", lambda self, *request: honest(self, *request) ^ 8)
    with open_slide(qupath(tmp_path / "a.ome.tif", levels)) as slide:
        assert (slide.reader, slide.level_count) == ("openslide", 1)
        assert slide.note.startswith(
            "Read by openslide because tifffile gave pixels up to 8 grey levels away"
        )


def test_levels_that_show_something_else_are_left_out(tmp_path, levels, kit):
    wrong = [levels[0], kit.texture(350, 300, 9)[::-1, ::-1], levels[2]]
    with open_slide(write_nested(tmp_path / "a.tif", wrong)) as slide:
        assert slide.level_dimensions == ((700, 600), (175, 150))
        assert "Level 1 of 350 × 300 px is not used" in slide.note


def test_absent_tiles_are_background_and_known_without_reading(tmp_path, levels):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for number, level in enumerate(levels[:2]):
            height, width = level.shape[:2]
            padded = np.pad(level, ((0, -height % 128), (0, -width % 128), (0, 0)))
            tiles = [
                padded[y : y + 128, x : x + 128].tobytes()
                for y in range(0, height, 128)
                for x in range(0, width, 128)
            ]
            tiles[1] = b"" if number == 0 else tiles[1]
            nested = {"subifds": 1} if number == 0 else {"subfiletype": 1}
            file.write(
                iter(tiles), shape=level.shape, dtype=np.uint8, tile=(128, 128), photometric="rgb",
                metadata=None, **nested,
            )  # fmt: skip
    with open_slide(path) as slide:
        assert slide.reader == "tifffile"
        expected = levels[0].copy()
        expected[:128, 128:256] = 255
        np.testing.assert_array_equal(slide.read_region(0, 0, 0, 700, 600), expected)
        absent = find_absent_tiles(slide, 0)
        assert absent.cover(128, 0, 128, 128)
        assert not absent.cover(127, 0, 128, 128)
        assert find_absent_tiles(slide, 1) is None


def test_the_overview_of_nested_levels_does_not_read_the_first_one(tmp_path, levels):
    with open_slide(qupath(tmp_path / "a.ome.tif", levels)) as slide:
        assert len(slide.levels) == 3  # compared with each other at the first look
        asked = []
        honest = slide._tile
        slide._tile = lambda page, index: asked.append(page.imagewidth) or honest(page, index)
        picture = thumbnail(slide, 170)
    assert set(asked) == {175}
    assert len(asked) <= 4  # the comparison has read some
    assert picture.shape == (146, 170, 3)


@pytest.mark.parametrize(("kept", "decoded"), [(1 << 20, 9), (0, 36)])
def test_decoded_tiles_are_kept_within_bounds(tmp_path, levels, monkeypatch, kept, decoded):
    monkeypatch.setattr("wsi_ncmi.slides.pages_reader._KEPT_BYTES", kept)
    with open_slide(qupath(tmp_path / "a.ome.tif", levels), compare_levels=False) as slide:
        honest, count = slide._decoded, []
        slide._decoded = lambda *request: count.append(request) or honest(*request)
        for _ in range(4):
            np.testing.assert_array_equal(
                slide.read_region(100, 100, 0, 200, 200), levels[0][100:300, 100:300]
            )
    assert len(count) == decoded


@pytest.mark.parametrize(
    ("xml", "words"),
    [
        (ome(image_xml(700, 600, z=3)), "it is a stack of 3 focal planes; export the one to be read"),
        (ome(image_xml(700, 600, t=2)), "it is a stack of 2 points in time"),
        (ome(image_xml(700, 600, c=6)), "it holds 6 channels of one colour each"),
        (ome(image_xml(700, 600, kind="uint16")), "3 × uint16 a pixel, not 8-bit RGB"),
        (ome(image_xml(700, 600, name="label image")), "it holds nothing but label image, which is no slide"),
        (ome(image_xml(700, 600, name=r"C:\x\S1 macro")), "it holds nothing but S1 macro, which is no slide"),
        (
            ome('<BinaryOnly MetadataFile="all.companion.ome" UUID="urn:uuid:1"/>'),
            "whose OME-XML is in all.companion.ome; give one OME-TIFF that holds the whole slide",
        ),
        (
            ome(
                image_xml(
                    700, 600, data='<TiffData IFD="0"><UUID FileName="../b.tif">urn:uuid:2</UUID></TiffData>'
                ),
                root=' UUID="urn:uuid:1"',
            ),
            "its images are spread over several files",
        ),
        (
            '<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
            "<OME>&b;</OME>",
            "its OME-XML declares a document type or entities",
        ),
        (
            '<!DOCTYPE OME SYSTEM "http://127.0.0.1:9/x.dtd"><OME></OME>',
            "its OME-XML declares a document type or entities",
        ),
        (
            '<!DOCTYPE OME [<!ENTITY x SYSTEM "file:///etc/hostname">]><OME><Image Name="&x;"/></OME>',
            "its OME-XML declares a document type or entities",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["local", "tiffslide"])
def test_what_is_no_brightfield_slide_in_one_file_is_refused_in_words(tmp_path, levels, xml, words, kind):
    from wsi_ncmi.slides.tiffslide_reader import TiffSlideSlide

    path = write_nested(
        tmp_path / "a.ome.tif", levels[1:2], description=xml.replace("700", "350").replace("600", "300")
    )
    with pytest.raises(SlideOpenError) as caught:
        open_slide(path) if kind == "local" else TiffSlideSlide(path)
    text = str(caught.value)
    assert words in text
    assert "\n" not in text
    assert kind != "local" or text.startswith("a.ome.tif can't be read as a slide: ")


@pytest.mark.parametrize(
    ("count", "channels", "words"),
    [
        (1, '<Channel Name="DAPI"/>', "it holds one grey channel"),
        (2, "<Channel/><Channel/>", "2 channels of one colour each (fluorescence), not RGB; give the brightfield"),
        (3, "<Channel/><Channel/><Channel/>", "write it as RGB (raw2ometiff --rgb) or name them so"),
        (3, '<Channel Name="Cy3"/><Channel Name="FITC"/><Channel Name="DAPI"/>', "write it as RGB"),
        (3, '<Channel Name="Blue"/><Channel Name="Green"/><Channel Name="Red"/>', "write it as RGB"),
    ],
)  # fmt: skip
def test_channels_of_one_colour_are_read_only_if_they_are_named_red_green_and_blue(
    tmp_path, levels, count, channels, words
):
    text = ome(
        image_xml(350, 300, c=count, channels=channels, data=f'<TiffData IFD="0" PlaneCount="{count}"/>')
    )
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path) as file:
        for number in range(count):
            file.write(
                levels[1][:, :, number], description=text.encode() if number == 0 else None, metadata=None,
                tile=(128, 128), photometric="minisblack",
            )  # fmt: skip
    with pytest.raises(SlideOpenError) as caught:
        open_slide(path)
    assert words in str(caught.value)


def test_three_samples_that_are_no_colours_are_fluorescence(tmp_path, levels):
    text = ome(image_xml(350, 300, channels="<Channel/><Channel/><Channel/>"))
    path = write_nested(
        tmp_path / "a.ome.tif", levels[1:2], description=text, photometric="minisblack", planarconfig="contig"
    )
    with pytest.raises(SlideOpenError, match="3 channels of one colour each"):
        open_slide(path)
    # Three samples in red, green and blue are RGB, however many channels a script has listed.
    with open_slide(write_nested(tmp_path / "b.ome.tif", levels[1:2], description=text)) as slide:
        np.testing.assert_array_equal(slide.read_region(0, 0, 0, 350, 300), levels[1])


def test_names_of_further_images_are_told_and_label_and_macro_are_not(tmp_path, levels):
    names = ("CMU_label.svs", "second & third", "label", "S1.svs [macro image]", "/data/Smith/x.ndpi")
    images = [
        image_xml(
            700, 600, name=name.replace("&", "&amp;"), data=f'<TiffData IFD="{number}" PlaneCount="1"/>'
        )
        for number, name in enumerate(names)
    ]
    path = write_nested(tmp_path / "a.ome.tif", levels, description=ome(*images), after=[LABEL] * 4)
    with open_slide(path) as slide:
        assert slide.note == (
            "The file holds 3 scenes; the first one, 700 × 600 px, is read. Not read: second & third, x.ndpi."
        )


@pytest.mark.parametrize(
    "text",
    [ome(image_xml(9, 9)), ome(image_xml(700, 600)).replace("<Pixels", "<Pixels <"), ome(), "<OME></OME>"],
)
def test_xml_that_is_damaged_or_of_another_image_is_said_and_not_used(tmp_path, levels, text):
    path = write_nested(tmp_path / "a.ome.tif", levels[:1], description=text)
    with open_slide(path) as slide:
        assert slide.note == "Its OME-XML is damaged or not of this image, and is not used."
        with pytest.raises(MissingMppError):
            resolve_mpp(slide)


@pytest.mark.parametrize(
    ("x", "x_unit", "y", "y_unit", "expected"),
    [
        ("0.25", "µm", "0.25", "µm", (0.25, 0.25)),
        ("0.25", None, "0.5", None, (0.25, 0.5)),  # µm is the schema's default
        ("250", "nm", "0.00025", "mm", (0.25, 0.25)),
        ("0.000025", "cm", "2500", "Å", (0.25, 0.25)),
        ("9.84251968503937e-06", "in", "0.00984251968503937", "thou", (0.25, 0.25)),
        ("0.25", "\u03bcm", "2.5E-7", "m", (0.25, 0.25)),
        ("0.25", "Âµm", "250000", "pm", (0.25, 0.25)),
        ("1", "pixel", "1", "pixel", "gives 1 pixel a pixel, no length"),
        ("1", "reference frame", "1", "µm", "gives 1 reference frame a pixel, no length"),
        ("fine", "µm", "1", "µm", "gives fine µm a pixel, no length"),
        ("0.25", "mm", "0.25", "mm", "the OME-XML gives 250 × 250 µm"),
        ("0", "µm", "0", "µm", "the OME-XML gives 0 × 0 µm"),
        ("nan", "µm", "1", "µm", "the OME-XML gives nan × 1 µm"),
        ("0.25", "µm", None, None, "the OME-XML has no PhysicalSizeY"),
    ],
)
def test_physical_sizes_in_every_unit(tmp_path, levels, x, x_unit, y, y_unit, expected):
    texts = {
        "PhysicalSizeX": x, "PhysicalSizeXUnit": x_unit, "PhysicalSizeY": y, "PhysicalSizeYUnit": y_unit,
    }  # fmt: skip
    size = " ".join(f'{name}="{text}"' for name, text in texts.items() if text is not None)
    path = write_nested(
        tmp_path / "a.ome.tif", levels[2:], description=ome(image_xml(175, 150, physical=size))
    )
    with open_slide(path) as slide:
        if isinstance(expected, str):
            with pytest.raises(MissingMppError) as caught:
                resolve_mpp(slide)
            assert expected in str(caught.value)
        else:
            found = resolve_mpp(slide)
            assert (found.x, found.y) == pytest.approx(expected, rel=1e-12)
            assert found.source == "ome"


def test_the_ome_size_is_believed_before_the_tags_and_only_for_its_own_image(tmp_path, levels):
    size = 'PhysicalSizeX="0.25" PhysicalSizeY="0.25"'
    tags = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
    text = ome(
        image_xml(700, 600, physical=size), image_xml(700, 600, name="b", physical='PhysicalSizeX="9"')
    )
    with open_slide(write_nested(tmp_path / "a.ome.tif", levels, description=text, **tags)) as slide:
        assert (resolve_mpp(slide).x, resolve_mpp(slide).source) == (0.25, "ome")
    # A tool that halves a slide and keeps its text would halve the size of everything.
    with open_slide(write_nested(tmp_path / "b.ome.tif", levels[1:], description=text, **tags)) as slide:
        assert (resolve_mpp(slide).x, resolve_mpp(slide).source) == (0.5, "tiff")


@pytest.mark.parametrize("more", [1, 3])
def test_a_micro_sign_in_latin_1_is_read(tmp_path, levels, more):
    size = 'PhysicalSizeX="0.25" PhysicalSizeXUnit="?m" PhysicalSizeY="0.25" PhysicalSizeYUnit="?m"'
    path = write_nested(
        tmp_path / "a.ome.tif", levels[:more], description=ome(image_xml(700, 600, physical=size))
    )
    path.write_bytes(path.read_bytes().replace(b'"?m"', b'"\xb5m"'))
    with open_slide(path) as slide:
        assert (slide.level_count, resolve_mpp(slide).source) == (more, "ome")
