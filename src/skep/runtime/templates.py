"""Chat templates: messages to the text that a model was trained on, in a sandbox, within bounds.

A template comes with the model file, so it is code of a stranger: jinja2's immutable sandbox keeps it from Python, and
the bounds below from eating the worker. The dialect is Hugging Face's (transformers, chat_template_utils.py).
"""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, NoReturn

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.sandbox
from jinja2 import nodes

from skep.errors.runtime import InvalidTemplate, UnsupportedContent
from skep.runtime.backend import BackendModel

SOURCE_CHARS_MAX: Final = 262_144
OUTPUT_CHARS_MAX: Final = 4_194_304
LOOP_STEPS_MAX: Final = 500_000
REPEAT_MAX: Final = 1_000_000
MESSAGES_MAX: Final = 10_000

DEFAULT_TEMPLATE: Final = """\
{%- if tools %}
{{- '<|im_start|>system\\n' }}
{%- if messages and messages[0].role == 'system' %}
{{- messages[0].content + '\\n\\n' }}
{%- endif %}
{{- 'You may call these functions. Answer with <tool_call>{"name": ..., "arguments": ...}</tool_call> to call one.\\n' }}
{%- for tool in tools %}
{{- tool | tojson + '\\n' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if not (tools and loop.first and message.role == 'system') %}
{{- '<|im_start|>' + message.role + '\\n' + message.content }}
{%- for call in message.tool_calls or [] %}
{{- '<tool_call>' + (call.function | tojson) + '</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}"""
"""ChatML: what a model without a template of its own is talked to in."""

Message = Mapping[str, Any]

_loop_steps: ContextVar[Iterator[int]] = ContextVar("loop_steps")


