"""The dashboard: its pages' rules, and the page itself in Debian's Chromium."""

import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

DEVICE = {
    "id": "GPU-1", "kind": "cuda", "index": 0, "name": "Test accelerator",
    "memory_total_bytes": 16 << 30, "memory_free_bytes": 4 << 30, "temperature_c": 50,
}  # fmt: skip


@pytest.fixture
def guarded(start_queen, tmp_path):
    token = tmp_path / "token"
    token.write_text("correct horse")
    return start_queen("--token-file", str(token))


async def register(admin: str, worker: str, state: str = "ready", token: str = "correct horse") -> None:
    replica = {
        "replica_id": "r0",
        "url": worker,
        "instance": "i",
        "state": "ready",
        "slots_total": 4,
        "slots_free": 4,
    }
    pools = [
        {"pool_id": "pool-m", "model": "m", "state": state, "replicas": [replica] if state == "ready" else []}
    ]
    body = {
        "node_id": "gpu-1",
        "address": "http://127.0.0.1:9",
        "version": "0",
        "instance": "h",
        "pools": pools,
    }
    body["capabilities"] = {"cpu_cores": 8, "devices": [DEVICE]}
    headers = {"authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession(admin, headers=headers) as session,
        session.post("/v2/nodes/register", json=body) as answer,
    ):
        assert answer.status == 200


