"""Label and field selectors, as `kubectl -l` and `--field-selector` write them."""

import re
from typing import Any, Final

from skep.testkit.kube.status import bad_request

_SET: Final = re.compile(r"^(?P<key>[^\s!=,()]+)\s+(?P<op>in|notin)\s+\((?P<values>[^()]*)\)$")
_EQUAL: Final = re.compile(r"^(?P<key>[^\s!=,()]+)\s*(?P<op>==|=|!=)\s*(?P<value>[^\s,()]*)$")
_EXISTS: Final = re.compile(r"^(?P<no>!?)\s*(?P<key>[^\s!=,()]+)$")
FIELDS: Final = (
    "metadata.name",
    "metadata.namespace",
    "status.phase",
    "spec.nodeName",
    "involvedObject.name",
    "type",
)


def _terms(text: str) -> list[str]:
    return [term.strip() for term in re.split(r",(?![^()]*\))", text) if term.strip()]


def matches_labels(selector: str, labels: dict[str, str]) -> bool:
    """Tell whether labels satisfy a selector. Raises: ApiError (400) for one that cannot be parsed."""
    return all(_matches_term(term, labels) for term in _terms(selector))


def _matches_term(term: str, labels: dict[str, str]) -> bool:
    if found := _SET.match(term):
        values = {value.strip() for value in found["values"].split(",")}
        is_in = labels.get(found["key"]) in values
        return is_in if found["op"] == "in" else not is_in
    if found := _EQUAL.match(term):
        is_equal = labels.get(found["key"]) == found["value"]
        return not is_equal if found["op"] == "!=" else is_equal
    if found := _EXISTS.match(term):
        return (found["key"] in labels) is not bool(found["no"])
    raise bad_request(f"unable to parse requirement: {term!r}")


def matches_fields(selector: str, found: dict[str, Any]) -> bool:
    """Tell whether an object satisfies a field selector. Raises: ApiError (400) for an unknown field."""
    for term in _terms(selector):
        parsed = _EQUAL.match(term)
        if parsed is None or parsed["key"] not in FIELDS:
            raise bad_request(f"field label not supported: {term}")
        value: Any = found
        for part in parsed["key"].split("."):
            value = (value or {}).get(part, "")
        if (value == parsed["value"]) is (parsed["op"] == "!="):
            return False
    return True
