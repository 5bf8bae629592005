"""Slides worth reviewing, the most confidently wrong and right ones, and their thumbnails with attention."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.cohorts import BagSource
from wsi_ncmi.features import open_features_file, thumbnail_path
from wsi_ncmi.features.thumbnails import thumbnail_area, undrawn_thumbnail
from wsi_ncmi.metrics import Evaluation

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from wsi_ncmi.training import TrainedModel


@dataclass(frozen=True)
class SlideRow:
    """One slide, its predictions averaged over seeds (and folds, where it is tested in several).

    Attributes:
        slide_id: Name.
        case_id: Patient.
        centre: Hospital or ``""``.
        label: Truth.
        prediction: What most of the runs predict; where most are wrong, their most frequent error.
        p_prediction: Mean probability of that class.
        p_label: Mean probability of the true class.
        wrong: Runs that got it wrong.
        runs: Runs that tested it.
        folds: Folds that tested it, as text.
        tiles: Tiles of the slide as text, or ``""``.
    """

    slide_id: str
    case_id: str
    centre: str
    label: str
    prediction: str
    p_prediction: float
    p_label: float
    wrong: int
    runs: int
    folds: str
    tiles: str


def best_and_worst(
    predictions: pd.DataFrame,
    evaluation: Evaluation,
    *,
    ledger: pd.DataFrame | None = None,
    limit_worst: int = 12,
    limit_best: int = 6,
) -> tuple[list[SlideRow], list[SlideRow], int]:
    """Chooses slides.

    Args:
        predictions: Rows of one loss.
        evaluation: Its evaluation, for the classes.
        ledger: For the number of tiles.
        limit_worst: Rows of the worst.
        limit_best: Rows of the best.

    Returns:
        ``(worst, best, n_wrong)``: slides that most runs get wrong, the most confident errors first; slides
        that all runs get right, the most confident of each class in turn; how many slides are wrong in most
        runs.
    """
    rows = all_slides(predictions, evaluation, ledger=ledger)
    wrong = sorted((row for row in rows if 2 * row.wrong > row.runs), key=lambda row: -row.p_prediction)
    right = sorted((row for row in rows if row.wrong == 0), key=lambda row: -row.p_label)
    return wrong[:limit_worst], _of_each_class(right, evaluation.classes)[:limit_best], len(wrong)


def _of_each_class(rows: Sequence[SlideRow], classes: Sequence[str]) -> list[SlideRow]:
    """One of each class in turn, as long as there are any; a patient's further slides last."""
    queues = {name: [row for row in rows if row.label == name] for name in classes}
    ordered: list[SlideRow] = []
    seen: set[str] = set()
    while any(queues.values()):
        for queue in queues.values():
            if queue:
                row = next((row for row in queue if row.case_id not in seen), queue[0])
                queue.remove(row)
                seen.add(row.case_id)
                ordered.append(row)
    return ordered