async def test_logging_in_trades_the_token_for_a_cookie_that_scripts_and_other_sites_cannot_use(guarded):
    async with aiohttp.ClientSession(guarded.admin, cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        async with session.get("/v2/overview") as answer:
            assert answer.status == 401
        async with session.post("/login", json={"token": "wrong"}) as answer:
            assert answer.status == 401
        async with session.post("/login", json={"token": "correct horse"}) as answer:
            cookie = answer.headers["set-cookie"].lower()
            assert answer.status == 200
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        async with session.get("/v2/overview") as answer:
            assert answer.status == 200
        ours, foreign = {"origin": guarded.admin}, {"origin": "http://evil.example"}
        for headers, status in (({}, 401), (foreign, 401), (ours, 404)):
            async with session.post("/v2/nodes/none/cordon", headers=headers) as answer:
                assert answer.status == status
        async with session.get("/v2/overview", headers={"host": "evil.example"}) as answer:
            assert answer.status == 400
        async with session.post("/logout", headers=ours) as answer:
            assert answer.status == 200
        async with session.get("/v2/overview") as answer:
            assert answer.status == 401


async def test_guessing_the_token_is_slowed_down(guarded):
    async with aiohttp.ClientSession(guarded.admin) as session:
        for _ in range(10):
            async with session.post("/login", json={"token": "guess"}) as answer:
                assert answer.status == 401
        async with session.post("/login", json={"token": "correct horse"}) as answer:
            assert answer.status == 401


async def test_changing_calls_are_audited_with_who_and_never_with_the_token(guarded):
    headers = {"authorization": "Bearer correct horse"}
    async with aiohttp.ClientSession(guarded.admin) as session:
        async with session.post("/v2/keys", json={"name": "ci"}, headers=headers) as answer:
            assert answer.status == 201
        async with session.get("/v2/keys", headers=headers) as answer:
            assert answer.status == 200
        for _ in range(100):
            async with session.get("/v2/audit", headers=headers) as answer:
                found = await answer.json()
            if found:
                break
    assert [(one["method"], one["path"], one["status"]) for one in found] == [("POST", "/v2/keys", 201)]
    assert found[0]["actor"].startswith("token:")
    assert "horse" not in json.dumps(found) + guarded.log.read_text()


async def test_the_page_names_no_outside_address(start_queen):
    queen = start_queen()
    async with aiohttp.ClientSession(queen.admin) as session:
        for path in ("/", "/app.js", "/style.css"):
            async with session.get(path) as answer:
                text = (await answer.text()).replace("http://www.w3.org/2000/svg", "")
                assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert "http:" not in text
            assert "https:" not in text


@pytest.fixture
async def page(browser) -> AsyncIterator:
    opened = await browser.new_page()
    faults: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("request", lambda request: faults.append(request.url) if "127.0.0.1" not in request.url and not request.url.startswith("data:") else None)  # fmt: skip
    yield opened
    assert faults == []


@pytest.mark.browser
async def test_log_in_and_watch_the_fleet_live_by_keyboard_alone(page, guarded, start_worker):
    worker, _ = start_worker()
    await page.goto(guarded.admin)
    await page.wait_for_selector("#token:focus")
    await page.keyboard.type("wrong")
    await page.keyboard.press("Enter")
    await page.wait_for_selector("#login-error:text('not the admin token')")
    await page.keyboard.type("correct horse")
    await page.keyboard.press("Enter")
    await page.wait_for_selector("#no-nodes:visible")
    await register(guarded.admin, worker, state="provisioning")
    await page.wait_for_selector(".card:has-text('gpu-1') .state:text('alive')")
    await page.wait_for_selector("[role=meter][aria-label='Memory of Test accelerator'][aria-valuenow='75']")
    await page.wait_for_selector("tr:has-text('pool-m') .state:text('provisioning')")
    await register(guarded.admin, worker)
    await page.wait_for_selector("tr:has-text('pool-m') .state:text('ready')")
    await page.focus("#message")
    await page.keyboard.type("what color is the sky?")
    await page.keyboard.press("Enter")
    await page.wait_for_selector("#chat-log p.model:text('the sky is blue.')")
    await page.wait_for_selector("#message:focus")
    await page.focus("tr:has-text('pool-m') button")
    await page.keyboard.press("Enter")
    await page.wait_for_selector("#detail[open] pre:has-text('does not answer')")
    await page.keyboard.press("Escape")
    await page.wait_for_selector("#detail", state="hidden")
    await page.click("#logout")
    await page.wait_for_selector("#login:visible")


@pytest.mark.browser
async def test_stopping_an_answer_cancels_it_at_the_worker(page, start_queen, start_worker):
    queen = start_queen()
    worker, _ = start_worker()
    await register(queen.admin, worker)
    await page.goto(queen.admin)
    await page.wait_for_selector("#model option", state="attached")
    await page.fill("#message", "for ever")
    await page.click("#send")
    await page.wait_for_selector("#chat-log p.model:has-text('x x')")
    await page.click("#stop")
    await page.wait_for_selector("#chat-log p.error:text('stopped')")
    async with aiohttp.ClientSession(worker) as session:
        for _ in range(200):
            async with session.get("/state") as answer:
                if (await answer.json())["running"] == 0:
                    return
    pytest.fail("the worker goes on")


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_text_stands_out_from_its_ground_and_everything_has_a_name(
    browser, start_queen, start_worker, scheme
):
    queen = start_queen()
    worker, _ = start_worker()
    await register(queen.admin, worker)
    page = await browser.new_page(color_scheme=scheme, bypass_csp=True)
    await page.goto(queen.admin)
    await page.wait_for_selector(".card .state")
    ratios = await page.evaluate(CONTRASTS)
    assert min(ratios.values()) >= 4.5, ratios
    nameless = await page.evaluate(
        "[...document.querySelectorAll('button,input,select,textarea')]"
        ".filter(one => !one.labels?.length && !one.textContent.trim() && !one.getAttribute('aria-label')).length"
    )
    assert nameless == 0


CONTRASTS = """() => {
  const channels = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const light = (text) => {
    const [r, g, b] = channels(text).map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      if (!/, 0\\)$/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const found = {};
  for (const one of document.querySelectorAll("h1, h2, .state, .quiet, .name, .value, td, th, button:enabled, label, .pill")) {
    if (!one.textContent.trim() || !one.checkVisibility()) continue;
    const [a, b] = [light(getComputedStyle(one).color), light(ground(one))];
    found[`${one.tagName}.${one.className}: ${one.textContent.slice(0, 20)}`] = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }
  return found;
}"""


@pytest.mark.browser
async def test_the_last_proof_bundles_are_shown(page, start_queen, tmp_path):
    folder = tmp_path / "bundles" / "bdd" / "run-1"
    folder.mkdir(parents=True)
    told = {"generated_by": "skep", "format": 1, "kind": "bdd", "run_id": "run-1", "complete": True}
    told |= {"outcome": "passed", "started_at": 1_700_000_000.0, "counts": {"passed": 7}}
    (folder / "metadata.json").write_text(json.dumps(told))
    broken = tmp_path / "bundles" / "bdd" / "run-2"
    broken.mkdir()
    (broken / "metadata.json").write_text("{")
    config = tmp_path / "skep.toml"
    config.write_text(f"[queen]\nproofs = {json.dumps(str(tmp_path / 'bundles'))}\n")
    queen = start_queen("--config", str(config))
    await page.goto(queen.admin)
    await page.wait_for_selector("#proofs .card:has-text('run-1') .state:text('passed')")
    assert await page.locator("#proofs .card").count() == 1
