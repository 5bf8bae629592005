"""Damages inputs of every kind in every way it knows, and counts what the program makes of them.

    python benchmarks/fuzz.py [--count 2000] [--kind slides tiles …] [--seed 0] [--keep DIR] [--json]

Slides, tiles and names of slides go through ``extract``, many to a job with a sound one among them; all else
is read in a child process by the functions that the verbs call. Each input ends as one of

- same: accepted, with the result of the undamaged one;
- refused: one sentence, or a row with its reason;
- other: accepted with another result that is right: the input's format has no checksum, and a reference
  decoder (libjpeg-turbo and OpenJPEG, which refuse what they notice; h5py, pandas, json) reads the same;
- contained: it ended or held up the process that opened it, and cost its own row alone;

or as a fault: crash (an error that is no sentence, a job that ends), hang (no end in time), lost (no row),
silent (another result without a remark that the reference does not bear out), unclear (a sentence with a
traceback or the name of an exception in it). Exit code 1 with a fault. The same seed makes the same inputs.
"""

import argparse
import importlib
import json
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

from fuzz_kinds.harness import FAULTS, OUTCOMES

# Of 100 inputs.
SHARES = {
    "slides": 40, "tiles": 15, "features": 16, "bundles": 7, "tables": 12, "documents": 5, "names": 5
}  # fmt: skip


def _print_table(counts: dict[str, Counter[str]]) -> None:
    columns = (*OUTCOMES, *FAULTS)
    print(f"{'':34}{'inputs':>8}" + "".join(f"{name:>11}" for name in columns))
    for group, counter in counts.items():
        print(f"{group:34}{counter.total():8}" + "".join(f"{counter[name]:11}" for name in columns))
    total = sum(counts.values(), Counter[str]())
    print(f"{'all':34}{total.total():8}" + "".join(f"{total[name]:11}" for name in columns))


def main() -> None:
    """Runs the kinds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=2000, help="inputs in all")
    parser.add_argument("--kind", nargs="+", choices=SHARES, default=list(SHARES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the inputs that made a fault")
    parser.add_argument("--show", nargs="*", default=[], help="outcomes whose details are printed too")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    data = Path(os.environ["WSI_NCMI_TEST_DATA"]) if "WSI_NCMI_TEST_DATA" in os.environ else None
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    share = sum(SHARES[kind] for kind in arguments.kind)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        for kind in arguments.kind:
            count = max(1, round(arguments.count * SHARES[kind] / share))
            begun = time.monotonic()
            work = Path(temporary) / kind
            work.mkdir()
            module = importlib.import_module(f"fuzz_kinds.{kind}")
            # Inputs depend on the seed, the kind and their number alone.
            for result in module.inputs(count, arguments.seed, work, data):
                counts[f"{kind}: {result.group}"][result.outcome] += 1
                if result.outcome in FAULTS or result.outcome in arguments.show:
                    print(
                        f"{result.outcome}: {kind}, {result.group}, {result.what}: {result.detail}",
                        flush=True,
                    )
                if result.outcome in FAULTS and arguments.keep and result.content is not None:
                    name = f"{kind}-{result.group}-{arguments.seed}-{result.what}".replace("/", "_")
                    arguments.keep.mkdir(parents=True, exist_ok=True)
                    (arguments.keep / name.replace(" ", "_")).write_bytes(result.content)
            print(f"{kind}: {time.monotonic() - begun:.0f} s", flush=True)
    _print_table(counts)
    total = sum(counts.values(), Counter[str]())
    faults = sum(total[name] for name in FAULTS)
    print(f"{total.total()} inputs, {faults} faults, {time.monotonic() - started:.0f} s")
    if arguments.json:
        print(json.dumps({"inputs": total.total(), "faults": faults, "outcomes": total}))
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
