"""The step definition to paste for a step that has none."""

import keyword
import re

_QUOTED = re.compile(r'"([^"]*)"')
_NUMBER = re.compile(r"(?<![\w.{\"])-?\d+(?:\.\d+)?(?![\w.}\"])")


def snippet(kind: str, text: str) -> str:
    """Return Python that defines the step: quoted words and numbers become parameters."""
    names: list[str] = []

    def named(base: str, template: str) -> str:
        name = base if base not in names else f"{base}{len(names) + 1}"
        names.append(name)
        return template.format(name=name)

    pattern = _QUOTED.sub(
        lambda match: named(_word(match[1]), '"{{{name}}}"'), text.replace("{", "{{").replace("}", "}}")
    )
    pattern = _NUMBER.sub(
        lambda match: named("number", "{{{name}:g}}" if "." in match[0] else "{{{name}:d}}"), pattern
    )
    quoted = f"'{pattern}'" if '"' in pattern and "'" not in pattern else repr(pattern)
    declared = f"parsers.parse({quoted})" if names else repr(text)
    function = re.sub(r"\W+", "_", re.sub(r'"[^"]*"', "", text)).strip("_").lower() or "step"
    if keyword.iskeyword(function) or function[0].isdigit():
        function = f"step_{function}"
    return f"@{kind}({declared})\ndef {function}({', '.join(names)}):\n    raise NotImplementedError"


def _word(value: str) -> str:
    """A parameter's name made from its example: its leading letters, or `value`."""
    match = re.match(r"[A-Za-z]+", value)
    word = match[0].lower() if match else "value"
    return f"{word}_" if keyword.iskeyword(word) else word
