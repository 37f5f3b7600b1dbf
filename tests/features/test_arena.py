from pytest_bdd import scenarios

scenarios("arena.feature")