def all_slides(
    predictions: pd.DataFrame, evaluation: Evaluation, *, ledger: pd.DataFrame | None = None
) -> list[SlideRow]:
    """Every slide of one loss, by id; arguments as for :func:`best_and_worst`."""
    classes = evaluation.classes
    columns = [f"p_{name}" for name in classes]
    tiles: dict[str, str] = {}
    if ledger is not None and "tiles" in ledger.columns:
        tiles = {
            str(i): f"{int(n):,}" for i, n in zip(ledger["slide_id"], ledger["tiles"], strict=True) if n == n
        }
    place = {name: number for number, name in enumerate(classes)}
    # Columns as arrays, once: a table of its own for each slide costs more than the rest of a report.
    ids = predictions["slide_id"].astype(str).to_numpy(dtype=object)
    order = np.argsort(ids, kind="stable")
    probabilities = predictions[columns].to_numpy(dtype=np.float64)[order]
    texts = {
        name: predictions[name].astype(str).to_numpy(dtype=object)[order]
        for name in ("case_id", "label", "prediction", "centre")
        if name in predictions.columns
    }
    folds = predictions["fold"].to_numpy()[order]
    found, starts = np.unique(ids[order], return_index=True)
    rows = []
    for slide_id, start, end in zip(found, starts, [*starts[1:], len(ids)], strict=True):
        mean = probabilities[start:end].mean(axis=0)
        label = texts["label"][start]
        votes = Counter(texts["prediction"][start:end])
        wrong = int(end - start) - votes[label]
        if 2 * wrong > end - start:  # few right ones may still be more than any one error
            votes.pop(label, None)
        # Equal votes: the class that the mean probability prefers.
        most = max(votes.values())
        prediction = max(
            (name for name in classes if votes[name] == most), key=lambda name: mean[place[name]]
        )
        rows.append(
            SlideRow(
                slide_id=slide_id,
                case_id=texts["case_id"][start],
                centre=texts["centre"][start] if "centre" in texts else "",
                label=label,
                prediction=prediction,
                p_prediction=float(mean[place[prediction]]),
                p_label=float(mean[place[label]]),
                wrong=wrong,
                runs=int(end - start),
                folds=", ".join(map(str, sorted(set(folds[start:end].tolist())))),
                tiles=tiles.get(slide_id, ""),
            )
        )
    return rows


_MAX_BYTES = 800_000
_MAX_PX = 320
_QUALITY = 70
_STRENGTH = 0.62  # of the colour over the grey slide
_HEAD = 0.1

_Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class TileAttention:
    """Attention of a model on a slide.

    Attributes:
        level0_px: Width and height of the slide.
        coords: int64 (N, 2), level-0 top-left corners of the tiles.
        tile_px: Width and height of a tile in level-0 pixels.
        attention: float32 (N,), summing to 1; mean over the models that tested the slide.
        models: How many those were.
    """

    level0_px: tuple[int, int]
    coords: NDArray[np.int64]
    tile_px: tuple[float, float]
    attention: _Floats
    models: int


@dataclass(frozen=True)
class SlidePicture:
    """Pictures of a slide in the report.

    Attributes:
        slide: The thumbnail, a ``data:`` address.
        attention: The same in grey under the attention, or ``""``.
        width: Width of both in pixels.
        height: Their height.
        alt: Alternative text of the thumbnail.
        attention_alt: Alternative text of the attention.
        sentence: How concentrated the attention is.
    """

    slide: str
    attention: str
    width: int
    height: int
    alt: str
    attention_alt: str
    sentence: str


