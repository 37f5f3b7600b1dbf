"""The suite of our own features: every step comes from the public library."""

from skep.testkit.steps import *  # noqa: F403 - steps are found by the names that a star brings
