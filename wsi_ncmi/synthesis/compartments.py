"""The compartments of a lymph node on the coarse grid."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.synthesis.fields import coarse_noise

__all__ = ["PITCH_UM", "Compartments", "draw_compartments"]

#: Mean distance of the places where a nucleus of a kind may lie, µm.
PITCH_UM = {"spindle": 13.0, "histiocyte": 13.0, "lymphocyte": 7.0, "germinal": 9.6, "tumour": 12.8}

FloatMap = NDArray[np.float32]


@dataclass(frozen=True)
class Compartments:
    """Coarse maps, all of the same shape (rows, columns).

    Attributes:
        weights: Tissue → uint8 opacity; tissues are laid over ``cortex`` in this order.
        nuclei: Nucleus kind → float32 probability that a place of its grid is taken.
        upright: bool, True where spindle nuclei and fibres run along y.
        thickness: uint8, 255 = full density (uneven section and staining).
    """

    weights: dict[str, NDArray[np.uint8]]
    nuclei: dict[str, FloatMap]
    upright: NDArray[np.bool_]
    thickness: NDArray[np.uint8]


def draw_compartments(
    rng: np.random.Generator,
    cell_um: float,
    depth_um: FloatMap,
    lesion: NDArray[np.bool_],
    fat_um: FloatMap,
    *,
    solid: bool,
) -> Compartments:
    """Divides the tissue of a slide.

    Args:
        rng: Source of randomness.
        cell_um: Edge of a coarse cell, µm.
        depth_um: Distance to the tissue's edge, 0 outside, µm.
        lesion: Where tumour lies.
        fat_um: Distance to the edge of the nearest fat cell, negative inside, µm.
        solid: Whether the tumour has no stroma of its own (small foci).

    Returns:
        The coarse maps.
    """
    from scipy import ndimage

    rows, columns = depth_um.shape

    def noise(length_um: float) -> FloatMap:
        return coarse_noise(rng, rows, columns, length_um / cell_um)

    smooth = ndimage.gaussian_filter(depth_um, 8.0 / cell_um * 2)
    grad_y, grad_x = np.gradient(smooth)
    upright_share = np.clip(grad_x**2 / np.maximum(grad_x**2 + grad_y**2, 1e-6) * 3.0 - 1.0, 0.0, 1.0)

    capsule_um = 16.0 + 7.0 * noise(200.0)
    capsule = _step(capsule_um - depth_um, 6.0)
    trabeculae = _step(0.055 - np.abs(noise(330.0)), 0.02) * _step(depth_um - 20.0, 20.0)
    vessels, lumen = _vessels(rng, cell_um, depth_um, lesion)
    stroma = np.clip(np.maximum.reduce([capsule, trabeculae, vessels, _step(3.5 - fat_um, 2.0)]), 0, 1)

    medulla = _step(depth_um - 230.0 + 70.0 * noise(260.0), 60.0)
    channels = _step(0.42 - np.abs(noise(75.0)), 0.12)
    subcapsular = _step(14.0 - np.abs(depth_um - capsule_um - 13.0), 5.0) * _step(noise(120.0) + 0.9, 0.4)
    sinus = np.clip(np.maximum(medulla * channels * 0.9, subcapsular), 0, 1) * (1 - stroma)
    germinal, mantle = _follicles(rng, cell_um, depth_um)
    germinal *= (1 - stroma) * (1 - subcapsular)
    sinus *= 1 - np.maximum(germinal, mantle)

    tumour = np.clip(ndimage.gaussian_filter(lesion.astype(np.float32), 0.7) * 1.6 - 0.3, 0.0, 1.0)
    if solid:
        nests = tumour
    else:
        nests = tumour * _step(noise(70.0) + 0.45 * noise(30.0) + 0.75, 0.18)
    own_stroma = tumour * (1 - nests)
    rest = 1 - tumour
    stroma_all = np.maximum(stroma * rest, own_stroma)
    turned = np.where(tumour > 0.3, _step(noise(110.0), 0.2), upright_share)
    cortex = rest * (1 - stroma) * (1 - germinal) * (1 - sinus)

    within = (depth_um > 5.0) & (fat_um > 4.5)
    taken = {
        "spindle": 0.55 * stroma_all,
        "histiocyte": rest * (0.62 * sinus + 0.05 * cortex),
        "lymphocyte": cortex * (0.80 + 0.16 * mantle)
        + rest * (0.20 * sinus + 0.04 * stroma + 0.10 * germinal)
        + 0.14 * own_stroma
        + 0.02 * nests,
        "germinal": rest * 0.86 * germinal,
        "tumour": 0.96 * nests,
    }
    thickness = 236.0 + 11.0 * noise(420.0) + 5.0 * noise(90.0)
    maps = {
        "germinal": germinal * rest,
        "sinus": sinus * rest,
        "stroma": stroma_all,
        "stroma_v": stroma_all * turned,
        "blood": lumen * rest,
        "tumour": nests,
    }
    return Compartments(
        {name: _bytes(value) for name, value in maps.items()},
        {
            name: np.where(within & (lumen < 0.3), value, 0).astype(np.float32)
            for name, value in taken.items()
        },
        turned > 0.5,
        np.clip(thickness, 190, 255).astype(np.uint8),
    )


def _follicles(rng: np.random.Generator, cell_um: float, depth_um: FloatMap) -> tuple[FloatMap, FloatMap]:
    rows, columns = depth_um.shape
    germinal = np.zeros((rows, columns), dtype=np.float32)
    mantle = np.zeros_like(germinal)
    places = np.argwhere((depth_um > 110.0) & (depth_um < 240.0))
    if len(places) == 0:
        return germinal, mantle
    y, x = np.indices((rows, columns), dtype=np.float32)
    wobble = coarse_noise(rng, rows, columns, 60.0 / cell_um)
    for row, column in places[rng.integers(len(places), size=int(rng.integers(3, 8)))]:
        radius, stretch, angle = rng.uniform(50.0, 105.0), rng.uniform(0.75, 1.3), rng.uniform(0, np.pi)
        dx, dy = (x - column) * cell_um, (y - row) * cell_um
        u = (dx * np.cos(angle) + dy * np.sin(angle)) / stretch
        v = (-dx * np.sin(angle) + dy * np.cos(angle)) * stretch
        inside = radius * (1 + 0.07 * wobble) - np.hypot(u, v)
        np.maximum(germinal, _step(inside, 10.0), out=germinal)
        np.maximum(mantle, _step(inside + 28.0, 12.0), out=mantle)
    return germinal, mantle * (1 - germinal)


def _vessels(
    rng: np.random.Generator, cell_um: float, depth_um: FloatMap, lesion: NDArray[np.bool_]
) -> tuple[FloatMap, FloatMap]:
    wall = np.zeros(depth_um.shape, dtype=np.float32)
    lumen = np.zeros_like(wall)
    places = np.argwhere((depth_um > 90.0) & ~lesion)
    if len(places) == 0:
        return wall, lumen
    y, x = np.indices(depth_um.shape, dtype=np.float32)
    for row, column in places[rng.integers(len(places), size=int(rng.integers(4, 11)))]:
        radius, stretch, angle = rng.uniform(8.0, 26.0), rng.uniform(0.6, 1.7), rng.uniform(0, np.pi)
        dx, dy = (x - column) * cell_um, (y - row) * cell_um
        u = (dx * np.cos(angle) + dy * np.sin(angle)) / stretch
        distance = np.hypot(u, (-dx * np.sin(angle) + dy * np.cos(angle)) * stretch)
        np.maximum(lumen, _step(radius - distance, 3.0), out=lumen)
        np.maximum(wall, _step(radius * 1.25 + 9.0 - distance, 4.0), out=wall)
    return wall, lumen


def _step(value: NDArray[np.floating], width: float) -> FloatMap:
    """0 below −width/2, 1 above width/2, linear between."""
    return np.asarray(np.clip(value / width + 0.5, 0.0, 1.0), dtype=np.float32)


def _bytes(value: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.asarray(np.rint(np.clip(value, 0, 1) * 255), dtype=np.uint8)
