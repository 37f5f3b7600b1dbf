from pytest_bdd import scenarios

scenarios("provisioning.feature")
