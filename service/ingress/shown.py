"""What an example shows for a schema: what is given, else what the examples' VALUES say."""

from collections.abc import Mapping
from typing import Any

from service.ingress.examples import NAMED, VALUES
from service.ingress.samples import FROM_ENVIRONMENT
from service.wire.schema import Schema


class Shown:
    """Makes examples for schemas that refer to these definitions."""

    def __init__(self, definitions: Mapping[str, Schema]) -> None:
        self._definitions = definitions

    def of(self, schema: Mapping[str, Any], given: Any = None, name: str = "") -> Any:
        """What an example says for this schema: what is given, else what VALUES say."""
        while "$ref" in schema:
            schema = self._definitions[schema["$ref"].rpartition("/")[2]]
        if "properties" in schema:
            return self._object(schema, given if isinstance(given, Mapping) else {})
        value = VALUES.get(name) if given is None else given
        return self._chosen(schema, value, name)

    def _object(self, schema: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        wanted = {*schema.get("required", ()), *given}
        return {
            name: None
            if name in given and given[name] is None
            else self.of(field, given.get(name), name)
            for name, field in schema["properties"].items()
            if name in wanted
        }

    def _chosen(self, schema: Mapping[str, Any], value: Any, name: str) -> Any:
        for candidate in value if isinstance(value, tuple) else (value,):
            for branch in schema.get("anyOf", (schema,)):
                if candidate is not None and self._fits(candidate, branch):
                    return self.of(branch, candidate, name) if "$ref" in branch else candidate
        if {"type": "null"} in schema.get("anyOf", ()) or schema.get("type") == "null":
            return None
        if schema.get("type") == "array":
            return [self.of(schema["items"], None, name)]
        return _filler(schema)

    def _fits(self, value: object, schema: Mapping[str, Any]) -> bool:
        while "$ref" in schema:
            schema = self._definitions[schema["$ref"].rpartition("/")[2]]
        if "const" in schema or "enum" in schema:
            return value in schema.get("enum", [schema.get("const")])
        kind = schema.get("type")
        if isinstance(value, bool):
            return kind == "boolean"
        if isinstance(value, list):
            return kind == "array" and all(self._fits(one, schema["items"]) for one in value)
        kinds = {str: ("string",), int: ("integer", "number")}
        return kind in kinds.get(type(value), ("object",) if _is_object(value) else ("number",))


def filled_in(value: Any) -> Any:
    """What is read from the environment, as the document shows it."""
    if isinstance(value, Mapping):
        return {name: filled_in(part) for name, part in value.items()}
    return NAMED[value] if isinstance(value, str) and FROM_ENVIRONMENT.fullmatch(value) else value


def _filler(schema: Mapping[str, Any]) -> Any:
    """What stands where nothing more telling is known."""
    if "const" in schema or "enum" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    if schema.get("format") == "date-time":
        return "2026-01-31T09:30:00.000Z"
    kinds: Mapping[Any, Any] = {"boolean": True, "integer": 1, "number": 1, "object": {}}
    return kinds.get(schema.get("type"), "…")


def _is_object(value: object) -> bool:
    return isinstance(value, Mapping)
