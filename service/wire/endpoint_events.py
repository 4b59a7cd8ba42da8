"""What `delivery.exhausted` tells beside its endpoint: the delivery that was given up."""

from service.wire.base import Wire
from service.wire.webhooks import EndpointData


class ToldDelivery(Wire):
    """A delivery that was given up; without an answer `lastStatus` is 0, `lastErrorClass` why."""

    id: str
    event_id: str
    type: str
    attempt: int
    last_status: int
    last_error_class: str | None


class ExhaustedData(EndpointData):
    """The `data` of `delivery.exhausted`."""

    delivery: ToldDelivery


class CanaryData(Wire):
    """The `data` of the canary: nothing. That it arrives is all."""
