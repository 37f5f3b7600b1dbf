from pytest_bdd import scenarios

scenarios("rollout.feature")
