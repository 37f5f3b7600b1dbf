from pytest_bdd import scenarios

scenarios("observability.feature")
