"""`skep chat`: talk to a model in the terminal, through any OpenAI-compatible endpoint."""

import json
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import msgspec
import typer

from skep.cli.console import err, out, run
from skep.errors import InvalidConfig, InvalidInput, NotFound, SkepError, Unavailable
from skep.web.client import make_client
from skep.wire.sse import SseParser

SILENCE_S_MAX = 300.0
GATEWAY = "http://127.0.0.1:8080"
COMMANDS = "/clear forgets the conversation, /system TEXT sets the instructions, /quit or Ctrl-D leaves"


class Conversation(msgspec.Struct):
    """What is sent anew with each turn."""

    model: str
    system: str = ""
    turns: list[dict[str, str]] = []
    temperature: float | None = None
    max_tokens: int | None = None

    def body(self, text: str) -> dict[str, Any]:
        """Return the request for the next turn; nothing is remembered yet."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        settings = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        return {
            "model": self.model,
            "messages": [*system, *self.turns, {"role": "user", "content": text}],
            "stream": True,
            **{name: value for name, value in settings.items() if value is not None},
        }


class Endpoint:
    """One OpenAI-compatible server."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self._key = key

    def _client(self) -> aiohttp.ClientSession:
        return make_client(token=self._key or None, total_s=None, between_bytes_s=SILENCE_S_MAX)

    @property
    def _completions(self) -> str:
        return f"{self.url}/v1/chat/completions"

    async def models(self) -> list[str]:
        """Return the names served. Raises: Unavailable, InvalidInput."""
        try:
            async with self._client() as client, client.get(f"{self.url}/v1/models") as answer:
                await _check(answer)
                return [model["id"] for model in (await answer.json())["data"]]
        except aiohttp.InvalidURL as error:
            raise InvalidConfig(f"--url {self.url!r} is not a URL such as {GATEWAY}") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._away(error) from error
        except (ValueError, KeyError, TypeError) as error:
            raise Unavailable(
                f"what answers at {self.url} does not speak OpenAI's API", url=self.url
            ) from error

    async def stream(self, body: dict[str, Any]) -> AsyncGenerator[str]:
        """Yield the answer's pieces. Raises: SkepError also for a failure in the middle; a cut stream is one."""
        try:
            async with self._client() as client, client.post(self._completions, json=body) as answer:
                await _check(answer)
                async for piece in _pieces(answer):
                    yield piece
        except aiohttp.InvalidURL as error:
            raise InvalidConfig(f"--url {self.url!r} is not a URL such as {GATEWAY}") from error
        except aiohttp.ClientPayloadError as error:
            raise Unavailable("the answer was cut off; ask again", url=self.url) from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._away(error) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Unavailable(
                f"what answers at {self.url} does not speak OpenAI's API", url=self.url
            ) from error

    def _away(self, error: Exception) -> Unavailable:
        return Unavailable(f"nothing answers at {self.url} ({error}). Start it with: skep up", url=self.url)


async def _check(answer: aiohttp.ClientResponse) -> None:
    if answer.status == 200:  # noqa: PLR2004 - HTTP
        return
    text = await answer.text()
    try:
        message = json.loads(text)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = text.strip()[:200] or answer.reason
    if answer.status in {401, 403}:
        raise InvalidInput(
            f"{answer.url.host} refused the key ({message}). Put one into SKEP_API_KEY, or its file into --key-file"
        )
    raise SkepError(f"the server said {answer.status}: {message}", status=answer.status)


async def _pieces(answer: aiohttp.ClientResponse) -> AsyncGenerator[str]:
    parser = SseParser()
    async for chunk in answer.content.iter_any():
        for event in parser.feed(chunk):
            if event.data == "[DONE]":
                return
            message = json.loads(event.data)
            if "error" in message:
                told = message["error"]
                raise Unavailable(
                    f"the answer broke off: {told.get('message') if isinstance(told, dict) else told}; ask again"
                )
            for choice in message.get("choices", ()):
                if piece := (choice.get("delta") or {}).get("content"):
                    yield piece
    raise Unavailable("the answer ended without its end mark: it was cut off; ask again")


def chat(
    model: Annotated[str, typer.Argument(help="The model's name; default: the first that is served.")] = "",
    message: Annotated[str, typer.Option("--message", "-m", help="Ask once, print the answer, leave.")] = "",
    url: Annotated[str, typer.Option(envvar="SKEP_URL", help="Any OpenAI-compatible server.")] = GATEWAY,
    key_file: Annotated[
        Path | None, typer.Option(help="A file with the API key; SKEP_API_KEY does the same.")
    ] = None,
    system: Annotated[str, typer.Option(help="Instructions for the model.")] = "",
    temperature: Annotated[float | None, typer.Option(min=0, max=2, help="0 is greedy.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="At most so many tokens an answer.")] = None,
) -> None:
    """Talk to a model in the terminal.

    [bold]skep chat[/bold] starts a conversation, [bold]skep chat -m "what color is the sky?"[/bold] asks once, and
    [bold]echo "hello" | skep chat[/bold] reads the question from a pipe. Ctrl-C stops an answer; at the prompt it leaves.
    """
    is_piped = not sys.stdin.isatty()
    once = message or (sys.stdin.read().strip() if is_piped else "")
    if is_piped and not once:
        raise InvalidConfig("nothing was asked: give -m TEXT, or pipe a question in")
    key = key_file.read_text().strip() if key_file else os.environ.get("SKEP_API_KEY", "")

    endpoint = Endpoint(url, key)
    name = model or _first_model(endpoint)
    talk = Conversation(name, system=system, temperature=temperature, max_tokens=max_tokens)
    if once:
        run(lambda: _turn(endpoint, talk, once))
    else:
        _converse(endpoint, talk)


def _first_model(endpoint: Endpoint) -> str:
    names = run(endpoint.models)
    if not names:
        raise NotFound(f"{endpoint.url} serves no model yet. Look with: skep pool list")
    return names[0]


def _converse(endpoint: Endpoint, talk: Conversation) -> None:
    with suppress(ImportError):
        import readline  # noqa: F401 - line editing and history for input()
    err().print(f"[bold]{talk.model}[/bold] at {endpoint.url}. {COMMANDS}.")
    while True:
        try:
            text = input("› ").strip()
        except EOFError:
            return
        if text in {"/quit", "/exit"}:
            return
        if text == "/clear":
            talk.turns.clear()
        elif text.startswith("/system"):
            talk.system = text.removeprefix("/system").strip()
        elif text.startswith("/"):
            err().print(COMMANDS)
        elif text:
            _try_turn(endpoint, talk, text)


def _try_turn(endpoint: Endpoint, talk: Conversation, text: str) -> None:
    """Take a turn; one that fails or is stopped is not remembered, and the conversation goes on."""
    try:
        run(lambda: _turn(endpoint, talk, text))
    except SkepError as error:
        err().print(str(error), style="red", markup=False)
    except KeyboardInterrupt:
        err().print("(stopped)", style="dim")


async def _turn(endpoint: Endpoint, talk: Conversation, text: str) -> None:
    console, answer = out(), ""
    try:
        async with aclosing(endpoint.stream(talk.body(text))) as pieces:
            async for piece in pieces:
                answer += piece
                console.print(piece, end="", markup=False)
    finally:
        console.print()
    talk.turns += [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]
