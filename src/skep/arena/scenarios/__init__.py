"""The built-in tasks that policies are compared on: `catalog` lists them, `model` says what one is."""

from skep.arena.scenarios.catalog import HELD_OUT, SCENARIOS, TRAINING, find_scenario, select_scenarios
from skep.arena.scenarios.model import Scenario

__all__ = ["HELD_OUT", "SCENARIOS", "TRAINING", "Scenario", "find_scenario", "select_scenarios"]