class ChatTemplate:
    """One compiled template. Rendering is safe from any thread."""

    def __init__(
        self,
        source: str | None,
        *,
        bos_token: str = "",
        eos_token: str = "",
        now: Callable[[], datetime] = lambda: datetime.now(UTC).astimezone(),
    ) -> None:
        """`source` None means DEFAULT_TEMPLATE. Raises: InvalidTemplate (too long, or does not compile)."""
        self.is_default = source is None
        source = DEFAULT_TEMPLATE if source is None else source
        if len(source) > SOURCE_CHARS_MAX:
            raise InvalidTemplate(f"the chat template is longer than {SOURCE_CHARS_MAX} characters")
        environment = _environment(now)
        try:
            tree = environment.parse(source)
            self._variables = jinja2.meta.find_undeclared_variables(tree)
            code = environment.compile(_with_counted_loops(tree))
        except (jinja2.TemplateError, RecursionError) as error:
            raise InvalidTemplate(f"the chat template does not compile: {error}") from error
        self._template = jinja2.Template.from_code(environment, code, {**environment.globals})
        self._constants = {"bos_token": bos_token, "eos_token": eos_token}

    @property
    def takes_tools(self) -> bool:
        """True when the template reads `tools`."""
        return "tools" in self._variables

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """Return the prompt. Messages and tools are OpenAI's; `variables` are the template's own (enable_thinking, …).

        Raises: InvalidTemplate (the template refuses, or is too expensive), UnsupportedContent.
        """
        if tools and not self.takes_tools:
            raise InvalidTemplate("this model's chat template takes no tools; ask without them")
        if len(messages) > MESSAGES_MAX:
            raise InvalidTemplate(f"a conversation has at most {MESSAGES_MAX} messages")
        context = {
            **(variables or {}),
            **self._constants,
            "messages": [normalise(message) for message in messages],
            "tools": list(tools) if tools else None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        token = _loop_steps.set(iter(range(LOOP_STEPS_MAX)))
        try:
            return _bounded_join(self._template.generate(context))
        except InvalidTemplate:
            raise
        except (
            jinja2.TemplateError,
            RecursionError,
            ArithmeticError,
            LookupError,
            TypeError,
            ValueError,
        ) as error:
            raise InvalidTemplate(f"the chat template failed: {type(error).__name__}: {error}") from error
        finally:
            _loop_steps.reset(token)


def template_of(model: BackendModel, *, source: str | None = None) -> ChatTemplate:
    """Return a model's chat template, or `source` in its place. Raises: InvalidTemplate."""
    info = model.info
    bos, eos = (_text(model, token) for token in (info.bos_token, info.eos_token))
    return ChatTemplate(source or info.chat_template, bos_token=bos, eos_token=eos)


def encode_prompt(model: BackendModel, text: str) -> list[int]:
    """Return the tokens of a rendered prompt; a beginning that the template wrote itself is not added again."""
    bos = _text(model, model.info.bos_token)
    is_begun = bool(bos) and text.startswith(bos)
    return model.tokenize(text, add_special=not is_begun, parse_special=True)


def normalise(message: Message) -> dict[str, Any]:
    """Return a message as templates expect it: text content, and arguments of tool calls as objects.

    Raises: UnsupportedContent (an image, audio or another part that is not text).
    """
    plain = {key: value for key, value in message.items() if key not in {"content", "tool_calls"}}
    plain["content"] = _content(message.get("content"))
    if message.get("tool_calls"):
        plain["tool_calls"] = [_tool_call(call) for call in message["tool_calls"]]
    return plain


def _text(model: BackendModel, token: int | None) -> str:
    return "" if token is None else model.piece(token, special=True).decode("utf-8", "replace")


def _content(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        if kind not in {"text", "input_text", "refusal"}:
            raise UnsupportedContent(
                f"message parts of type {kind!r} are not supported; only text is", part=kind
            )
        texts.append(part.get("text") or part.get("refusal") or "")
    return "".join(texts)


def _tool_call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = dict(call.get("function") or {})
    if isinstance(function.get("arguments"), str):
        # A model's own half-written arguments: the template gets them as they are.
        with contextlib.suppress(json.JSONDecodeError):
            function["arguments"] = json.loads(function["arguments"] or "{}")
    return {**call, "function": function}


class _Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """Also bounds what `*` and `**` may build."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and max(abs(left), abs(right)) > REPEAT_MAX.bit_length():
            raise InvalidTemplate("the chat template raises to a power that is too large")
        if operator == "*":
            for value, times in ((left, right), (right, left)):
                if isinstance(value, str | list | tuple) and len(value) * times > REPEAT_MAX:
                    raise InvalidTemplate(
                        f"the chat template repeats a value to more than {REPEAT_MAX} items"
                    )
        return super().call_binop(context, operator, left, right)


class _Generation(jinja2.ext.Extension):
    """`{% generation %}…{% endgeneration %}` marks the assistant's part for training; here it only shows its body."""

    tags = {"generation"}  # noqa: RUF012 - the framework's attribute

    def parse(self, parser: Any) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        body: list[nodes.Node] = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return body


def _environment(now: Callable[[], datetime]) -> _Sandbox:
    environment = _Sandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols, _Generation], cache_size=0
    )
    environment.filters["tojson"] = _to_json
    environment.filters["counted"] = _Counted
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: now().strftime(form)
    return environment


def _raise_exception(message: str) -> NoReturn:
    raise InvalidTemplate(f"the chat template refuses these messages: {message}")


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


class _Counted:
    """What a loop runs over; every step counts against the bound of the rendering."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)  # type: ignore[arg-type]  # a TypeError here tells jinja that there is no length

    def __iter__(self) -> Iterator[Any]:
        steps = _loop_steps.get()
        for item in self._items:
            if next(steps, None) is None:
                raise InvalidTemplate(f"the chat template loops more than {LOOP_STEPS_MAX} times")
            yield item


def _with_counted_loops(tree: nodes.Template) -> nodes.Template:
    for loop in tree.find_all(nodes.For):
        loop.iter = nodes.Filter(loop.iter, "counted", [], [], None, None, lineno=loop.lineno)
    return tree


def _bounded_join(chunks: Iterable[str]) -> str:
    parts, length = [], 0
    for chunk in chunks:
        length += len(chunk)
        if length > OUTPUT_CHARS_MAX:
            raise InvalidTemplate(f"the chat template writes more than {OUTPUT_CHARS_MAX} characters")
        parts.append(chunk)
    return "".join(parts)
