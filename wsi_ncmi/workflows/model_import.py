"""The import job: a checkpoint of another codebase to a folder that ``predict`` takes."""

from collections.abc import Sequence
from pathlib import Path

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import job_folder, sha256_file
from wsi_ncmi.core.provenance import collect_provenance
from wsi_ncmi.losses import build_loss, loss_config
from wsi_ncmi.losses.base import LogitCriterion
from wsi_ncmi.mil import import_checkpoint
from wsi_ncmi.training.checkpoint import MODEL_JSON, MODEL_WEIGHTS, write_trained
from wsi_ncmi.workflows.result import JobResult


def import_model(checkpoint: Path, class_names: Sequence[str], out: Path) -> JobResult:
    """Writes ``model.safetensors`` and ``model.json`` of a CLAM, DSMIL or TransMIL checkpoint.

    The head becomes that of a cross-entropy criterion, whose softmax is the published probability (DSMIL's
    own code takes a sigmoid of each logit instead; the order of the classes by score is the same).

    Args:
        checkpoint: The external file.
        class_names: Class names in the order of its outputs; a checkpoint doesn't hold them.
        out: New folder.

    Returns:
        The written files.

    Raises:
        InputError: The checkpoint doesn't fit, the names don't, or the folder holds a model already.
    """
    if (out / MODEL_JSON).exists():
        raise InputError(f"{out} holds a model already; choose another folder with --out.")
    imported = import_checkpoint(checkpoint)
    names = tuple(class_names)
    if len(names) != imported.num_classes or len(set(names)) != len(names):
        raise InputError(
            f"{checkpoint} has {imported.num_classes} outputs but the class names are {', '.join(names)}; "
            "give one name for each output, in their order, with --class-names."
        )
    loss = loss_config(name="ce")
    counts = (1,) * len(names)
    criterion = build_loss(loss, len(names), imported.aggregator.embedding_width, counts)
    assert isinstance(criterion, LogitCriterion)
    criterion.head.load_state_dict(imported.head.state_dict())
    job_folder(out)
    write_trained(
        out, imported.aggregator, criterion, classes=names, model=imported.config, loss=loss,
        class_counts=counts,
        extra={
            "imported_from": {"file": checkpoint.name, "sha256": sha256_file(checkpoint)},
            "provenance": collect_provenance(),
        },
    )  # fmt: skip
    note = (
        f"{checkpoint.name} is a {imported.config.name} of {len(names)} classes; its encoder isn't "
        "in it, so predict can't check that yours is the same."
    )
    return JobResult({"model": out / MODEL_JSON, "weights": out / MODEL_WEIGHTS}, notes=(note,))
