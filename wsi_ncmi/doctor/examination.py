"""Runs every check; one that breaks is a finding itself."""

from collections.abc import Callable, Iterator

from wsi_ncmi.doctor import compute, machine, readers, storage
from wsi_ncmi.doctor.finding import DoctorConfig, Finding

_CHECKS: tuple[Callable[[DoctorConfig], Iterator[Finding]], ...] = (
    readers.python,
    readers.openslide,
    readers.pixman,
    readers.pixels,
    readers.tiffslide,
    readers.more_readers,
    readers.codecs,
    compute.torch,
    compute.gpus,
    compute.throughput,
    storage.weights_folder,
    storage.offline_switch,
    machine.cores,
    machine.memory,
    machine.shared_memory_size,
    machine.limits,
    machine.user,
    machine.clock,
    storage.slide_folder,
    storage.output_folder,
    storage.disk_space,
    storage.disk_speed,
)


def examine(config: DoctorConfig) -> list[Finding]:
    """Looks at the machine.

    Args:
        config: Settings of the check.

    Returns:
        One finding a check or more; a check that itself breaks is a ``fail`` with the reason.
    """
    if config.gpu:
        from wsi_ncmi.doctor.gpu import examine_gpu

        return [*compute.torch(config), *examine_gpu()]
    findings: list[Finding] = []
    for check in _CHECKS:
        try:
            findings.extend(check(config))
        except Exception as error:
            name = check.__name__.replace("_", " ")
            reason = f"{type(error).__name__}: {error}"
            findings.append(Finding(name, "fail", reason, "Install the locked versions again (make setup)."))
    return findings
