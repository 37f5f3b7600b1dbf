"""Where in a skep.toml something stands: from what msgspec says to a path, and from a path to its line."""

import re
from typing import NamedTuple

_AT = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_UNKNOWN = re.compile(r"unknown field `(?P<field>[^`]+)`")
_MISSING = re.compile(r"missing required field `(?P<field>[^`]+)`")


def explained(message: str) -> tuple[str, str]:
    """Return the path that a message of msgspec is about ("" for the whole), and what is wrong there in our words."""
    at = _AT.search(message)
    path = at["path"] if at else ""
    if unknown := _UNKNOWN.search(message):
        path = f"{path}.{unknown['field']}" if path else unknown["field"]
        return path, f"{path} is not a field that skep knows: remove it, or see `skep config schema`"
    if missing := _MISSING.search(message):
        return path, f"{path + ' ' if path else ''}needs {missing['field']}"
    return path, f"{path + ': ' if path else ''}{_AT.sub('', message)}"


def line_of(text: str, path: str) -> int:
    """Return the line (from 1) that sets a path such as `pool[1].slots`, its table's line, or 0 when there is none."""
    lines = _Reader(text).lines()
    while path:
        if path in lines:
            return lines[path]
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return 0


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


_TOKEN = re.compile(
    r"""
    (?P<space>[ \t\r]+|\#[^\n]*)
    |(?P<newline>\n)
    |(?P<quoted>\"\"\"(?:\\.|[^\\])*?\"{3,5}|'''.*?'{3,5}|"(?:\\.|[^"\\\n])*"|'[^'\n]*')
    |(?P<mark>[\[\]{}=,.])
    |(?P<word>[^\s\[\]{}=,.\#"']+)
    """,
    re.VERBOSE | re.DOTALL,
)
_ENDS_A_VALUE = frozenset({",", "]", "}", "\n"})


class _Reader:
    """Goes through a TOML text that is known to be one, and notes where each path begins. Values are not read."""

    def __init__(self, text: str) -> None:
        self._tokens: list[_Token] = []
        line = 1
        for found in _TOKEN.finditer(text):
            if found.lastgroup != "space":
                self._tokens.append(_Token(found.lastgroup or "", found[0], line))
            line += found[0].count("\n")
        self._at = 0
        self._lines: dict[str, int] = {}
        self._last_index: dict[str, int] = {}

    def lines(self) -> dict[str, int]:
        table = ""
        while self._skip_newlines():
            table = self._header() if self._see("[") else table
            if self._skip_newlines() and not self._see("["):
                self._pair(table)
        return self._lines

    def _header(self) -> str:
        """Read `[a.b]` or `[[a.b]]`; return its path, with the index of the table of each list on the way."""
        self._at += 1
        is_list = self._take("[")
        line, keys = self._keys()
        path = ""
        for number, key in enumerate(keys, 1):
            path = f"{path}.{key}" if path else key
            if is_list and number == len(keys):
                self._last_index[path] = self._last_index.get(path, -1) + 1
            if path in self._last_index:
                path = f"{path}[{self._last_index[path]}]"
            self._lines.setdefault(path, line)
        self._take("]")
        self._take("]")
        return path

    def _pair(self, table: str) -> None:
        line, keys = self._keys()
        path = table
        for key in keys:
            path = f"{path}.{key}" if path else key
            self._lines.setdefault(path, line)
        self._take("=")
        self._value(path)

    def _keys(self) -> tuple[int, list[str]]:
        """Read `a."b".c`; return the line that it is on, and its parts."""
        line, keys = self._tokens[self._at].line, []
        while self._at < len(self._tokens) and self._tokens[self._at].kind in {"word", "quoted"}:
            keys.append(self._tokens[self._at].text.strip("\"'"))
            self._at += 1
            self._take(".")
        return line, keys

    def _value(self, path: str) -> None:
        if self._take("["):
            index = 0
            while self._skip_newlines() and not self._take("]"):
                self._lines.setdefault(f"{path}[{index}]", self._tokens[self._at].line)
                self._value(f"{path}[{index}]")
                index += self._skip_newlines() and self._take(",")
        elif self._take("{"):
            while self._skip_newlines() and not self._take("}"):
                self._pair(path)
                if self._skip_newlines():
                    self._take(",")
        else:
            while self._at < len(self._tokens) and self._tokens[self._at].text not in _ENDS_A_VALUE:
                self._at += 1

    def _see(self, text: str) -> bool:
        return self._at < len(self._tokens) and self._tokens[self._at].text == text

    def _take(self, text: str) -> bool:
        """Go past a mark, where it is next."""
        is_next = self._see(text)
        self._at += is_next
        return is_next

    def _skip_newlines(self) -> bool:
        """Go to the next line that has something. False at the end of the text."""
        while self._take("\n"):
            pass
        return self._at < len(self._tokens)
