"""Feature files of this program: read for conversion, and written from features of other tools."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.leftovers import remove_leftovers
from wsi_ncmi.features.interchange.bag import ExternalFileError, TileBag, TileMetadata, grid_step, to_half
from wsi_ncmi.features.interchange.base import FolderSet, SetWriter, WriteResult, conflict
from wsi_ncmi.features.paths import feature_path
from wsi_ncmi.features.reader import FeatureFile, open_features_file, read_identity
from wsi_ncmi.features.schema import FEATURES_SCHEMA, UNKNOWN, Identity
from wsi_ncmi.features.storage import translate_os_errors
from wsi_ncmi.features.writer import SlideAttributes, content_sha256, write_features

_TOLD = ("encoder", "encoder_weights_sha256", "mpp_target", "tile_px", "overlap_px", "stain")


class NativeSet(FolderSet):
    """A folder ``features/<encoder>`` of this program.

    Args:
        path: The folder.
    """

    kind: ClassVar[str] = "wsi-ncmi"

    @cached_property
    def level(self) -> str:  # type: ignore[override]
        """What a row is a vector of, as the first readable file says."""
        for slide_id in self.slide_ids:
            with contextlib.suppress(ExternalFileError), self._of(slide_id) as file:
                return str(file.attrs.get("level", "tile"))
        return "tile"

    def header(self, slide_id: str) -> tuple[tuple[int, int], Mapping[str, Any]]:
        """See the base class."""
        with self._of(slide_id) as file:
            return (file.n_tiles, file.width), {name: getattr(file.identity, name) for name in _TOLD}

    def features(self, slide_id: str) -> NDArray[Any]:
        """See the base class."""
        with self._of(slide_id) as file:
            return file.features

    def bag(self, slide_id: str) -> TileBag:
        """See the base class."""
        with self._of(slide_id) as file:
            identity, attrs = file.identity, file.coords_attrs
            width, height = (int(attrs.get(f"level0_{side}", 0)) for side in ("width", "height"))
            metadata = TileMetadata(
                encoder="" if identity.encoder == UNKNOWN else identity.encoder,
                mpp_x=identity.mpp_level0_x or None,
                mpp_y=identity.mpp_level0_y or None,
                mpp_target=identity.mpp_target or None,
                tile_px=identity.tile_px or None,
                overlap_px=identity.overlap_px,
                tile_width=float(file.attrs.get("tile_size_level0_x", 0)) or None,
                tile_height=float(file.attrs.get("tile_size_level0_y", 0)) or None,
                level0_size=(width, height) if width and height else None,
            )
            return TileBag(slide_id, file.features, metadata, file.coords)

    @contextlib.contextmanager
    def _of(self, slide_id: str) -> Iterator[FeatureFile]:
        """A slide's file; that it can't be read is this slide's matter."""
        path = self.where(slide_id)
        try:
            yield open_features_file(path)
        except InputError as error:
            raise ExternalFileError(str(error)) from error
        except (TypeError, ValueError) as error:
            raise ExternalFileError(f"{path} garbles an attribute ({error}).") from error


class NativeWriter(SetWriter):
    """Writes ``features/<encoder>/<id>.h5``, verifiable, with what isn't known marked as such.

    Rows are put in raster order. A slide of which only micrometres are known gets coordinates in pixels of
    its tiles' own resolution, so that pixel × mpp is right.

    Args:
        out: The folder.
        overwrite: Replace files of other content.
        origin: Format that the features come from, for the record.
    """

    kind: ClassVar[str] = "wsi-ncmi"

    def __init__(self, out: Path, *, overwrite: bool = False, origin: str = UNKNOWN) -> None:
        super().__init__(out, overwrite=overwrite)
        self._origin = origin

    def _write(self, bag: TileBag) -> WriteResult:
        source, mpp_source = bag.metadata, "import"
        if bag.coords is None and bag.coords_um is not None and source.mpp_x is None:
            mpp = source.mpp_target or 1.0
            bag, mpp_source = bag.at_resolution(mpp, mpp), "import: the tiles' own, the slide's is unknown"
        if bag.coords is None:
            raise ExternalFileError(
                f"{bag.slide_id}: the source has no coordinates, and a feature file needs them; train on the "
                "source directly, or convert to packed."
            )
        features, error = to_half(bag.features, Path(bag.slide_id))
        notes = [f"rounded to float16, relative error {error:.1e}"] if error else []
        features, coords = _in_raster_order(bag.slide_id, features, bag.coords, notes)
        metadata = _complete(bag.metadata, coords, notes)
        identity = _identity(metadata)
        path = feature_path(self.out, identity.encoder, bag.slide_id)
        if path.exists() and not self.overwrite:
            if read_identity(path) == identity and _content(path) == content_sha256(features, coords):
                return WriteResult("skipped", path, tuple(notes))
            raise conflict(path)
        with translate_os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(path)
        width, height = metadata.level0_size or (0, 0)
        write_features(
            path,
            features=features,
            coords=coords,
            # The share of tissue is unknown; the tool has chosen all of these tiles, which counts as whole.
            tissue_fraction=np.ones(len(features), np.float16),
            identity=identity,
            slide=SlideAttributes(
                slide_id=bag.slide_id,
                width_px=width,
                height_px=height,
                reader=f"import from {self._origin}",
                mpp_source=mpp_source if metadata.mpp_x else UNKNOWN,
                read_level=0,
                tile_size_level0=(
                    metadata.tile_width or 0.0,
                    metadata.tile_height or metadata.tile_width or 0.0,
                ),
                encoder_weights_source=UNKNOWN,
                tissue_found={"imported_from": self._origin, "unknown": [*source.unknown, "tissue_fraction"]},
            ),
        )
        return WriteResult("done", path, tuple(notes))


