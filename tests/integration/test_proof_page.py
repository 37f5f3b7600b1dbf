"""The page of a proof bundle in Debian's Chromium: what a person sees of a run that failed."""

import subprocess
import sys
from pathlib import Path

import pytest

FEATURE = """
Feature: A hive
  Scenario: It is asked for what it has
    Then it has it

  Scenario: It is asked for what it does not have
    Given the hive is running
    When I ask GET /nowhere
    Then the answer should be 200
    And the hive should be ready
"""
STEPS = """
from pytest_bdd import then
from skep.testkit.steps import *

@then("it has it")
def has() -> None:
    assert has
"""
FAILED = "article.failed"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """A run over a real hive with one failure; its bundle."""
    suite = tmp_path_factory.mktemp("page")
    (suite / "hive.feature").write_text(FEATURE)
    (suite / "conftest.py").write_text(STEPS)
    (suite / "test_hive.py").write_text('from pytest_bdd import scenarios\nscenarios("hive.feature")\n')
    done = subprocess.run(
        [sys.executable, "-m", "skep.cli.main", "prove", "--run-id", "page", "."],
        cwd=suite,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return suite / ".proof_bundle" / "bdd" / "page"


async def opened(browser, bundle: Path, faults: list[str], **options):
    """Open the page; what it asks of others, and what it complains of, are faults."""
    context = await browser.new_context(**options)
    page = await context.new_page()
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text) if said.type in ("error", "warning") else None)
    page.on("request", lambda asked: faults.append(asked.url) if not asked.url.startswith(("file:", "data:")) else None)  # fmt: skip
    await page.goto((bundle / "index.html").as_uri())
    return page


async def brightness(page) -> float:
    """How bright the page's background is, 0 to 255."""
    colour = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(float(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")[:3]) / 3


@pytest.mark.browser
@pytest.mark.parametrize(("scheme", "is_dark"), [("light", False), ("dark", True)])
async def test_a_failure_is_seen_at_once_in_both_colour_schemes(
    browser, bundle, scheme: str, is_dark: bool
) -> None:
    faults: list[str] = []
    page = await opened(browser, bundle, faults, color_scheme=scheme)
    assert (await brightness(page) < 128) is is_dark
    assert await page.locator("h1").inner_text() == "1 of 2 scenarios failed"
    step = page.locator(f"{FAILED} .steps li.failed")
    await step.wait_for(state="visible")
    assert "the answer should be 200" in await step.inner_text()
    assert "404" in await page.locator(f"{FAILED} .error").inner_text()
    tail = page.locator(f"{FAILED} details.log[open] pre")
    await tail.first.wait_for(state="visible")
    assert "hive_started" in await tail.first.inner_text()
    assert faults == []


@pytest.mark.browser
async def test_the_timings_are_a_picture_of_every_scenario_and_lead_to_it(browser, bundle) -> None:
    faults: list[str] = []
    page = await opened(browser, bundle, faults)
    bars = page.locator(".timeline rect")
    assert sorted([await each.get_attribute("class") for each in await bars.all()]) == ["failed", "passed"]
    for each in await bars.all():
        assert (await each.bounding_box())["width"] > 1
    await page.locator(".timeline rect.passed").click()
    await page.locator("details.scenario[open]:has-text('It is asked for what it has')").wait_for(
        state="visible"
    )
    assert faults == []


@pytest.mark.browser
async def test_the_page_filters_switches_its_colours_and_fits_a_telephone(browser, bundle) -> None:
    faults: list[str] = []
    page = await opened(browser, bundle, faults, color_scheme="light", viewport={"width": 390, "height": 800})
    assert await page.evaluate("document.documentElement.scrollWidth") <= 390
    await page.fill("#filter", "does not have")
    await page.locator("details.scenario:has-text('It is asked for what it has')").wait_for(state="hidden")
    assert await page.locator("details.scenario:visible").count() == 1
    before = await brightness(page)
    await page.click("#theme")
    assert await brightness(page) < before
    assert faults == []
