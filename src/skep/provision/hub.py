"""A model's file from a hub: huggingface_hub resumes, checks and shares; we hold it to our manners.

Those are: a typed error for whatever it raises, room on the disk before the first byte, progress as ours, and an end
when the asker is gone (it runs in a thread, which nobody can cancel from outside).
"""

import asyncio
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skep.errors.provision import HubFailed, StepForbidden
from skep.provision.files import check_room, writing
from skep.provision.progress import OnProgress, Progress
from skep.spec.model import ModelRef


class _Gone(Exception):
    """Whoever asked has gone: ends the thread at its next chunk. The bytes that came are kept."""


async def hub_file(ref: ModelRef, cache: Path, *, may_download: bool, on_progress: OnProgress) -> Path:
    """Return the file's path below `cache`, fetched when it is not there.

    Raises: StepForbidden, HubFailed, NoSpace, DownloadFailed.
    """
    gone = threading.Event()
    work = asyncio.ensure_future(asyncio.to_thread(_fetch, ref, cache, may_download, on_progress, gone))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        gone.set()
        work.add_done_callback(lambda ended: ended.exception())  # Nobody is left whom it could be told.
        raise


def _fetch(
    ref: ModelRef, cache: Path, may_download: bool, on_progress: OnProgress, gone: threading.Event
) -> Path:
    """Blocking. The token comes from the environment."""
    from huggingface_hub import close_session

    wanted: Mapping[str, Any] = {
        "repo_id": ref.repo,
        "filename": ref.file,
        "revision": ref.revision,
        "cache_dir": cache,
        "endpoint": os.environ.get("HF_ENDPOINT"),
    }
    try:
        return _here(ref, wanted, may_download) or _download(
            ref, wanted, _bar(ref, cache, on_progress, gone), on_progress
        )
    finally:
        close_session()  # The hub's client would keep its connections for the life of the process.


def _here(ref: ModelRef, wanted: Mapping[str, Any], may_download: bool) -> Path | None:
    """Return the file that was fetched before, or None when it may be fetched. Raises: StepForbidden, HubFailed."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(**wanted, local_files_only=True))
    except HFValidationError as error:
        raise HubFailed(f"{ref.text}: {error}", ref=ref.text) from error
    except LocalEntryNotFoundError:
        if not may_download:
            raise StepForbidden(
                f"{ref.text} is not here, and [provisioning] allow does not list 'download'",
                permission="download",
            ) from None
    return None


def _download(ref: ModelRef, wanted: Mapping[str, Any], bar: type, on_progress: OnProgress) -> Path:
    """The one place where the hub's exceptions become ours."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        HfHubHTTPError,
        HTTPError,
        LocalEntryNotFoundError,
        RevisionResolutionError,
        XetDownloadError,
    )

    again = "run it again to resume"
    on_progress(Progress(step="download", detail=ref.text))
    try:
        with writing(wanted["cache_dir"]):
            try:
                return Path(hf_hub_download(**wanted, tqdm_class=bar))
            except HfHubHTTPError as error:
                raise _refused(ref, getattr(error.response, "status_code", 0)) from error
            except LocalEntryNotFoundError as error:
                raise HubFailed(f"{ref.text}: the hub cannot be reached; {again}", ref=ref.text) from error
            except (HTTPError, XetDownloadError, RevisionResolutionError) as error:
                raise HubFailed(
                    f"{ref.text}: {error or type(error).__name__}; {again}", ref=ref.text
                ) from error
            except OSError as error:
                if error.errno is None:  # Its word for a file that came with another length.
                    raise HubFailed(f"{ref.text}: {error}", ref=ref.text) from error
                raise
    except _Gone:
        raise HubFailed(f"{ref.text}: given up; {again}", ref=ref.text) from None


def _refused(ref: ModelRef, status: int) -> HubFailed:
    hint = (
        "set HF_TOKEN to a token that may read it" if status in {401, 403} else "check owner, repo and file"
    )
    return HubFailed(f"{ref.text}: the hub said {status}; {hint}", ref=ref.text, status=status)


def _bar(ref: ModelRef, cache: Path, on_progress: OnProgress, gone: threading.Event) -> type:
    """Return a tqdm that tells `on_progress` and prints nothing; it is also where the hub's loop can be stopped."""
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    class Bar(tqdm):
        monitor_interval = 0  # No watcher thread.

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": False})  # type: ignore[no-untyped-call]
            check_room(cache, int((self.total or 0) - self.n))

        def update(self, n: float | None = 1) -> bool | None:
            if gone.is_set():
                raise _Gone
            return super().update(n)  # type: ignore[no-any-return]

        def display(self, *_: Any, **__: Any) -> bool:
            on_progress(
                Progress(step="download", done=int(self.n), total=int(self.total or 0), detail=ref.file)
            )
            return True

        def close(self) -> None:
            self.disable = True

    return Bar
