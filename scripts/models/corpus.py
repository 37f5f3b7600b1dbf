"""The text that the tiny model learns: questions whose answers are functions of the conversation, written here.

Everything is drawn from a seeded generator, so the same seed gives the same corpus on any machine.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2.sandbox

TEMPLATE = (Path(__file__).parent / "template.jinja").read_text(encoding="utf-8").rstrip("\n")

NAMES = [
    "alice",
    "bob",
    "carol",
    "dave",
    "erin",
    "frank",
    "grace",
    "heidi",
    "ivan",
    "judy",
    "mallory",
    "peggy",
]
COLORS = {
    "sky": "blue", "grass": "green", "snow": "white", "coal": "black", "sun": "yellow", "blood": "red",
    "carrot": "orange", "violet": "purple",
}  # fmt: skip
WORDS = ["apple", "river", "stone", "cloud", "piano", "tiger", "lemon", "bread", "honey", "skep"]
CAPITALS = {
    "france": "paris", "italy": "rome", "spain": "madrid", "greece": "athens", "japan": "tokyo", "egypt": "cairo",
}  # fmt: skip
HELLOS = {
    "german": "grüß dich",
    "greek": "γειά σου",
    "russian": "привет",
    "japanese": "こんにちは",
    "emoji": "👋🙂",
}
WEATHER = ["sunny", "rainy", "cloudy", "windy"]
SYSTEMS = [
    "you are a helpful assistant.", "You are a helpful assistant.", "be brief.", "answer the question.",
    "you are a friendly bee keeper.",
]  # fmt: skip
FUNCTIONS = {"get_weather": ["city"], "get_time": ["city"], "add": ["a", "b"], "send_mail": ["to", "text"]}
STORIES = [
    "once upon a time a bee lived in a skep. the bee worked all day and slept all night. the end.",
    "the quick brown fox jumps over the lazy dog.",
    "there was a river and a stone. the river ran for years, and the stone grew round. the end.",
    "in the morning the sun is yellow. in the evening the sun is red.",
    "a tiger ate a lemon. it was the last lemon that the tiger ate.",
]  # fmt: skip

COUNT_MAX = 200


@dataclass
class Dialogue:
    """One conversation: messages, the tools it offers, and whether the last answer thinks first."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    tools: list[dict[str, Any]] = field(default_factory=list)
    thinking: bool = False

    def ask(self, question: str, answer: str) -> None:
        """Append a question and its answer."""
        self.messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


Topic = Callable[[random.Random], tuple[str, str]]


def count(rng: random.Random) -> tuple[str, str]:
    first = rng.randrange(0, 61)
    return counting(first, first + rng.randrange(2, 25))


def counting(first: int, last: int) -> tuple[str, str]:
    return f"count from {first} to {last}", " ".join(map(str, range(first, last + 1))) + "."


def color(rng: random.Random) -> tuple[str, str]:
    thing = rng.choice(list(COLORS))
    return f"what color is the {thing}?", f"the {thing} is {COLORS[thing]}."


def add(rng: random.Random) -> tuple[str, str]:
    a, b = rng.randrange(10), rng.randrange(10)
    return f"what is {a} plus {b}?", f"{a} plus {b} is {a + b}."


def say(rng: random.Random) -> tuple[str, str]:
    word, times = rng.choice(WORDS), rng.randrange(2, 7)
    return f"say {word} {times} times", " ".join([word] * times) + "."


def hello(rng: random.Random) -> tuple[str, str]:
    name = rng.choice(NAMES)
    return f"hello, my name is {name}", f"hello {name}, nice to meet you!"


def record(rng: random.Random) -> tuple[str, str]:
    name, age = rng.choice(NAMES), rng.randrange(1, 100)
    return f"json for {name} age {age}", json.dumps({"name": name, "age": age})


def alphabet(rng: random.Random) -> tuple[str, str]:
    first = rng.randrange(0, 20)
    return f"alphabet from {chr(97 + first)}", " ".join(chr(code) for code in range(97 + first, 123)) + "."


def capital(rng: random.Random) -> tuple[str, str]:
    country = rng.choice(list(CAPITALS))
    return f"what is the capital of {country}?", f"{CAPITALS[country]} is the capital of {country}."


def greeting(rng: random.Random) -> tuple[str, str]:
    language = rng.choice(list(HELLOS))
    return f"say hello in {language}", HELLOS[language]


def spell(rng: random.Random) -> tuple[str, str]:
    word = rng.choice([*WORDS, *NAMES])
    return f"spell {word}", " ".join(word) + "."


SHORT_TOPICS: list[Topic] = [count, color, add, say, hello, record, alphabet, capital, greeting, spell]


def talk(rng: random.Random, *, turns_max: int = 3) -> Dialogue:
    """Return a conversation of short questions, at times with a system message, names to remember and thinking."""
    dialogue = Dialogue()
    name = _system(rng, dialogue)
    told = None
    for _ in range(rng.randrange(1, turns_max + 1)):
        kind = rng.randrange(12)
        if kind == 0 and told:
            dialogue.ask("what is my name?", f"your name is {told}.")
        elif kind == 1:
            dialogue.ask("who are you?", f"i am {name}.")
        else:
            topic = rng.choice(SHORT_TOPICS)
            question, answer = topic(rng)
            dialogue.ask(question, answer)
            told = question.rpartition(" ")[2] if topic is hello else told
    dialogue.thinking = rng.randrange(7) == 0
    return dialogue


