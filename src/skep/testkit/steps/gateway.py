"""The queen's gateway: OpenAI's API in front of every pool."""

import json
import urllib.request
from typing import Any

from pytest_bdd import parsers, then, when

from skep.testkit.fleet.ask import Response, ask
from skep.testkit.world import World


@when(parsers.parse('I ask the gateway to complete "{prompt}" with model "{model}"'))
def complete(world: World, prompt: str, model: str) -> None:
    """Send one plain request."""
    body = {"model": model, "prompt": prompt, "max_tokens": 8, "temperature": 0, "seed": 7}
    world.last_response = ask(_gateway(world), "/v1/completions", body)


@when(parsers.parse('I stream a chat with model "{model}" through the gateway'))
def stream_chat(world: World, model: str) -> None:
    """Read a stream to its end."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 8,
        "stream": True,
    }
    request = urllib.request.Request(  # noqa: S310 - ours
        f"{_gateway(world)}/v1/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as reply:  # noqa: S310 - ours
        world.last_response = Response(reply.status, reply.read().decode(), dict(reply.headers))


@then(parsers.parse('the gateway should list the model "{model}"'))
def lists_model(world: World, model: str) -> None:
    """Wait until /v1/models has a name."""
    names = world.lab.until(
        lambda: found if model in (found := _models(world)) else None, what=f"the gateway lists {model}"
    )
    assert model in names


@then("the completion should have text and usage")
def has_text(world: World) -> None:
    """Hold the shape of a plain answer."""
    assert world.last_response is not None
    assert world.last_response.status == 200, world.last_response.text
    body = world.last_response.body
    assert body["choices"][0]["text"], body
    assert body["usage"]["completion_tokens"] > 0, body


@then("the stream should have one role, text, one finish and one end mark")
def stream_grammar(world: World) -> None:
    """Hold the grammar of OpenAI's chat stream."""
    assert world.last_response is not None
    data = [line[6:] for line in world.last_response.text.splitlines() if line.startswith("data: ")]
    assert data[-1] == "[DONE]", data[-2:]
    assert data.count("[DONE]") == 1
    choices: list[dict[str, Any]] = [
        choice for line in data[:-1] for choice in json.loads(line).get("choices", ())
    ]
    assert choices[0]["delta"].get("role") == "assistant", choices[0]
    assert "".join(each["delta"].get("content") or "" for each in choices)
    finishes = [each["finish_reason"] for each in choices if each.get("finish_reason")]
    assert len(finishes) == 1, finishes


@then(parsers.parse('the gateway should refuse with status {status:d} and code "{code}"'))
def gateway_refuses(world: World, status: int, code: str) -> None:
    """Hold OpenAI's error object."""
    assert world.last_response is not None
    assert world.last_response.status == status, world.last_response.text
    error = world.last_response.error
    assert error["code"] == code, error
    assert {"message", "type", "param"} <= error.keys(), error


def _gateway(world: World) -> str:
    assert world.queen is not None, "no queen was started"
    return str(world.queen.report["gateway"])


def _models(world: World) -> list[str]:
    body = ask(_gateway(world), "/v1/models").body or {"data": []}
    return [each["id"] for each in body["data"]]
