"""The Hugging Face hub: downloads to a folder, its refusals in one sentence."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsi_ncmi.core.errors import InputError, WsiNcmiError, first_line


@dataclass(frozen=True)
class HubSource:
    """A repository of the hub, and what to say where it can't be had.

    The token is the one that ``huggingface_hub`` finds (``HF_TOKEN`` or a login); it is never shown.
    ``HF_ENDPOINT`` names another hub, ``HF_HUB_OFFLINE`` forbids downloads.

    Attributes:
        encoder: The encoder it is for.
        repository: ``owner/name``.
        access: One sentence: how to get access.
        elsewhere: The end of a sentence: what to do on a machine without the hub.
        kind: ``model`` or ``dataset``.
        revision: Branch, tag or commit; the newest by default.
    """

    encoder: str
    repository: str
    access: str
    elsewhere: str
    kind: str = "model"
    revision: str | None = None

    @property
    def where(self) -> str:
        """Its address."""
        return f"{_endpoint()}/{'datasets/' if self.kind == 'dataset' else ''}{self.repository}"

    def check_allowed(self) -> None:
        """Refuses where downloads are forbidden.

        Raises:
            InputError: ``HF_HUB_OFFLINE`` is set.
        """
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
            raise InputError(
                f"HF_HUB_OFFLINE is set, so the weights of {self.encoder} can't be fetched; unset it, or "
                f"{self.elsewhere}."
            )

    def first_of(self, names: Sequence[str], scratch: Path) -> tuple[Path, str, str]:
        """Downloads the first of some files that is there: its path, commit and name.

        Raises:
            InputError: None is there, access is missing, or the revision.
            WsiNcmiError: The hub did not answer, or the disk is full.
        """
        import huggingface_hub
        from huggingface_hub import errors

        common: dict[str, Any] = {"repo_type": self.kind, "revision": self.revision, "endpoint": _endpoint()}
        with self._told():
            for name in names:
                try:
                    path = huggingface_hub.hf_hub_download(self.repository, name, local_dir=scratch, **common)
                except errors.EntryNotFoundError as error:
                    if isinstance(error, errors.LocalEntryNotFoundError):
                        raise
                    continue
                url = huggingface_hub.hf_hub_url(self.repository, name, **common)
                commit = huggingface_hub.get_hf_file_metadata(url).commit_hash
                return Path(path), commit or "unknown", name
        raise InputError(
            f"{self.where} has none of the files {', '.join(names)}; download the weights by hand and use "
            f"wsi-ncmi encoders import FILE --as {self.encoder}."
        )

    def commit(self) -> tuple[str, dict[str, str]]:
        """The commit that the revision is now, and its files with the hub's SHA-256 where it states one."""
        import huggingface_hub

        with self._told():
            found = huggingface_hub.HfApi(endpoint=_endpoint()).model_info(
                self.repository, revision=self.revision, files_metadata=True
            )
        files = {each.rfilename: each.lfs.sha256 if each.lfs else "" for each in found.siblings or ()}
        return str(found.sha), files

    def download(self, names: Sequence[str], commit: str, folder: Path) -> None:
        """Downloads files of a commit into a folder, under their own names."""
        import huggingface_hub

        with self._told():
            for name in names:
                huggingface_hub.hf_hub_download(
                    self.repository, name, revision=commit, local_dir=folder, endpoint=_endpoint()
                )

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        from huggingface_hub import errors

        try:
            yield
        except (errors.GatedRepoError, errors.RepositoryNotFoundError) as error:
            # Without a token the hub answers a private or gated repository with 401, as if it were not there.
            raise InputError(
                f"The hub refused {self.encoder} ({self.where}): access to it must be granted to your token "
                f"first. {self.access}"
            ) from error
        except errors.RevisionNotFoundError as error:
            raise InputError(
                f"{self.where} has no revision {self.revision!r}; leave --revision out."
            ) from error
        except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            if status in (401, 403):
                raise InputError(
                    f"The hub refused {self.encoder} ({self.where}, status {status}). {self.access}"
                ) from error
            answer = f"status {status}" if status else "no answer"
            raise WsiNcmiError(
                f"The hub gave no weights of {self.encoder} ({self.where}, {answer}); try again, or "
                f"{self.elsewhere}."
            ) from error
        except OSError as error:
            raise WsiNcmiError(
                f"The weights of {self.encoder} can't be downloaded "
                f"({error.strerror or type(error).__name__}); free space or try again."
            ) from error
        except Exception as error:  # the library's network client has errors of its own (httpx since 1.0)
            raise WsiNcmiError(
                f"The hub gave no weights of {self.encoder} ({self.where}, no answer: "
                f"{first_line(error)}); check the network and "
                f"HF_ENDPOINT, or {self.elsewhere}."
            ) from error


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
