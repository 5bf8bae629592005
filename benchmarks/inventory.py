"""Time to list a thousand slides.

    python benchmarks/inventory.py [--slides 1000] [--json]

Small SVS files (a few hundred kB, all different but for a tenth that are true copies) are written to nested
folders of a temporary place. The listing opens each, resolves its resolution, takes its fingerprint and
compares suspected copies byte by byte. ``--json`` prints one object as the last line.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from tile_reading import write_slide

from wsi_ncmi.slides import take_inventory


def main() -> None:
    """Measures one listing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slides", type=int, default=1000, help="number of files")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_slide(root / "one.svs", 1024)
        content = bytearray((root / "one.svs").read_bytes())
        (root / "one.svs").unlink()
        for number in range(arguments.slides):
            place = root / f"centre_{number % 5}" / f"patient_{number // 50}"
            place.mkdir(parents=True, exist_ok=True)
            # Bytes inside the first stored tiles: other pixels, the same header.
            content[1000:1004] = (number if number % 10 else 0).to_bytes(4, "little")
            (place / f"slide_{number:04d}.svs").write_bytes(content)
        wall, processor = time.perf_counter(), time.process_time()
        records = take_inventory(root)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
    copies = sum(bool(record.duplicate_of) for record in records)
    problems = sum(bool(record.problem) for record in records)
    load = os.getloadavg()[0]
    print(
        f"{len(records)} slides in {wall:.1f} s ({processor:.1f} s of processor time, load {load:.1f}), "
        f"{copies} copies, {problems} problems"
    )
    if arguments.json:
        values = {
            "slides": len(records), "seconds": round(wall, 2), "cpu_seconds": round(processor, 2),
            "copies": copies, "problems": problems, "load_1_min": round(load, 2),
        }  # fmt: skip
        print(json.dumps(values))


if __name__ == "__main__":
    main()
