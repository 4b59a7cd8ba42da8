"""What an event's example says: in the document, and in a test event that looks like a real one."""

from collections.abc import Mapping
from typing import Any

from service.ingress.shown import Shown
from service.wire.event_types import data_model
from service.wire.schema import schemas

TOLD: Mapping[str, Mapping[str, Any]] = {
    "escrow.status.updated": {"escrow": {"status": "paid", "oldStatus": "pending"}},
}
"""What an event's example says beyond VALUES."""


def sample_of(event_type: str) -> Mapping[str, Any]:
    """The `data` of an event of this type, as it might be."""
    model = data_model(event_type)
    if model is None:
        return {}
    refs, definitions = schemas([model])
    told: Mapping[str, Any] = Shown(definitions).of(refs[model], TOLD.get(event_type, {}))
    return told
