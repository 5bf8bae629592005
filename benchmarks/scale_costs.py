"""Cost of a large job apart from its tiles: claims, journal, ledger, tables, and handing a slide over.

    python benchmarks/scale_costs.py [--slides 100000] [--folder DIR] [--json]

DIR is where claims and journals are written; give the storage that the job will use.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from wsi_ncmi.encoders import EncoderConfig, load_encoder
from wsi_ncmi.extraction.claims import check_conflicts, claim
from wsi_ncmi.extraction.config import ExtractConfig
from wsi_ncmi.extraction.ledger import Journal, LedgerRow, read_ledger, write_ledger
from wsi_ncmi.extraction.task import SlideTask
from wsi_ncmi.slides import SlideRecord, read_slides_csv, write_slides_csv

REPEATS = 200


def median_ms(act: Callable[[int], object]) -> float:
    """Median milliseconds of an action."""
    times = []
    for number in range(REPEATS):
        started = time.perf_counter()
        act(number)
        times.append(time.perf_counter() - started)
    return round(statistics.median(times) * 1e3, 3)


def seconds(act: Callable[[], object]) -> float:
    """Seconds of one action."""
    started = time.perf_counter()
    act()
    return round(time.perf_counter() - started, 2)


def row(number: int) -> LedgerRow:
    """A row of ordinary length."""
    return LedgerRow(
        f"TCGA-A1-A0SB-01Z-00-DX{number:06d}.B34C267B", f"BRCA/TCGA-A1-A0SB-DX{number:06d}.svs", "done",
        tiles=12_345, seconds=123.456, reader="openslide", mpp=0.2525, mpp_source="vendor property",
    )  # fmt: skip


def record(number: int) -> SlideRecord:
    """A slide of ordinary size."""
    return SlideRecord(
        row(number).slide_id, row(number).path, "openslide", "aperio", 98_304, 81_920, 4, 0.2525, 0.2525,
        "vendor property", f"{number:064x}", 1 << 30,
    )  # fmt: skip


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slides", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        out = Path(temporary)

        def take(number: int) -> None:
            with claim(out / f"slide_{number}"):
                pass

        result: dict[str, object] = {"slides": arguments.slides, "claim_and_release_ms": median_ms(take)}
        with Journal(out / "ledger.jsonl") as journal:
            result["journal_row_ms"] = median_ms(lambda number: journal.append(row(number)))
        rows = [row(number) for number in range(arguments.slides)]
        result["ledger_write_s"] = seconds(lambda: write_ledger(rows, out / "ledger.csv"))
        result["ledger_read_s"] = seconds(lambda: read_ledger(out / "ledger.csv"))
        result["ledger_mb"] = round((out / "ledger.csv").stat().st_size / 1e6, 1)
        result["journal_mb"] = round(
            (out / "ledger.jsonl").stat().st_size / 1e6 / REPEATS * arguments.slides, 1
        )
        records = [record(number) for number in range(arguments.slides)]
        write_slides_csv(records, out / "slides.csv")
        result["inventory_mb"] = round((out / "slides.csv").stat().st_size / 1e6, 1)
        result["inventory_read_s"] = seconds(lambda: read_slides_csv(out / "slides.csv"))
        tasks = [SlideTask(each, ExtractConfig(slides=out, out=out)) for each in records]
        encoder = load_encoder(EncoderConfig())
        result["conflict_check_s"] = seconds(lambda: check_conflicts(tasks, encoder.info))
    print(json.dumps(result) if arguments.json else result)


if __name__ == "__main__":
    main()
