"""The JSON Schema of what stands on the wire, as OpenAPI 3.1 wants it: from the models themselves.

Law: a schema says what the reader and the writer do. Money is a JSON number with its bounds, an
`absent()` key is not required and never null, an explicit null is required, `null` for an
optional field of a body is absence.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema
from pydantic_core import core_schema as core

from service.wire.base import Body, Wire
from service.wire.text import an_email

REF = "#/components/schemas/{model}"
BOUNDS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "min_length": "minLength",
    "max_length": "maxLength",
}
"""pydantic's names of bounds, where it hands them on as they are, and JSON Schema's."""
NULL = {"type": "null"}

Schema = dict[str, Any]


class WireSchema(GenerateJsonSchema):
    """How our shapes differ from what pydantic thinks of them."""

    def decimal_schema(self, schema: core.DecimalSchema) -> Schema:
        """A JSON number: it is read from its token and written as one, never as a string."""
        bounds = {BOUNDS[name]: float(schema[name]) for name in schema if name in BOUNDS}  # type: ignore[literal-required]  # TypedDict by its own keys
        return {"type": "number", **bounds}

    def function_after_schema(self, schema: core.AfterValidatorFunctionSchema) -> Schema:
        """An e-mail is told from other texts by its validator."""
        told = super().function_after_schema(schema)
        is_email = schema["function"].get("function") is an_email
        return {**told, "format": "email", "maxLength": 254} if is_email else told

    def model_field_schema(self, schema: core.ModelField) -> Schema:
        """An `absent()` key is left out where it would be null."""
        told = super().model_field_schema(schema)
        return _without_null(told) if "serialization_exclude_if" in schema else told

    def model_schema(self, schema: core.ModelSchema) -> Schema:
        """A model, with its description on one line and its fields without titles."""
        told = super().model_schema(schema)
        told.pop("title", None)
        if "description" in told:
            told["description"] = " ".join(told["description"].split())
        required = told.get("required", ())
        for name, field in told.get("properties", {}).items():
            _tidy(field)
            if issubclass(schema["cls"], Body) and name not in required:
                told["properties"][name] = _or_null(field)
        return told

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic's signature
        """Never: a field's name says as much."""
        return False


def _tidy(field: Schema) -> None:
    for name, keyword in BOUNDS.items():
        if name in field:
            bound = field.pop(name)
            field[keyword] = bound if isinstance(bound, int) else float(bound)
    if "decimal_places" in field:
        field["description"] = f"At most {field.pop('decimal_places')} decimals."
    if "default" in field and field.get("type") == "number":
        field["default"] = float(field["default"])
    if field.get("default", 0) is None:
        del field["default"]
    for branch in field.get("anyOf", ()):
        _tidy(branch)


def _or_null(field: Schema) -> Schema:
    if NULL in field.get("anyOf", ()):
        return field
    outer = {name: value for name, value in field.items() if name in ("default", "description")}
    inner = {name: value for name, value in field.items() if name not in outer}
    return {**outer, "anyOf": [inner, NULL]}


def _without_null(field: Schema) -> Schema:
    branches = [branch for branch in field.get("anyOf", ()) if branch != NULL]
    if len(branches) != 1:
        return {**field, "anyOf": branches} if branches else field
    return {**{k: v for k, v in field.items() if k not in ("anyOf", "default")}, **branches[0]}


def mode_of(model: type[BaseModel]) -> JsonSchemaMode:
    """`serialization` for what we send, `validation` for what we are sent."""
    sent: Literal["serialization", "validation"]
    sent = "serialization" if issubclass(model, Wire) else "validation"
    return sent


def schemas(models: Iterable[type[BaseModel]]) -> tuple[Mapping[type[BaseModel], Schema], Schema]:
    """Each model's reference, and the definitions that they refer to, by name."""
    asked = [(model, mode_of(model)) for model in dict.fromkeys(models)]
    references, told = models_json_schema(
        asked, ref_template=REF, schema_generator=WireSchema, by_alias=True
    )
    by_model = {model: references[model, mode] for model, mode in asked}
    return by_model, told.get("$defs", {})


def schema_alone(model: type[BaseModel]) -> tuple[Schema, Schema]:
    """A model's reference and its definitions, for a schema that has them under `$defs`."""
    references, told = models_json_schema(
        [(model, mode_of(model))],
        ref_template="#/$defs/{model}",
        schema_generator=WireSchema,
        by_alias=True,
    )
    return references[model, mode_of(model)], told.get("$defs", {})