def _in_raster_order(
    slide_id: str, features: NDArray[np.float16], coords: NDArray[np.int64], notes: list[str]
) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    if coords.min(initial=0) < 0:
        raise ExternalFileError(
            f"{slide_id}: a tile lies at {coords.min(axis=0).tolist()}, outside of the slide."
        )
    order = np.lexsort((coords[:, 0], coords[:, 1]))
    features, coords = features[order], coords[order]
    again = np.flatnonzero((np.diff(coords, axis=0) == 0).all(axis=1)) + 1
    if len(again):
        if not np.array_equal(features[again], features[again - 1]):
            x, y = coords[again[0]].tolist()
            raise ExternalFileError(
                f"{slide_id}: two different tiles lie at ({x}, {y}); make its features again."
            )
        notes.append(f"{len(again)} tiles were there twice and are kept once")
        features, coords = np.delete(features, again, axis=0), np.delete(coords, again, axis=0)
    return features, coords


def _complete(metadata: TileMetadata, coords: NDArray[np.int64], notes: list[str]) -> TileMetadata:
    """Fills in what follows from the coordinates: the tile size where unknown, the slide's extent."""
    if metadata.tile_width is None:
        known = metadata.edge_um / metadata.mpp_x if metadata.edge_um and metadata.mpp_x else None
        edge = float(known or grid_step(coords) or 0)
        metadata = replace(metadata, tile_width=edge, tile_height=edge)
    far = coords.max(axis=0, initial=0) + np.array([metadata.tile_width or 0.0, metadata.tile_height or 0.0])
    # Corners are rounded to whole pixels, so a tile may seem to end half a pixel further than it does.
    extent = np.ceil(far - 0.5).astype(int)
    if metadata.level0_size is None:
        return replace(metadata, level0_size=(int(extent[0]), int(extent[1])))
    if (extent > metadata.level0_size).any():
        notes.append("tiles reach beyond the slide's edge, which is written as where they end")
        width, height = (max(int(e), s) for e, s in zip(extent, metadata.level0_size, strict=True))
        return replace(metadata, level0_size=(width, height))
    return metadata


def _identity(metadata: TileMetadata) -> Identity:
    return Identity(
        schema=FEATURES_SCHEMA,
        slide_fingerprint=UNKNOWN,
        mpp_level0_x=metadata.mpp_x or 0.0,
        mpp_level0_y=metadata.mpp_y or 0.0,
        mpp_target=metadata.mpp_target or 0.0,
        tile_px=metadata.tile_px or 0,
        overlap_px=metadata.overlap_px or 0,
        min_tissue=0.0,
        tissue_method=UNKNOWN,
        tissue_parameters="{}",
        artifacts_rule=UNKNOWN,
        encoder=metadata.encoder or UNKNOWN,
        encoder_weights_sha256=UNKNOWN,
        transform=UNKNOWN,
        precision=UNKNOWN,
        backend=UNKNOWN,
        annotations=UNKNOWN,
        stain=UNKNOWN,
    )


def _content(path: Path) -> str:
    try:
        return str(open_features_file(path).attrs.get("sha256"))
    except InputError:
        return ""
