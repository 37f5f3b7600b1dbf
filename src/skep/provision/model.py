"""Models brought to a path: a file as it is, a hub file through its cache, an https file by its checksum."""

import asyncio
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from skep.errors.provision import StepForbidden
from skep.errors.runtime import ModelNotFound
from skep.provision.download import Want, download
from skep.provision.hub import hub_file
from skep.provision.progress import OnProgress, silent
from skep.provision.verified import require_sha256
from skep.spec.model import ModelRef, RefKind

ALLOW_DOWNLOAD = frozenset({"download"})


async def ensure_model(
    ref: ModelRef, *, root: Path, allow: frozenset[str] = ALLOW_DOWNLOAD, on_progress: OnProgress = silent
) -> Path:
    """Return the path of the model's file, fetched below `root` when it is not there.

    A checksum that the reference carries is held against the file, wherever it came from.
    Raises: ModelNotFound, StepForbidden, DownloadFailed (HubFailed), ChecksumMismatch, NoSpace.
    """
    match ref.kind:
        case RefKind.HTTPS:
            target = root / ref.sha256 / _file_name(ref.path)
            if not target.exists():
                _permit(ref, allow)
            return await download(
                Want(url=ref.path, target=target, sha256=ref.sha256), on_progress=on_progress
            )
        case RefKind.PATH:
            path = _local(ref)
        case RefKind.HUB:
            path = await hub_file(
                ref, root / "hub", may_download="download" in allow, on_progress=on_progress
            )
    if ref.sha256:
        await asyncio.to_thread(require_sha256, path, ref.sha256, root=root)
    return path


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
