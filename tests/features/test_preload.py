from pytest_bdd import scenarios

scenarios("preload.feature")
