"""The configuration's JSON Schema, for editors that complete and check TOML (Taplo, Even Better TOML)."""

from __future__ import annotations

from typing import Any

from gateway.config.models import Config


def json_schema() -> dict[str, Any]:
    """A schema of draft 2020-12. It is no stricter than the gateway: what two values say together it does not know."""
    schema = _without_null(Config.model_json_schema())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "MIAD Gateway", **schema}


def _without_null(value: Any) -> Any:
    """TOML has no null: what may be nothing is left out of the file."""
    if isinstance(value, list):
        return [_without_null(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    found = {key: _without_null(inner) for key, inner in value.items() if not (key == "default" and inner is None)}
    kinds = [kind for kind in found.get("anyOf", ()) if kind != {"type": "null"}]
    if kinds and len(kinds) != len(found["anyOf"]):
        del found["anyOf"]
        found |= kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    return found