def slide_picture(slide_id: str, thumbnail: Path, found: TileAttention) -> SlidePicture | None:
    """Draws a slide's pair of pictures.

    Args:
        slide_id: Its name.
        thumbnail: The picture that the extraction made of it.
        found: The attention.

    Returns:
        The pair; None where the thumbnail is missing, can't be read, or doesn't mark which part of it is the
        slide.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(thumbnail) as picture:
            area = thumbnail_area(picture, found.level0_px)
            if area is None:
                return None
            drawn = picture.convert("RGB").crop((0, 0, *area))
            plain = undrawn_thumbnail(picture) or drawn
    except (OSError, UnidentifiedImageError):
        return None
    drawn.thumbnail((_MAX_PX, _MAX_PX))
    plain = plain.resize(drawn.size)
    top = _share_of_head(found.attention)
    models = f"mean of {found.models} models" if found.models > 1 else "one model"
    sentence = f"{len(found.attention):,} tiles; the most attended tenth holds {top:.0%} of the attention."
    return SlidePicture(
        slide=_address(plain),
        attention=_address(_with_attention(plain, found)),
        width=drawn.width,
        height=drawn.height,
        alt=f"Thumbnail of slide {slide_id}",
        attention_alt=f"Attention on slide {slide_id}, {models}: {sentence}",
        sentence=sentence,
    )


def _share_of_head(attention: _Floats) -> float:
    order = np.sort(attention)[::-1]
    return float(order[: max(1, round(_HEAD * len(order)))].sum() / max(float(order.sum()), 1e-12))


def _with_attention(small: Image.Image, found: TileAttention) -> Image.Image:
    """The slide in grey, tiles coloured by the rank of their attention within the slide."""
    import matplotlib as mpl
    from PIL import Image

    canvas = np.asarray(small.convert("L").convert("RGB"), dtype=np.float32)
    height, width = canvas.shape[:2]
    scale = np.array([width / found.level0_px[0], height / found.level0_px[1]])
    starts = np.floor(found.coords * scale).astype(np.int64)
    ends = np.maximum(
        np.ceil((found.coords + np.asarray(found.tile_px)) * scale).astype(np.int64), starts + 1
    )
    sums, counts = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    ranks = _ranks(found.attention)
    for (x0, y0), (x1, y1), rank in zip(starts, ends, ranks, strict=True):
        sums[y0:y1, x0:x1] += rank
        counts[y0:y1, x0:x1] += 1.0
    covered = counts > 0
    colours = mpl.colormaps["viridis"](sums[covered] / counts[covered])[:, :3] * 255.0
    canvas[covered] += (colours.astype(np.float32) - canvas[covered]) * np.float32(_STRENGTH)
    return Image.fromarray(np.clip(np.rint(canvas), 0, 255).astype(np.uint8))


def _ranks(attention: _Floats) -> _Floats:
    """Ranks from 0 to 1, equal attention sharing its mean rank."""
    if len(attention) < 2:
        return np.ones(len(attention), np.float32)
    _, places, counts = np.unique(attention, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts + 1) / 2)[places] / (len(attention) - 1.0)
    return np.asarray(ranks, dtype=np.float32)


def _address(picture: Image.Image) -> str:
    written = io.BytesIO()
    picture.save(written, format="WEBP", quality=_QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(written.getvalue()).decode('ascii')}"


def pictures_of(
    slide_ids: Sequence[str], source: BagSource, folder: Path, tested: pd.DataFrame
) -> dict[str, SlidePicture]:
    """Draws slides, where features of ours and thumbnails lie together.

    Args:
        slide_ids: The slides, the most worth seeing first: 0.8 MB of pictures are made.
        source: Their features.
        folder: Of one loss: ``fold_<k>/seed_<s>`` with the models inside.
        tested: Predictions of that loss; they say which models tested a slide. No other model's attention is
            taken, since one that was trained on the slide knows its label.

    Returns:
        Slide id → pictures; slides without features of ours, coordinates or thumbnail are left out.
    """
    out, features_set = source.path.parent.parent, source.path.name.partition("@")[2]
    from wsi_ncmi.training import load_trained  # with torch, which a report without pictures does not need

    models: dict[Path, TrainedModel] = {}
    found: dict[str, SlidePicture] = {}
    size_bytes = 0
    for slide_id in slide_ids:
        file, thumbnail = source.path / f"{slide_id}.h5", thumbnail_path(out, slide_id, features_set)
        if not file.is_file() or not thumbnail.is_file():
            continue
        features = open_features_file(file)
        runs = tested.loc[tested["slide_id"] == slide_id, ["fold", "seed"]].drop_duplicates()
        bag, attentions = source.load(slide_id), []
        for fold, seed in runs.itertuples(index=False):
            place = folder / f"fold_{fold}" / f"seed_{seed}"
            if place not in models:
                models[place] = load_trained(place)
            attentions.append(models[place].predict(bag, features.coords)[1])
        size, about = features.attrs, features.coords_attrs
        attention = TileAttention(
            level0_px=(int(about["level0_width"]), int(about["level0_height"])),
            coords=features.coords,
            tile_px=(float(size["tile_size_level0_x"]), float(size["tile_size_level0_y"])),
            attention=np.mean(attentions, axis=0, dtype=np.float32),
            models=len(attentions),
        )
        picture = slide_picture(slide_id, thumbnail, attention)
        if picture is None:
            continue
        size_bytes += len(picture.slide) + len(picture.attention)
        if size_bytes > _MAX_BYTES:  # the report stays a file that can be sent
            break
        found[slide_id] = picture
    return found
