"""The step library. In a suite's conftest: `from skep.testkit.steps import *`, or one module of it.

`pool-managerd` is an alias of `hive` in the steps. The fixture `world` holds what they share.
"""

# ruff: noqa: F403 - pytest-bdd finds steps by the names that a star brings

from skep.testkit.steps.arena import *
from skep.testkit.steps.background import *
from skep.testkit.steps.breaker import *
from skep.testkit.steps.gateway import *
from skep.testkit.steps.gpu import *
from skep.testkit.steps.handoff import *
from skep.testkit.steps.health import *
from skep.testkit.steps.observability import *
from skep.testkit.steps.preload import *
from skep.testkit.steps.provisioning import *
from skep.testkit.steps.registration import *
from skep.testkit.steps.rollout import *
from skep.testkit.steps.worker import *
