"""Models by path and from a hub that speaks the real hub's protocol."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from aiohttp import web

from skep.errors import InvalidInput
from skep.errors.provision import HubFailed, StepForbidden
from skep.errors.runtime import ModelNotFound
from skep.provision.model import ensure_model
from skep.provision.progress import Progress
from skep.spec.model import RefKind, parse_ref

BODY = b"GGUF" + bytes(200_000)
COMMIT = "c" * 40


class Hub:
    """Answers the two requests that huggingface_hub makes for one file."""

    def __init__(self) -> None:
        self.gets = 0
        self.tokens: list[str] = []
        self.status = 200

    async def resolve(self, request: web.Request) -> web.Response:
        self.tokens.append(request.headers.get("Authorization", ""))
        if self.status != 200:
            return web.Response(status=self.status, headers={"X-Error-Code": "GatedRepo"})
        headers = {"ETag": '"abc123"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if request.method == "HEAD":
            return web.Response(headers={**headers, "Content-Length": str(len(BODY))})
        self.gets += 1
        return web.Response(body=BODY, headers=headers)


@pytest.fixture
async def hub(monkeypatch) -> AsyncGenerator[Hub]:
    served = Hub()
    app = web.Application()
    app.router.add_route("*", "/owner/repo/resolve/{revision}/model.gguf", served.resolve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{runner.addresses[0][1]}")
    yield served
    await runner.cleanup()


async def test_a_hub_file_comes_once_and_is_found_offline_afterwards(hub: Hub, tmp_path: Path) -> None:
    told: list[Progress] = []
    ref = parse_ref("hf:owner/repo/model.gguf@v1")
    path = await ensure_model(ref, root=tmp_path, on_progress=told.append)
    assert path.read_bytes() == BODY
    again = await ensure_model(ref, root=tmp_path, allow=frozenset())
    assert again == path
    assert hub.gets == 1
    assert told[0].step == "download"


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_hub_that_refuses_is_told_with_the_next_step(hub: Hub, tmp_path: Path, status: int) -> None:
    hub.status = status
    with pytest.raises(HubFailed, match=r"HF_TOKEN|owner"):
        await ensure_model(parse_ref("hf:owner/repo/model.gguf"), root=tmp_path)


async def test_a_forbidden_download_is_refused_before_the_network_is_asked(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(StepForbidden):
        await ensure_model(parse_ref("hf:owner/repo/model.gguf"), root=tmp_path, allow=frozenset())
    assert hub.tokens == []


async def test_a_path_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="no such file"):
        await ensure_model(parse_ref(str(tmp_path / "none.gguf")), root=tmp_path)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("model.gguf", RefKind.PATH),
        ("hf:o/r/d/m.gguf@abc", RefKind.HUB),
        ("https://example.org/m.gguf#sha256=" + "a" * 64, RefKind.HTTPS),
    ],
)
def test_references_are_told_apart(text: str, kind: RefKind) -> None:
    assert parse_ref(text).kind is kind


@pytest.mark.parametrize(
    "text", ["", "hf:o", "hf:o/r", "hf:o/r/../../x", "https://example.org/m.gguf", "a\0b"]
)
def test_references_that_name_nothing_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_ref(text)
