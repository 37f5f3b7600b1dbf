"""The ids that go into file names, URLs and labels: one pattern for all of them."""

import re
from typing import Annotated

from msgspec import Meta

from skep.errors import InvalidInput

ID_PATTERN = r"^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$(?!\n)"
"""1 to 64 letters, digits, dots, dashes and underscores, starting and ending with a letter or digit.

The last part refuses the line end that Python's `$` would let through.
"""

Id = Annotated[str, Meta(pattern=ID_PATTERN)]

_ID = re.compile(ID_PATTERN)


def check_id(text: str, *, what: str) -> str:
    """Return `text` when it may be the id of a `what`. Raises: InvalidInput."""
    if _ID.match(text) is None:
        message = (
            f"{text!r} cannot be the id of a {what}: use 1 to 64 letters, digits, '.', '-' or '_', "
            "starting and ending with a letter or a digit"
        )
        raise InvalidInput(message, id=text, what=what)
    return text
