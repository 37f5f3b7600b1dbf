"""A language model decides: any OpenAI-compatible endpoint, our own gateway by default.

The prompt holds the state of the cluster and the actions that would do anything; the answer is a JSON object
(`response_format` with the actions as an enumeration, left out where the server refuses it). An answer that names no
allowed action is asked for once more, with the reason; then the policy fails. It never guesses.
"""

import json
import os
import re
import urllib.error
import urllib.request
from typing import Any, Final

import msgspec

from skep.arena.policies.base import Decision, Situation
from skep.arena.policies.prompt import SYSTEM, describe
from skep.errors.arena import PolicyFailed

DEFAULT_URL: Final = "http://127.0.0.1:8080/v1"
ANSWER_BYTES_MAX: Final = 1 << 20
TRIES_MAX: Final = 2
BAD_REQUEST: Final = 400
_OBJECT: Final = re.compile(r"\{.*\}", re.DOTALL)


class LlmPolicy:
    """Asks a model for each decision. `model` None takes the first that the server lists."""

    name = "llm"

    def __init__(
        self,
        url: str | None = None,
        model: str | None = None,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        tokens_max: int = 160,
    ) -> None:
        self._url = (url or os.environ.get("SKEP_ARENA_LLM_URL") or DEFAULT_URL).rstrip("/")
        self._model = model or os.environ.get("SKEP_ARENA_LLM_MODEL")
        self._key = api_key or os.environ.get("SKEP_API_KEY") or os.environ.get("OPENAI_API_KEY")
        self._timeout_s, self._tokens_max = float(timeout_s), int(tokens_max)
        self._seed = 0
        self._takes_schema = True
        if not self._url.startswith(("http://", "https://")):
            raise PolicyFailed(f"{self._url}: an http or https address is needed", policy=self.name)

    def start(self, seed: int) -> None:
        """Ask with this seed from now on."""
        self._seed = seed

    def decide(self, situation: Situation) -> Decision:
        """Ask. Raises: PolicyFailed (cannot be reached, refused, no usable answer)."""
        mask = situation.mask()
        allowed = [action for action in situation.actions if mask[action]]
        messages = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": describe(situation, allowed)},
        ]
        text = ""
        for _ in range(TRIES_MAX):
            text = self._ask(messages, allowed)
            decision = read_answer(text, allowed)
            if decision is not None:
                return decision
            messages += [
                {"role": "assistant", "content": text},
                {
                    "role": "user",
                    "content": f'Answer with {{"action": "…"}} and one of: {", ".join(allowed)}.',
                },
            ]
        raise PolicyFailed(
            f"{self._url}: {self._model} named no allowed action {TRIES_MAX} times; last: {text[:120]!r}",
            policy=self.name,
        )

    def _ask(self, messages: list[dict[str, str]], allowed: list[str]) -> str:
        if self._model is None:
            listed = self._call("GET", "/models", None).get("data") or [{}]
            self._model = listed[0].get("id")
            if not self._model:
                raise PolicyFailed(
                    f"{self._url} lists no model; name one with --policy-option model=…", policy=self.name
                )
        body: dict[str, Any] = {
            "model": self._model,
            "messages": messages,
            "temperature": 0,
            "seed": self._seed,
            "max_tokens": self._tokens_max,
        }
        if self._takes_schema:
            try:
                return self._content(body | {"response_format": _schema(allowed)})
            except _RefusedError:
                self._takes_schema = False
        return self._content(body)

    def _content(self, body: dict[str, Any]) -> str:
        answer = self._call("POST", "/chat/completions", body)
        try:
            return str(answer["choices"][0]["message"]["content"] or "")
        except (KeyError, IndexError, TypeError) as error:
            raise PolicyFailed(f"{self._url}: an answer without choices", policy=self.name) from error

    def _call(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"} | (
            {"Authorization": f"Bearer {self._key}"} if self._key else {}
        )
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, headers, method=method)  # noqa: S310 - the scheme was checked
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as response:  # noqa: S310 - as above
                raw = response.read(ANSWER_BYTES_MAX + 1)
        except urllib.error.HTTPError as error:
            with error:
                detail = error.read(2000).decode(errors="replace")
            if error.code == BAD_REQUEST and body is not None and "response_format" in body:
                raise _RefusedError from error
            raise PolicyFailed(
                f"{self._url}{path}: HTTP {error.code}: {detail[:200]}", policy=self.name
            ) from error
        except (OSError, TimeoutError) as error:
            raise PolicyFailed(
                f"{self._url} cannot be reached: {error}; is `skep up` running?", policy=self.name
            ) from error
        if len(raw) > ANSWER_BYTES_MAX:
            raise PolicyFailed(
                f"{self._url}{path}: more than {ANSWER_BYTES_MAX} bytes came back", policy=self.name
            )
        try:
            return msgspec.json.decode(raw, type=dict[str, Any])
        except ValueError as error:
            raise PolicyFailed(
                f"{self._url}{path}: no JSON object came back: {error}", policy=self.name
            ) from error


class _RefusedError(Exception):
    """The server takes no response format."""


def _schema(allowed: list[str]) -> dict[str, Any]:
    properties = {
        "action": {"type": "string", "enum": allowed},
        "reason": {"type": "string", "maxLength": 120},
    }
    schema = {
        "type": "object",
        "properties": properties,
        "required": ["action", "reason"],
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "decision", "strict": True, "schema": schema}}


def read_answer(text: str, allowed: list[str]) -> Decision | None:
    """Return the decision in a model's text: a JSON object, else the one action that it names; None if neither."""
    if found := _OBJECT.search(text):
        try:
            given = json.loads(found.group())
        except ValueError:
            given = {}
        if isinstance(given, dict) and given.get("action") in allowed:
            return Decision(given["action"], str(given.get("reason", ""))[:200])
    named = [action for action in allowed if re.search(rf"\b{re.escape(action)}\b", text)]
    return Decision(named[0], "named in the answer") if len(named) == 1 else None
