"""The schema that editors get has the fields of a host."""

import msgspec

from skep.spec.host import HiveHost
from skep.spec.schema import toml_schema


def test_a_hive_and_the_defaults_have_every_field_and_only_the_alias_must_be_in_the_hive() -> None:
    schema = msgspec.json.decode(msgspec.json.encode(toml_schema()))
    definitions = schema["$defs"]
    tables = definitions["Config"]["properties"]
    assert tables["hive"]["items"] == {"$ref": "#/$defs/HiveHost", "required": ["alias"]}
    assert tables["hive_defaults"]["$ref"] == "#/$defs/HiveHost"
    host = definitions["HiveHost"]
    assert set(host["properties"]) == {field.name for field in msgspec.structs.fields(HiveHost)}
    assert (host["required"], host["additionalProperties"]) == ([], False)
    for name in ("WorkerDecl", "Install", "GitInstall", "PoolSpec", "QueenConfig"):
        assert name in definitions