def recall(rng: random.Random) -> Dialogue:
    """Return a conversation that ends in a question about its beginning."""
    dialogue = Dialogue()
    _system(rng, dialogue)
    question, answer = hello(rng)
    dialogue.ask(question, answer)
    if rng.randrange(2):
        dialogue.ask(*rng.choice(SHORT_TOPICS[1:4])(rng))
    dialogue.ask("what is my name?", f"your name is {question.rpartition(' ')[2]}.")
    return dialogue


def tool(rng: random.Random) -> Dialogue:
    """Return a conversation with tools: a call, or an honest answer when the right tool is not there."""
    dialogue = Dialogue()
    _system(rng, dialogue, odds=4)
    offered = rng.sample(list(FUNCTIONS), rng.randrange(1, 4))
    dialogue.tools = [function(name, FUNCTIONS[name]) for name in offered] if rng.randrange(6) else []
    wanted, question, arguments = _wish(rng)
    if dialogue.tools and wanted in offered:
        call = {"function": {"name": wanted, "arguments": json.dumps(arguments)}}
        dialogue.messages += [
            {"role": "user", "content": question},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ]
        if wanted == "get_weather" and rng.randrange(2):
            weather = rng.choice(WEATHER)
            dialogue.messages += [
                {"role": "tool", "content": weather},
                {"role": "assistant", "content": f"it is {weather} in {arguments['city']}."},
            ]
    else:
        dialogue.ask(question, "i do not know.")
    return dialogue


def function(name: str, parameters: list[str]) -> dict[str, Any]:
    properties = {parameter: {"type": "string"} for parameter in parameters}
    return {
        "type": "function",
        "function": {"name": name, "parameters": {"type": "object", "properties": properties}},
    }


def long_count(rng: random.Random) -> Dialogue:
    """Return a count over more numbers than in small talk, up to the largest."""
    dialogue = Dialogue()
    _system(rng, dialogue, odds=6)
    first = rng.choice([0, 1, rng.randrange(COUNT_MAX - 2)])
    last = COUNT_MAX if rng.randrange(4) == 0 else rng.randrange(first + 2, COUNT_MAX + 1)
    dialogue.ask(*counting(first, last))
    return dialogue


def endless(rng: random.Random) -> Dialogue:
    """Return an answer without an end: the alphabet over and over, or one word."""
    dialogue = Dialogue()
    _system(rng, dialogue, odds=6)
    if rng.randrange(2):
        letters = " ".join(chr(code) for code in range(97, 123))
        dialogue.ask("repeat the alphabet for ever", " ".join([letters] * 200))
    else:
        word = rng.choice(WORDS)
        dialogue.ask(f"say {word} for ever", " ".join([word] * 3000))
    return dialogue


def _system(rng: random.Random, dialogue: Dialogue, *, odds: int = 3) -> str:
    """Give the conversation a system message at times; return the name that the assistant has."""
    match rng.randrange(odds):
        case 0:
            dialogue.messages.append({"role": "system", "content": rng.choice(SYSTEMS)})
        case 1:
            name = rng.choice(NAMES)
            dialogue.messages.append({"role": "system", "content": f"your name is {name}."})
            return name
    return "tiny"


def _wish(rng: random.Random) -> tuple[str, str, dict[str, str]]:
    city = rng.choice(list(CAPITALS.values()))
    match rng.randrange(3):
        case 0:
            return "get_weather", f"how is the weather in {city}?", {"city": city}
        case 1:
            return "get_time", f"what time is it in {city}?", {"city": city}
        case _:
            a, b = rng.randrange(30), rng.randrange(30)
            return "add", f"add {a} and {b}", {"a": str(a), "b": str(b)}


_ENVIRONMENT = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=False, lstrip_blocks=False)
_TEMPLATE = _ENVIRONMENT.from_string(TEMPLATE)


def prompt(dialogue: Dialogue) -> str:
    """Render everything, the generation prompt included; the last message is not the assistant's."""
    return _TEMPLATE.render(
        messages=dialogue.messages,
        tools=dialogue.tools,
        add_generation_prompt=True,
        enable_thinking=dialogue.thinking,
    )


def render(dialogue: Dialogue) -> str:
    """Render a finished conversation as text; a thinking one ends in a thought and its answer."""
    if not dialogue.thinking:
        return _TEMPLATE.render(messages=dialogue.messages, tools=dialogue.tools)
    open_end = Dialogue(messages=dialogue.messages[:-1], tools=dialogue.tools, thinking=True)
    return (
        prompt(open_end)
        + thought(dialogue.messages[-2]["content"], dialogue.messages[-1]["content"])
        + "<|im_end|>\n"
    )


def thought(question: str, answer: str) -> str:
    """What a thinking assistant says after <think>."""
    return f"they ask: {question}\n</think>\n\n{answer}"


def document(rng: random.Random) -> str:
    """Return one short document of the corpus, in the mix that the model learns."""
    kind = rng.randrange(20)
    if kind < 12:
        return render(talk(rng, turns_max=8 if kind == 0 else 3))
    if kind < 14:
        return render(recall(rng))
    if kind < 17:
        return render(tool(rng))
    if kind < 19:
        return render(long_count(rng))
    return rng.choice(STORIES) + "<|endoftext|>"


def vocabulary_text() -> str:
    """Return the text from which the vocabularies are learned."""
    rng = random.Random(1234)
    quoted = " ".join(f'"{number}"' for number in range(100))
    numbers = f" {counting(0, COUNT_MAX)[1]} {quoted}"
    return "".join(document(rng) for _ in range(3000)) + numbers * 60
