from pytest_bdd import scenarios

scenarios("gpu_discovery.feature")
