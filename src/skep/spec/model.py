"""Models, and the references by which they are named."""

import re
from enum import StrEnum

import msgspec

from skep.errors import InvalidInput


class RefKind(StrEnum):
    """Where a model's file comes from."""

    PATH = "path"
    HUB = "hf"
    HTTPS = "https"


class ModelRef(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed reference. `text` is as written; `repo`, `file`, `revision` only for the hub; `sha256` where given."""

    kind: RefKind
    text: str
    path: str = ""
    repo: str = ""
    file: str = ""
    revision: str = "main"
    sha256: str = ""


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A model under the name that clients ask for."""

    name: str
    ref: ModelRef
    aliases: tuple[str, ...] = ()
    chat_template: str | None = None


_HUB = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)/(?P<file>[\w./-]+?)(?:@(?P<revision>[\w./-]+))?")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def parse_ref(text: str) -> ModelRef:
    """Parse a path, `hf:owner/repo/file@rev` or `https://…#sha256=…`. Raises: InvalidInput."""
    if text.startswith("hf:"):
        match = _HUB.fullmatch(text)
        if match is None or ".." in match["file"].split("/"):
            raise InvalidInput(f"{text!r} is not hf:owner/repo/file[@revision]", ref=text)
        return ModelRef(
            kind=RefKind.HUB,
            text=text,
            repo=match["repo"],
            file=match["file"],
            revision=match["revision"] or "main",
        )
    if text.startswith(("https://", "http://")):
        url, _, fragment = text.partition("#")
        digest = fragment.removeprefix("sha256=")
        if not _SHA256.fullmatch(digest):
            raise InvalidInput(f"{url} needs its checksum: add #sha256=<64 hex digits>", ref=text)
        return ModelRef(kind=RefKind.HTTPS, text=text, path=url, sha256=digest)
    if not text or "\0" in text:
        raise InvalidInput("a model reference is a path, hf:owner/repo/file or https://…#sha256=…", ref=text)
    return ModelRef(kind=RefKind.PATH, text=text, path=text)
