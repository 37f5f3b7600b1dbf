"""A failing test's report shows what its workers have to tell; a passing one's does not."""

pytest_plugins = ["pytester"]

TESTS = """
from skep.testkit.harness import WorkerHarness

pytest_plugins = ["skep.testkit.harness.plugin"]

async def start():
    return await WorkerHarness.start("fake:a", worker_id="w-report")

async def test_fails_inside():
    async with await start():
        assert False

async def test_fails_afterwards():
    async with await start():
        pass
    assert False

async def test_passes():
    async with await start():
        pass

def test_fails_without_a_worker():
    assert False
"""


def test_log_and_memory_are_in_the_report_of_the_test_that_failed(pytester):
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_subprocess("-p", "pytest_asyncio", "-o", "asyncio_mode=auto", "-q")
    result.assert_outcomes(failed=3, passed=1)
    text = result.stdout.str()
    assert text.count("worker w-report (pid") == 2
    for part in ('"event":"ready"', "before  ram", "peak    ram", "after   ram"):
        assert text.count(part) >= 2, part
