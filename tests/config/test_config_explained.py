"""Value by value: where each comes from, in what two configurations differ, and the schema for editors."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import jsonschema_rs
import pytest

from gateway.config import Source
from gateway.config.explained import differences, explained
from gateway.config.load import parse_config
from gateway.config.schema import json_schema

DEPLOY = Path(__file__).parents[2] / "deploy"
TEXT = """[database]
url = "postgresql+psycopg://me:S3CRET@db.example:5432/gateway?password=S3CRET"
[[destinations]]
name = "a"
type = "research"
ae_title = "A"
host = "h"
port = 104
[[routes]]
name = "r"
called_ae = "R"
destinations = ["a"]
[routes.mark]
word = "COPY"
"""


def test_each_value_says_where_it_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(TEXT)
    (tmp_path / "conf.d").mkdir()
    part = tmp_path / "conf.d" / "x.toml"
    part.write_text(TEXT[TEXT.index("[[routes]]") :].replace('"r"', '"s"').replace('"R"', '"S"'))
    values = {value.path: value for value in explained(Source.read(file))}
    word = values["routes[0].mark.word"]
    assert (word.value, word.origin, word.file, word.line) == ("COPY", "file", file, 14)  # written, though the default
    assert (values["routes[1].called_ae"].file, values["routes[1].called_ae"].line) == (part, 3)
    assert (values["ingress.port"].value, values["ingress.port"].origin) == ("11112", "default")
    assert values["routes[0].mark.without_air"].origin == "profile"
    assert values["keys.uid_key"].value == f"file:{tmp_path}/keys/uid.key"
    assert "S3CRET" not in str(values) and "me" not in values["database.url"].value.split("/")[2].split("@")[0]
    assert "db.example:5432/gateway" in values["database.url"].value


def test_differences_are_by_name_and_tell_of_a_secret_only_that_it_differs() -> None:
    file = Path("gateway.toml")
    first = TEXT[TEXT.index("[[routes]]") :].replace('"r"', '"new"').replace('"R"', '"NEW"')
    changed = TEXT.replace("[[routes]]", first + "[[routes]]").replace("S3CRET", "other")
    changed = changed.replace("port = 104", "port = 105")
    found = {
        one.path: (one.before, one.after) for one in differences(parse_config(TEXT, file), parse_config(changed, file))
    }
    assert found["destinations[a].port"] == ("104", "105")
    assert found["routes[new].called_ae"] == (None, "NEW")
    assert not any(path.startswith("routes[r]") for path in found)  # it only moved
    assert found["database.url"][1] == f"{found['database.url'][0]} (differs)"
    assert "S3CRET" not in str(found) and "other" not in str(found)
    assert differences(parse_config(TEXT, file), parse_config(TEXT, file)) == []


WRONG = {
    "unknown key": "[ingress]\nprot = 5\n",
    "text for a port": "[ingress]\nport = 'x'\n",
    "no port": "[restore]\ntls_port = true\n",
    "word": "[log]\nlevel = 'inof'\n",
    "secret": "[keys]\nuid_key = 'c0ffee'\n",
    "name": "[site]\nname = 'Not A Name'\n",
}


@pytest.mark.parametrize("kind", WRONG)
def test_the_schema_finds_what_is_wrong(kind: str) -> None:
    assert not jsonschema_rs.is_valid(json_schema(), tomllib.loads(WRONG[kind]))


def test_the_schema_takes_what_the_gateway_takes() -> None:
    schema = json_schema()
    jsonschema_rs.meta.validate(schema)
    for text in ((DEPLOY / "gateway.toml").read_text("utf-8"), TEXT, "[restore]\ntls_port = false\nplain_port = 5\n"):
        table = tomllib.loads(text)
        jsonschema_rs.validate(schema, json.loads(json.dumps(table, default=str)))
    assert '"null"' not in json.dumps(schema)
