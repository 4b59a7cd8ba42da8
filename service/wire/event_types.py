"""The catalogue of events as JSON Schema: from the models that the bodies are made of.

Law: nothing is described twice. A type's model is what its builder gives.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, get_type_hints

from pydantic import Field

from service.rules import identity
from service.rules.events import CATALOGUE, OF_ENDPOINTS, TEST, describe
from service.wire.base import Wire
from service.wire.endpoint_events import ExhaustedData
from service.wire.events import DATA
from service.wire.identity import LinkedData, UpdatedData
from service.wire.milestone_events import DATA as MILESTONE_DATA
from service.wire.schema import Schema, schema_alone
from service.wire.webhooks import EndpointData

TYPES = (*sorted(CATALOGUE), TEST)
"""Every type that is ever sent, in the order in which they are shown."""

BESIDE_ESCROWS: Mapping[str, type[Wire]] = {
    **dict.fromkeys(OF_ENDPOINTS, EndpointData),
    "delivery.exhausted": ExhaustedData,
    identity.UPDATED: UpdatedData,
    identity.LINKED: LinkedData,
    TEST: EndpointData,
}
"""The events that no step of an escrow sends, and what they carry."""


class EventType(Wire):
    """A type of event: what it means, and the JSON Schema of the whole body."""

    type: str
    description: str
    schema_: Annotated[Mapping[str, Any], Field(alias="schema")]


class EventTypes(Wire):
    """200 of the catalogue."""

    event_types: list[EventType]


def data_model(event_type: str) -> type[Wire] | None:
    """The model of this type's `data`; None while nothing of it is sent."""
    if event_type in BESIDE_ESCROWS:
        return BESIDE_ESCROWS[event_type]
    model: type[Wire] | None = None
    builder = DATA.get(event_type) or MILESTONE_DATA.get(event_type)
    if builder is not None:
        model = get_type_hints(builder)["return"]
    return model


def envelope_schema(event_type: str, data: Schema) -> Schema:
    """The body of this type, around the schema of its data."""
    return {
        "type": "object",
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "type": {"const": event_type},
            "timestamp": {"type": "string", "format": "date-time"},
            "data": data,
        },
        "required": ["id", "type", "timestamp", "data"],
    }


@lru_cache(maxsize=1)
def event_types() -> EventTypes:
    """Every type with a schema that stands alone."""
    return EventTypes(event_types=[event_type(name) for name in TYPES])


def event_type(name: str) -> EventType:
    """One type with a schema that stands alone."""
    model = data_model(name)
    data, definitions = schema_alone(model) if model else ({"type": "object"}, {})
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **envelope_schema(name, data),
        **({"$defs": definitions} if definitions else {}),
    }
    return EventType(type=name, description=describe(name), schema_=schema)
