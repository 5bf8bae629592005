"""A slide of 150,000 × 150,000 px with little tissue: peak memory, and time against the area of tissue.

    python benchmarks/large_slide.py [--tiles 400] [--json]

Sparse slides as CAMELYON's (BigTIFF, absent tiles, levels of factor 2) are written to a temporary folder with
1, 2, 4 and 8 times the tissue. Each goes through a process of its own: opening, tissue mask at 8 µm, grid,
choice of tiles, reading of all of them at 0.5 µm. Peak memory is that of the whole process; times are
processor time of its one thread, so that other work on the machine hardly counts. ``--json`` prints one
object as the last line.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SIDE_PX = 150_000
TARGET_MPP = 0.5
WORKING_MPP = 8.0
LIMIT_MIB = 600


def measure(path: Path) -> dict[str, float]:
    """Reads a slide's tissue tiles; times in seconds of processor time, memory in MiB."""
    from wsi_ncmi.slides import open_slide, resolve_mpp
    from wsi_ncmi.tiling import GridConfig, TileGrid, TileReader, select_tiles
    from wsi_ncmi.tissue import ArtifactConfig, TissueConfig, analyse_tissue

    options = GridConfig(mpp=TARGET_MPP)
    marks = [time.process_time()]
    with open_slide(path) as slide:
        mpp = resolve_mpp(slide)
        mask = analyse_tissue(slide, mpp, TissueConfig(working_mpp=WORKING_MPP), ArtifactConfig()).mask
        marks.append(time.process_time())
        grid = TileGrid.plan(slide.levels, mpp, options)
        selection = select_tiles(grid, mask, options.min_tissue)
        marks.append(time.process_time())
        read = failed = 0
        with TileReader(slide, grid, selection) as reader:
            for batch in reader.batches(32):
                read += len(batch.rows)
                failed += int(batch.failed.sum())
        marks.append(time.process_time())
    if failed:
        raise RuntimeError(f"{failed} tiles of a sound slide can't be read")
    masking, choosing, reading = np.diff(marks).tolist()
    return {
        "tiles": read,
        "mask_s": masking,
        "selection_s": choosing,
        "reading_s": reading,
        "peak_rss_mib": peak_rss_mib(),
    }


def peak_rss_mib() -> float:
    """Peak resident memory of this process; ``getrusage`` would tell that of the one that started it."""
    status = Path("/proc/self/status").read_text()
    return float(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]) / 1024


def in_new_process(path: Path) -> dict[str, float]:
    """The same in a process of its own, whose peak memory is that of this slide alone."""
    command = [sys.executable, str(Path(__file__).resolve()), "--measure", str(path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def fit_line(x: list[float], y: list[float]) -> tuple[float, float, float]:
    """Least squares ``y = a + b·x``: a, b and the share of the variance that the line explains."""
    slope, start = np.polyfit(x, y, 1)
    rest = np.asarray(y) - (start + slope * np.asarray(x))
    return float(start), float(slope), float(1.0 - rest.var() / np.var(y))


def main() -> None:
    """Measures four slides and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiles", type=int, default=400, help="stored tissue tiles of the first slide")
    parser.add_argument("--side-px", type=int, default=SIDE_PX, help="side of the slides")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    if arguments.measure is not None:
        print(json.dumps(measure(arguments.measure)))
        return
    from sparse_slide import write_sparse_slide

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for times in (1, 2, 4, 8):
            path = Path(folder) / f"{times}.tif"
            write_sparse_slide(path, arguments.side_px, times * arguments.tiles)
            row = in_new_process(path)
            path.unlink()
            rows.append(row)
            print(
                f"{row['tiles']:6.0f} tiles: mask {row['mask_s']:.2f} s, choice {row['selection_s']:.2f} s, "
                f"reading {row['reading_s']:.2f} s, peak {row['peak_rss_mib']:.0f} MiB",
                flush=True,
            )
    start, slope, explained = fit_line([row["tiles"] for row in rows], [row["reading_s"] for row in rows])
    print(f"reading: {start:.3f} s + {slope * 1e3:.3f} ms a tile, r² {explained:.4f}")
    if arguments.json:
        values = {
            "side_px": arguments.side_px,
            "peak_rss_mib": round(max(row["peak_rss_mib"] for row in rows)),
            "limit_mib": LIMIT_MIB,
            "mask_s": round(rows[0]["mask_s"], 3),
            "reading_start_s": round(start, 4),
            "reading_ms_per_tile": round(slope * 1e3, 4),
            "reading_r2": round(explained, 5),
            "tiles": [round(row["tiles"]) for row in rows],
            "reading_s": [round(row["reading_s"], 3) for row in rows],
        }
        print(json.dumps(values))


if __name__ == "__main__":
    main()
