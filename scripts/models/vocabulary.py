"""Two tokenizer families, learned from the corpus: byte-level BPE (GPT-2's) and a SentencePiece-style one with byte fallback."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIALS = (END_OF_TEXT, IM_START, IM_END)
BPE_SIZE = 768
SPM_SIZE = 512

# GGUF's token types.
NORMAL, UNKNOWN, CONTROL, UNUSED, BYTE = 1, 2, 3, 5, 6

# The ASCII restriction of GPT-2's pre-tokenizer (llama.cpp: tokenizer.ggml.pre = "gpt-2"); the rest is never merged.
PRETOKEN = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+")

Word = tuple[str, ...]
Pair = tuple[str, str]


@dataclass(frozen=True)
class Tokens:
    """A vocabulary as a GGUF file holds it."""

    texts: list[str]
    types: list[int]
    scores: list[float]
    merges: list[str]

    def index(self, text: str) -> int:
        """Return the id of a token's text."""
        return self.texts.index(text)


def byte_alphabet() -> dict[int, str]:
    """GPT-2's reversible map from bytes to printable characters."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {byte: chr(byte) for byte in keep}
    for byte in range(256):
        table.setdefault(byte, chr(256 + len(table) - len(keep)))
    return table


def apply_merge(word: Word, pair: Pair) -> Word:
    merged: list[str] = []
    at = 0
    while at < len(word):
        if word[at : at + 2] == pair:
            merged.append(word[at] + word[at + 1])
            at += 2
        else:
            merged.append(word[at])
            at += 1
    return tuple(merged)


def learn_merges(words: Counter[Word], count: int, *, may_merge: Callable[[str], bool]) -> list[Pair]:
    """Return up to `count` merges, most frequent first, ties by text."""
    merges: list[Pair] = []
    spelled: set[str] = set()
    while len(merges) < count:
        pairs: Counter[Pair] = Counter()
        for word, times in words.items():
            for pair in pairwise(word):
                pairs[pair] += times
        usable = [pair for pair in pairs if may_merge("".join(pair)) and "".join(pair) not in spelled]
        if not usable:
            break
        best = max(usable, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        spelled.add("".join(best))
        merged: Counter[Word] = Counter()
        for word, times in words.items():
            merged[apply_merge(word, best)] += times
        words = merged
    return merges


def _may_merge_bytes(text: str) -> bool:
    """Bytes beyond ASCII stay single, so that there are characters of several tokens."""
    return all(ord(char) < 127 or char in "ĠĊ" for char in text)


class Bpe:
    """Byte-level BPE: the tokenizer that the model is trained with, in Python."""

    def __init__(self, text: str) -> None:
        self._alphabet = byte_alphabet()
        words = Counter(
            self._symbols(word) for part in _split_specials(text) for word in PRETOKEN.findall(part)
        )
        room = BPE_SIZE - len(self._alphabet) - len(SPECIALS)
        merges = learn_merges(words, room, may_merge=_may_merge_bytes)
        plain = [*self._alphabet.values(), *("".join(merge) for merge in merges)]
        unused = [f"<|unused{number}|>" for number in range(BPE_SIZE - len(plain) - len(SPECIALS))]
        self.tokens = Tokens(
            texts=[*plain, *SPECIALS, *unused],
            types=[NORMAL] * len(plain) + [CONTROL] * len(SPECIALS) + [UNUSED] * len(unused),
            scores=[],
            merges=[" ".join(merge) for merge in merges],
        )
        self._rank = {merge: rank for rank, merge in enumerate(merges)}
        self._index = {text: index for index, text in enumerate(self.tokens.texts)}
        self._known: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """Return token ids, special tokens read out of the text."""
        ids: list[int] = []
        for part in re.split("(" + "|".join(map(re.escape, SPECIALS)) + ")", text):
            if part in SPECIALS:
                ids.append(self._index[part])
            else:
                for word in PRETOKEN.findall(part):
                    ids += self._encode_word(word)
        return ids

    def decode(self, ids: list[int]) -> str:
        """Return the text of plain tokens; control tokens give nothing."""
        back = {char: byte for byte, char in self._alphabet.items()}
        chars = "".join(self.tokens.texts[token] for token in ids if self.tokens.types[token] == NORMAL)
        return bytes(back[char] for char in chars).decode("utf-8", "replace")

    def _symbols(self, word: str) -> Word:
        return tuple(self._alphabet[byte] for byte in word.encode())

    def _encode_word(self, text: str) -> list[int]:
        if text not in self._known:
            word = self._symbols(text)
            while len(word) > 1:
                best = min(pairwise(word), key=lambda pair: self._rank.get(pair, 1 << 30))
                if best not in self._rank:
                    break
                word = apply_merge(word, best)
            self._known[text] = [self._index[symbol] for symbol in word]
        return self._known[text]


def sentencepiece(text: str, size: int = SPM_SIZE) -> Tokens:
    """Return a SentencePiece-style vocabulary: control tokens, 256 bytes, characters, and merges by falling score."""
    words = Counter(tuple("▁" + word) for part in _split_specials(text) for word in part.split())
    characters = sorted({char for word in words for char in word if ord(char) < 127 or char == "▁"})
    head = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    room = size - len(head) - len(characters)
    merges = learn_merges(words, room, may_merge=lambda joined: all(ord(c) < 127 or c == "▁" for c in joined))
    pieces = ["".join(merge) for merge in merges]
    return Tokens(
        texts=[*head, *pieces, *characters],
        types=[UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * (len(pieces) + len(characters))],
        scores=[0.0] * len(head) + [-float(rank) for rank in range(len(pieces) + len(characters))],
        merges=[],
    )


def _split_specials(text: str) -> list[str]:
    return re.split("|".join(map(re.escape, SPECIALS)), text)
