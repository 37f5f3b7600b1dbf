"""What a request's body must say about itself before it is stored: names, kinds, labels."""

import re
from typing import Any, Final

from skep.testkit.kube.resources import Resource
from skep.testkit.kube.status import bad_request, invalid

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_LABEL: Final = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
NAME_MAX, LABEL_MAX = 253, 63
SUFFIX_LETTERS: Final = "bcdfghjklmnpqrstvwxz2456789"


def check_body(resource: Resource, namespace: str, body: Any, name: str = "") -> None:
    """Check a body against the URL that it came to. Raises: ApiError (400, 422)."""
    if not isinstance(body, dict):
        raise bad_request("the body is no object")
    for field, wanted in (("apiVersion", resource.api_version), ("kind", resource.kind)):
        if body.get(field) not in (None, wanted):
            raise bad_request(
                f"the {field} of the data ({body[field]}) does not match the expected ({wanted})"
            )
    metadata = body.get("metadata") or {}
    if resource.is_namespaced and metadata.get("namespace") not in (None, "", namespace):
        raise bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    given = metadata.get("name", "")
    if name and given not in ("", name):
        raise bad_request(f"the name of the object ({given}) does not match the name on the URL ({name})")
    if not (given or name or metadata.get("generateName")):
        raise invalid(resource, "", "metadata.name", "Required value: name or generateName is required")
    if given and (len(given) > NAME_MAX or not _NAME.fullmatch(given)):
        raise invalid(
            resource,
            given,
            "metadata.name",
            f'Invalid value: "{given}": a lowercase RFC 1123 subdomain is needed',
        )
    for label, value in (metadata.get("labels") or {}).items():
        if not isinstance(value, str) or len(value) > LABEL_MAX or not _LABEL.fullmatch(value):
            raise invalid(resource, given, f"metadata.labels[{label}]", f"Invalid value: {value!r}")


def generate_name(prefix: str, number: int) -> str:
    """Return `prefix` with five letters as the server appends them; they follow from `number`, not from chance."""
    letters = ""
    for _ in range(5):
        number, letter = divmod(number * 7 + 3, len(SUFFIX_LETTERS))
        letters += SUFFIX_LETTERS[letter]
    return prefix + letters
