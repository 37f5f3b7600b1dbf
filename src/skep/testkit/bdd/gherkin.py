"""Feature files as Cucumber Messages: source, document, pickles; and which pickle is which scenario."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gherkin.parser import Parser
from gherkin.pickles.compiler import Compiler
from gherkin.stream.id_generator import IdGenerator

from skep.proof.messages import Envelope


@dataclass
class FeatureStream:
    """The messages of the features met so far. Ids are unique over the run."""

    root: Path
    _ids: Any = field(default_factory=IdGenerator)
    _pickles: dict[tuple[str, int, int | None], dict[str, Any]] = field(default_factory=dict)
    _read: set[str] = field(default_factory=set)

    def open(self, uri: str) -> list[Envelope]:
        """Return the envelopes of a feature file the first time that it is met."""
        if uri in self._read:
            return []
        self._read.add(uri)
        text = (self.root / uri).read_text(encoding="utf-8")
        parser, compiler = Parser(), Compiler(self._ids)
        parser.ast_builder.id_generator = self._ids
        document: Any = parser.parse(text)
        document["uri"] = uri
        pickles: Any = compiler.compile(document)
        self._index(uri, document, pickles)
        source = {"uri": uri, "data": text, "mediaType": "text/x.cucumber.gherkin+plain"}
        return [
            {"source": source},
            {"gherkinDocument": document},
            *({"pickle": pickle} for pickle in pickles),
        ]

    def pickle(self, uri: str, line: int, row: int | None) -> dict[str, Any] | None:
        """Return the pickle of a scenario (of a row of it)."""
        return self._pickles.get((uri, line, row))

    def new_id(self) -> str:
        """Return an id that no other message has."""
        return str(self._ids.get_next_id())

    def _index(self, uri: str, document: dict[str, Any], pickles: list[dict[str, Any]]) -> None:
        places: dict[str, tuple[int, int | None]] = {}
        for child in _scenario_nodes(document.get("feature") or {}):
            line, row = child["location"]["line"], 0
            places[child["id"]] = (line, None)
            for examples in child["examples"]:
                for body in examples.get("tableBody", ()):
                    places[body["id"]] = (line, row)
                    row += 1
        for pickle in pickles:
            line, row_index = places[pickle["astNodeIds"][-1]]
            self._pickles[uri, line, row_index] = pickle


def _scenario_nodes(node: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for child in node.get("children", ()):
        if "scenario" in child:
            found.append(child["scenario"])
        if "rule" in child:
            found += _scenario_nodes(child["rule"])
    return found
