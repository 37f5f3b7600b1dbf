"""Parsing a request so that every violation is told at once, field by field, and no value is repeated.

The fast path is one typed conversion. Only when that fails is the value walked against the type's annotations.
A Struct may have `violations()`, which tells what no single field's type can: it maps fields to what is wrong.
"""

import types
from collections.abc import Iterator, Mapping
from typing import (
    Annotated,
    Any,
    Final,
    Generic,
    Literal,
    NamedTuple,
    Protocol,
    TypeVar,
    Union,
    get_args,
    get_origin,
)

import msgspec

from skep.errors.wire import InvalidRequest, MalformedJson

VIOLATIONS_MAX: Final = 64
_FOREIGN: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Checked(Protocol):
    """A request that knows rules over several of its fields."""

    def violations(self) -> Mapping[str, str]:
        """Return field → what is wrong with it; empty when all is well."""
        ...


T = TypeVar("T")


class Parsed(NamedTuple, Generic[T]):
    """A valid request, and how many of its fields, at any depth, this version does not know."""

    request: T
    unknown_fields: int


def parse(data: bytes | bytearray, kind: type[T]) -> Parsed[T]:
    """Parse a JSON object as the Struct `kind`. Raises: MalformedJson, InvalidRequest with every violation."""
    try:
        raw = msgspec.json.decode(data)
    except _FOREIGN as error:
        raise MalformedJson(f"the body is not valid JSON ({_where(error)})") from None
    if not isinstance(raw, dict):
        raise MalformedJson("the body must be a JSON object")
    try:
        request = msgspec.convert(raw, kind, str_keys=True)
    except msgspec.ValidationError:
        raise _refusal(_every_violation(raw, kind)) from None
    if found := _rules(request):
        raise _refusal(found)
    return Parsed(request, count_unknown(raw, request))


def count_unknown(raw: Any, known: Any) -> int:
    """Return how many keys of `raw` the converted value does not have, at any depth."""
    if isinstance(raw, dict) and isinstance(known, msgspec.Struct):
        names = known.__struct_encode_fields__
        found = len(raw.keys() - set(names))
        for name, field in zip(names, known.__struct_fields__, strict=True):
            value = raw.get(name)
            if isinstance(value, dict | list):
                found += count_unknown(value, getattr(known, field))
        return found
    if isinstance(raw, list) and isinstance(known, list | tuple):
        return sum(
            count_unknown(one, other)
            for one, other in zip(raw, known, strict=False)
            if isinstance(one, dict | list)
        )
    return 0


def _where(error: Exception) -> str:
    """Return the place of a JSON error: msgspec names the position and never the text."""
    text = str(error)
    return text[text.rfind("(") + 1 : -1] if text.endswith(")") else "nested too deeply or not UTF-8"


def _refusal(found: Mapping[str, str]) -> InvalidRequest:
    pairs = tuple(found.items())[:VIOLATIONS_MAX]
    return InvalidRequest("; ".join(f"{field}: {why}" for field, why in pairs), violations=pairs)


def _rules(request: Any) -> dict[str, str]:
    rules = getattr(request, "violations", None)
    return dict(rules()) if rules is not None else {}


def _every_violation(raw: dict[str, Any], kind: type) -> dict[str, str]:
    """Return what the types say, and what the rules say of the well typed fields when no required one is amiss."""
    found = dict(_walk(raw, kind, ""))
    bad = {path.split(".")[0].split("[")[0] for path in found}
    sound = {name: value for name, value in raw.items() if name not in bad}
    try:
        rest: Any = msgspec.convert(sound, kind, str_keys=True)
    except msgspec.ValidationError:
        return found or {"": "is not a valid request"}
    return {**_rules(rest), **found}


def _walk(value: Any, hint: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield (path, what is wrong) for each violation inside `value`."""
    found = False
    for member in _members(hint):
        if isinstance(value, dict) and isinstance(member, type) and issubclass(member, msgspec.Struct):
            inside = _walk_struct(value, member, path)
        elif isinstance(value, list) and get_origin(member) in (list, tuple):
            item = get_args(member)[0]
            inside = (
                pair for index, one in enumerate(value) for pair in _walk(one, item, f"{path}[{index}]")
            )
        else:
            continue
        for pair in inside:
            found = True
            yield pair
        break
    if not found:
        yield from _leaf(value, hint, path)


def _walk_struct(value: dict[str, Any], kind: type[msgspec.Struct], path: str) -> Iterator[tuple[str, str]]:
    for field in msgspec.structs.fields(kind):
        inner = f"{path}.{field.encode_name}" if path else field.encode_name
        if field.encode_name in value:
            yield from _walk(value[field.encode_name], field.type, inner)
        elif field.required:
            yield inner, "is required"


def _leaf(value: Any, hint: Any, path: str) -> Iterator[tuple[str, str]]:
    try:
        msgspec.convert(value, hint, str_keys=True)
    except msgspec.ValidationError as error:
        text, _, where = str(error).partition(" - at ")
        inner = where.replace("`", "").removeprefix("key in ").removeprefix("$")
        yield path + inner.replace("[...]", ".*"), _without_value(text, hint)


def _without_value(text: str, hint: Any) -> str:
    """Return msgspec's message in our words; an enum's message holds the value that was sent."""
    if text.startswith("Invalid"):
        allowed = [
            str(one) for member in _members(hint) if get_origin(member) is Literal for one in get_args(member)
        ]
        return f"must be one of {', '.join(allowed)}" if allowed else "has a value that is not allowed"
    text = text.replace("`", "").replace(" | null", "")
    return text[:1].lower() + text[1:]


def _members(hint: Any) -> Iterator[Any]:
    """Yield the alternatives of a type, without their annotations."""
    origin = get_origin(hint)
    if origin is Annotated:
        yield from _members(get_args(hint)[0])
    elif origin in (Union, types.UnionType):
        for one in get_args(hint):
            yield from _members(one)
    else:
        yield hint
