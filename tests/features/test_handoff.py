from pytest_bdd import scenarios

scenarios("handoff.feature")
