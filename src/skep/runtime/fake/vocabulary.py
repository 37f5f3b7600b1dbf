"""The fake's tokens: 256 bytes, four control tokens, then words. `detokenise(tokenise(s)) == s` always."""

import re
from functools import lru_cache

from skep.errors.runtime import InvalidToken

BOS, EOS, TURN_START, TURN_END = 256, 257, 258, 259
VOCAB_SIZE_MIN = 260
CONTROL_TEXTS = {BOS: b"<|bos|>", EOS: b"<|eos|>", TURN_START: b"<|im_start|>", TURN_END: b"<|im_end|>"}
END_TOKENS = frozenset({EOS, TURN_END})

CHAT_TEMPLATE = """\
{%- if tools -%}
<|im_start|>system
You may call these tools:
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}<|im_end|>
{% endif -%}
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{{ message.content or "" }}
{%- for call in message.tool_calls or [] %}
<tool_call>{{ call.function | tojson }}</tool_call>
{%- endfor -%}
<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}"""

_WORDS = b" bee hive comb wax honey queen worker drone skep nectar pollen brood swarm smoke clover".split(
    b" "
)[1:]


class Vocabulary:
    """Token ids to bytes and back, for one vocabulary size."""

    def __init__(self, size: int) -> None:
        self.size = size
        words = [b" " + _WORDS[i % len(_WORDS)] + (b"%d" % (i // len(_WORDS)) if i >= len(_WORDS) else b"")
                 for i in range(size - VOCAB_SIZE_MIN)]  # fmt: skip
        self._pieces = [bytes([byte]) for byte in range(256)] + list(CONTROL_TEXTS.values()) + words
        self._ids = {piece: token for token, piece in enumerate(self._pieces)}
        longest_first = sorted(words, key=len, reverse=True)
        plain = [re.escape(word) for word in longest_first] + [b"."]
        control = [re.escape(text) for text in CONTROL_TEXTS.values()]
        self._plain = re.compile(b"|".join(plain), re.DOTALL)
        self._with_control = re.compile(b"|".join(control + plain), re.DOTALL)

    def tokenize(self, text: str, *, parse_special: bool) -> list[int]:
        """Return ids, the longest word first; control texts become control tokens only with `parse_special`."""
        pattern = self._with_control if parse_special else self._plain
        return [self._ids[piece] for piece in pattern.findall(text.encode())]

    def piece(self, token: int, *, special: bool) -> bytes:
        """Return the bytes of a token; control tokens give b"" unless `special`. Raises: InvalidToken."""
        if not 0 <= token < self.size:
            raise InvalidToken(f"token {token} is outside the vocabulary of {self.size}", token=token)
        return b"" if token in CONTROL_TEXTS and not special else self._pieces[token]


@lru_cache(maxsize=8)
def vocabulary(size: int) -> Vocabulary:
    """Return the one vocabulary of this size."""
    return Vocabulary(size)
