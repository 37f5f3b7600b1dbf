"""The pytest plugin, loaded by entry point: nothing but options until a suite asks for more.

    [tool.pytest.ini_options]
    skep_bdd = true           # the lint, async steps, checked `Then`, events, proof bundles
    skep_ledger = true        # the test that leaks a process, port, fd, thread or temporary file fails

The flags `--skep-bdd` and `--skep-ledger` ask for one run. `skep prove` gives them.
"""

import pytest

pytest.register_assert_rewrite(
    "skep.testkit.steps", "skep.testkit.world", "skep.testkit.harness", "skep.testkit.waiting"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare options and settings; all names start with `skep`, so that no other suite's can collide."""
    group = parser.getgroup("skep", "skep: features that cannot lie, proof bundles, a leak ledger")
    add = group.addoption
    add(
        "--skep-bdd",
        action="store_true",
        help="Lint the features, run async steps, check that every Then asserts.",
    )
    add("--skep-ledger", action="store_true", help="Fail the test that leaks.")
    add("--skep-proof", metavar="DIR", help="Write a proof bundle below DIR.")
    add("--skep-run-id", metavar="ID", help="Name the bundle; the default is the time and a hash.")
    add("--skep-seed", type=int, metavar="N", help="The run's seed; the default is drawn and recorded.")
    add("--skep-replay", metavar="BUNDLE", help="Take every seed from this bundle.")
    add("--skep-feature", metavar="F", help="Only scenarios of this feature file.")
    add(
        "--skep-tags",
        metavar="EXPR",
        help="Only scenarios whose tags fit, e.g. '@OC-POOL-3001 and not @slow'.",
    )
    add("--skep-live", action="store_true", help="Print each step as it ends.")
    add("--skep-url", metavar="URL", help="Run against the hive at this URL instead of starting one.")
    add("--skep-level", metavar="LEVEL", help="The level at which hosts are made.")
    add("--skep-backend", metavar="NAME", help="The workers' backend: fake or llama.")
    add("--skep-devices", metavar="WHICH", help="The workers' devices: fake or real.")
    add("--skep-command", metavar="TEXT", help="What the bundle says was run.")
    parser.addini("skep_bdd", "Ask for the BDD part in every run of this suite.", type="bool", default=False)
    parser.addini(
        "skep_ledger", "Ask for the leak ledger in every run of this suite.", type="bool", default=False
    )
    parser.addini("skep_async_steps", "Run `async def` steps.", type="bool", default=True)
    parser.addini(
        "skep_features", "Folders whose features and steps must all be used.", type="paths", default=[]
    )
    parser.addini("skep_requirements", "Folder of requirement tables that scenarios trace to.", default="")


def pytest_configure(config: pytest.Config) -> None:
    """Bring in what was asked for."""
    if config.getini("skep_ledger") or config.getoption("skep_ledger"):
        from skep.testkit.ledger.plugin import LedgerPlugin

        config.pluginmanager.register(LedgerPlugin(config), "skep-ledger")
    if config.getini("skep_bdd") or config.getoption("skep_bdd"):
        try:
            from skep.testkit.bdd.session import BddPlugin
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "pytest_bdd":
                raise
            raise pytest.UsageError(
                "this suite asks for skep_bdd, and pytest-bdd is missing: pip install skep[testkit]"
            ) from error
        config.pluginmanager.register(BddPlugin(config), "skep-bdd")
        config.pluginmanager.import_plugin("skep.testkit.fixtures")
        config.pluginmanager.import_plugin("skep.testkit.harness.plugin")
