"""``wsi-ncmi inventory``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_ncmi.cli.common import named_path, say, say_json
from wsi_ncmi.cli.flags import ConfigFlags, Flag, Given

if TYPE_CHECKING:
    from wsi_ncmi.slides import SlideRecord

FLAGS = ConfigFlags(
    "wsi_ncmi.extraction.config.ExtractConfig",
    {
        "slides": Flag(argument=True),
        "mpp_table": Flag(metavar="CSV"),
        "default_mpp": Flag(),
        "dicom_id": Flag(panel="DICOM"),
        "dicom_patients": Flag(panel="DICOM"),
        "dicom_key": Flag(panel="DICOM", metavar="FILE"),
    },
)


def command(
    given: Given,
    out: Annotated[
        str, typer.Option("--out", metavar="CSV", help="Table to write.", rich_help_panel="Input")
    ] = "slides.csv",
    new_dicom_key: Annotated[
        bool,
        typer.Option("--new-dicom-key", help="Make the key of --dicom-key first.", rich_help_panel="DICOM"),
    ] = False,
) -> None:
    """List slides: reader, size, levels, mpp and its source, duplicates, problems.

    Example: wsi-ncmi inventory slides/ --out slides.csv
    """
    from wsi_ncmi.core.errors import InputError
    from wsi_ncmi.core.files import check_folder, ensure_folder
    from wsi_ncmi.slides import take_inventory, write_slides_csv
    from wsi_ncmi.slides.pseudonyms import make_key

    config, table = given.read(), named_path(out, "--out")
    check_folder(table.parent)
    if new_dicom_key:
        if config.dicom_key is None:
            raise InputError("--new-dicom-key makes a key for pseudonyms; name its file with --dicom-key.")
        make_key(config.dicom_key)
    records = take_inventory(
        config.slides, mpp_table=config.mpp_table, default_mpp=config.default_mpp, progress=given.progress,
        dicom_id=config.dicom_id, patient_key=config.patient_key,
    )  # fmt: skip
    if not records:
        raise InputError(
            f"There is no slide in {config.slides}, only files of other kinds or none; give the folder that "
            "holds the slides."
        )
    ensure_folder(table.parent)
    write_slides_csv(records, table)
    if given.as_json:
        say_json([asdict(record) for record in records])
    else:
        for record in records:
            say(_line(record))
        say(f"slides: {out}")
    raise typer.Exit(1 if any(record.problem for record in records) else 0)


def _line(record: SlideRecord) -> str:
    if record.problem:
        return f"{record.slide_id}: PROBLEM {record.problem}"
    copy = f", same content as {record.duplicate_of}" if record.duplicate_of else ""
    remark = f"; {record.remark}" if record.remark else ""
    mpp = " × ".join(dict.fromkeys(f"{each:g}" for each in (record.mpp_x, record.mpp_y)))
    return (
        f"{record.slide_id}: {record.vendor} by {record.reader}, {record.width_px} × {record.height_px} px, "
        f"{record.n_levels} levels, {mpp} µm/px ({record.mpp_source}){copy}{remark}"
    )
