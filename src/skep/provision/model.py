"""Models brought to a path: a file as it is, a hub file through its cache, an https file by its checksum."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from skep.errors.provision import HubFailed, NoSpace, StepForbidden
from skep.errors.runtime import ModelNotFound
from skep.provision.download import Want, download
from skep.provision.progress import OnProgress, Progress, silent
from skep.spec.model import ModelRef, RefKind

ALLOW_DOWNLOAD = frozenset({"download"})


async def ensure_model(
    ref: ModelRef, *, root: Path, allow: frozenset[str] = ALLOW_DOWNLOAD, on_progress: OnProgress = silent
) -> Path:
    """Return the path of the model's file, fetched below `root` when it is not there.

    Raises: ModelNotFound, StepForbidden, DownloadFailed (HubFailed), ChecksumMismatch, NoSpace.
    """
    match ref.kind:
        case RefKind.PATH:
            return _local(ref)
        case RefKind.HTTPS:
            target = root / ref.sha256 / _file_name(ref.path)
            if not target.exists():
                _permit(ref, allow)
            return await download(
                Want(url=ref.path, target=target, sha256=ref.sha256), on_progress=on_progress
            )
        case RefKind.HUB:
            return await asyncio.to_thread(_hub, ref, root / "hub", "download" in allow, on_progress)


def _local(ref: ModelRef) -> Path:
    path = Path(ref.path).expanduser().absolute()
    if not path.exists():
        raise ModelNotFound(
            f"{path}: there is no such file. Give a path, hf:owner/repo/file or https://…", path=str(path)
        )
    return path


def _permit(ref: ModelRef, allow: frozenset[str]) -> None:
    if "download" not in allow:
        raise StepForbidden(
            f"{ref.text} is not here, and [provisioning] allow does not list 'download'",
            permission="download",
        )


def _file_name(url: str) -> str:
    return PurePosixPath(unquote(urlsplit(url).path)).name or "model.gguf"


def _hub(ref: ModelRef, cache: Path, may_download: bool, on_progress: OnProgress) -> Path:
    """Blocking: huggingface_hub resumes, checks and shares by itself; its token comes from the environment."""
    from huggingface_hub import close_session, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted: Mapping[str, Any] = {
        "repo_id": ref.repo,
        "filename": ref.file,
        "revision": ref.revision,
        "cache_dir": cache,
        "endpoint": os.environ.get("HF_ENDPOINT"),
    }
    try:
        return Path(hf_hub_download(**wanted, local_files_only=True))
    except LocalEntryNotFoundError:
        if not may_download:
            _permit(ref, frozenset())
    on_progress(Progress(step="download", detail=ref.text))
    try:
        return Path(hf_hub_download(**wanted, tqdm_class=_bar(ref, on_progress)))
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", 0)
        hint = (
            "set HF_TOKEN to a token that may read it"
            if status in {401, 403}
            else "check owner, repo and file"
        )
        raise HubFailed(f"{ref.text}: the hub said {status}; {hint}", ref=ref.text, status=status) from error
    except LocalEntryNotFoundError as error:
        raise HubFailed(
            f"{ref.text}: the hub cannot be reached; run it again to resume", ref=ref.text
        ) from error
    except OSError as error:
        raise NoSpace(f"{ref.text}: cannot write below {cache}: {error}", path=str(cache)) from error
    finally:
        close_session()  # The hub's client would keep its connections for the life of the process.


def _bar(ref: ModelRef, on_progress: OnProgress) -> type:
    """Return a tqdm that tells `on_progress` and prints nothing."""
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    class Bar(tqdm):
        monitor_interval = 0  # No watcher thread.

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": False})  # type: ignore[no-untyped-call]

        def display(self, *_: Any, **__: Any) -> bool:
            on_progress(
                Progress(step="download", done=int(self.n), total=int(self.total or 0), detail=ref.file)
            )
            return True

        def close(self) -> None:
            self.disable = True

    return Bar
