"""Heatmaps against lesions: attention and tile evidence beside the outlines of synthetic slides.

    wsi-ncmi demo --out demo
    wsi-ncmi synth fresh --seed 1 --slides 50
    wsi-ncmi extract fresh/slides --out fresh --encoder descriptor
    python benchmarks/heatmap_truth.py --runs demo/run --cohort fresh --json

The models are those of ``--runs`` (a folder with one folder a loss), the slides others than they were
trained on. A tile counts by the share of it that lies in tumour. Figures are means over slides with tumour,
with a 95 % bootstrap interval over slides:

- ``mass``: share of the attention that lies in tumour; ``area``: share of the tiles' area that does, which is
  what even attention would give; ``gain``: mass / area.
- ``auroc_attention``, ``auroc_evidence``: how well the number ranks tiles with more than half in tumour above
  tiles without any. Evidence is one minus the probability of ``negative`` of the tile alone.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import shapely
from sklearn.metrics import roc_auc_score

from wsi_ncmi.features import open_features_file
from wsi_ncmi.prediction import load_ensemble
from wsi_ncmi.prediction.ensemble import Ensemble
from wsi_ncmi.reporting.heatmaps import tile_values
from wsi_ncmi.tissue import read_geojson

RESAMPLES = 2000


def tumour_share(truth: Path, boxes: np.ndarray) -> np.ndarray:
    """Share of each box under tumour, (N,)."""
    tumour = shapely.union_all([area.polygon for area in read_geojson(truth) if area.name == "tumor"])
    shapely.prepare(tumour)
    tiles = shapely.box(*boxes.T)
    return shapely.area(shapely.intersection(tiles, tumour)) / shapely.area(tiles)


def of_slide(ensemble: Ensemble, features: np.ndarray, share: np.ndarray) -> dict[str, float]:
    """The figures of one slide."""
    answer = ensemble.predict(features)
    evidence = 1 - ensemble.tile_probabilities(features)[:, ensemble.classes.index("negative")]
    found = {
        "mass": float(answer.attention @ share),
        "area": float(share.mean()),
    }
    found["gain"] = found["mass"] / found["area"]
    clear = (share > 0.5) | (share == 0)
    positive = share[clear] > 0.5
    if 0 < positive.sum() < len(positive):
        found["auroc_attention"] = float(roc_auc_score(positive, answer.attention[clear]))
        found["auroc_evidence"] = float(roc_auc_score(positive, evidence[clear]))
    return found


def summary(rows: list[dict[str, float]], name: str) -> dict[str, float]:
    """Mean and interval over slides."""
    values = np.array([row[name] for row in rows if name in row])
    if not len(values):
        return {"slides": 0}
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {
        "mean": round(float(values.mean()), 4), "low": round(float(low), 4), "high": round(float(high), 4),
        "slides": len(values),
    }  # fmt: skip


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, required=True, help="folder with a run folder a loss")
    parser.add_argument("--cohort", type=Path, required=True, help="synth folder with features/ and truth/")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    folder = next((arguments.cohort / "features").iterdir())
    slides = []
    for path in sorted(folder.glob("*.h5")):
        file = open_features_file(path)
        truth = arguments.cohort / "truth" / f"{path.stem}.geojson"
        if file.n_tiles and "tumor" in truth.read_text():
            slides.append((file, tumour_share(truth, tile_values(file).boxes)))
    result: dict[str, object] = {"slides_with_tumour": len(slides)}
    for run in sorted(path for path in arguments.runs.iterdir() if (path / "fold_0").is_dir()):
        ensemble = load_ensemble(run)
        rows = [
            of_slide(ensemble, np.asarray(file.features), share) for file, share in slides if share.max() > 0
        ]
        result[run.name] = {
            name: summary(rows, name)
            for name in ("mass", "area", "gain", "auroc_attention", "auroc_evidence")
        }
        if not arguments.json:
            print(run.name, json.dumps(result[run.name], indent=2))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
