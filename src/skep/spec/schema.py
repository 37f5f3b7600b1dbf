"""The JSON schema of the whole of skep.toml, for editors."""

from typing import Any

import msgspec

from skep.spec.config import Config
from skep.spec.host import HiveHost

_DEFS = "#/$defs/{name}"


def toml_schema() -> dict[str, Any]:
    """Return the schema. A `[[hive]]` and `[hive_defaults]` have the same fields; what one needs the other may give."""
    (root,), defs = msgspec.json.schema_components([Config], ref_template=_DEFS)
    (hive,), hive_defs = msgspec.json.schema_components([HiveHost], ref_template=_DEFS)
    defs |= hive_defs
    defs["HiveHost"] = {**defs["HiveHost"], "required": []}
    tables = defs["Config"]["properties"]
    tables["hive"] = {**tables["hive"], "items": {**hive, "required": ["alias"]}}
    tables["hive_defaults"] = {**tables["hive_defaults"], **hive}
    tables["hive_defaults"].pop("type")
    return {**root, "$defs": defs}
