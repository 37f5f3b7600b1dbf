from pytest_bdd import scenarios

scenarios("gateway.feature")
