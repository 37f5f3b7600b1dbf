"""Set-up: a hive, devices, models, pools."""

from typing import Any

from pytest_bdd import given, parsers, then, when

from skep.testkit.steps.assertions import assert_status
from skep.testkit.world import World


@given("pool-managerd is running")
@given("the hive is running")
def hive_is_running(world: World) -> None:
    """Start a hive with what was declared before; two fake devices are always there."""
    world.start_hive()
    assert world.ask("/health").status == 200


@given(parsers.parse("the hive is running with a probe every {seconds:g} s"))
def hive_with_probe(world: World, seconds: float) -> None:
    """Start a hive that probes this often."""
    world.start_hive(probe_interval_s=seconds)


@given(parsers.parse('the model "{name}" is known'))
def model_is_known(world: World, name: str) -> None:
    """Offer a model on the hub, by name, before the hive starts."""
    world.own().add_model(name)


@given(parsers.parse('the model "{name}" is "{reference}"'))
def model_is(world: World, name: str, reference: str) -> None:
    """Make a name mean a reference, such as fake:demo?load_delay_ms=500."""
    world.own().add_model(name, reference)


@given(parsers.re(r'pool "(?P<pool_id>[^"]+)" is ready with model "(?P<model>[^"]+)"'))
def pool_is_ready(world: World, pool_id: str, model: str) -> None:
    """Declare, preload, wait."""
    _make_ready(world, pool_id, model)


@given(parsers.parse('pool "{pool_id}" is ready with model "{model}" and {replicas:d} replicas'))
def pool_is_ready_with_replicas(world: World, pool_id: str, model: str, replicas: int) -> None:
    """Declare with replicas, preload, wait."""
    _make_ready(world, pool_id, model, replicas=replicas)


@when(parsers.re(r"I ask (?P<method>GET|POST|PUT|DELETE) (?P<path>/\S*)"))
def ask(world: World, method: str, path: str) -> None:
    """Send a request to the hive's API."""
    world.ask(path, {} if method == "POST" else None, method=method)


@then(parsers.parse("the answer should be {status:d}"))
def answer_is(world: World, status: int) -> None:
    """Hold the last answer's status."""
    assert_status(world.last_response, status)


@then(parsers.parse('the answer should be an error "{code}" with status {status:d}'))
def answer_is_error(world: World, code: str, status: int) -> None:
    """Hold the last answer's status and its error object."""
    from skep.testkit.steps.assertions import assert_error

    assert_status(world.last_response, status)
    assert_error(world.last_response, code)


@then(parsers.parse('the answer should name "{text}"'))
def answer_names(world: World, text: str) -> None:
    """Hold that the last answer contains a text."""
    assert world.last_response is not None
    assert text in world.last_response.text, world.last_response.text[:800]


@then(parsers.parse('"{field}" of the answer should be "{value}"'))
def answer_field(world: World, field: str, value: str) -> None:
    """Hold a field of the last answer."""
    assert world.last_response is not None
    found = world.last_response.body.get(field)
    assert str(found) == value, f"{field} is {found!r}"


def _make_ready(world: World, pool_id: str, model: str, **fields: Any) -> None:
    assert_status(world.declare(pool_id, model, **fields), 202)
    assert_status(world.act(pool_id, "preload"), 202)
    world.engines.update({each["replica_id"]: each for each in world.until_ready(pool_id)["replicas"]})
