from pytest_bdd import scenarios

scenarios("worker.feature")
