"""Identity verifications: ask for one, read it, find those of an e-mail. Source: escrows.md 10."""

from service.commands import identity
from service.commands.perform import Answer, perform
from service.ingress.call import Call, Caller
from service.ingress.route import Subject, is_entity_id
from service.rules.errors import InvalidVerificationId, VerificationNotFound
from service.rules.identity import Verification
from service.store.identity import read_of_email, read_verification
from service.wire.base import Wire
from service.wire.identity import (
    NewVerification,
    VerificationList,
    VerificationMade,
    VerificationQuery,
    VerificationRecord,
    record,
)


def may_read(caller: Caller, verification: Verification) -> bool:
    """The developer that asked for it, and nobody else."""
    return caller.developer_id == verification.developer_id


# Another developer's verification is told from none at all by nothing.
VERIFICATION = Subject(
    "id",
    is_entity_id,
    InvalidVerificationId,
    read_verification,
    VerificationNotFound,
    may_read,
    VerificationNotFound,
)


async def request(call: Call[NewVerification, None]) -> Answer:
    """A new verification, or the pending one that there is."""

    def status(told: Wire) -> int:
        return call.status if isinstance(told, VerificationMade) else 200

    return await perform(
        call.house,
        call.actor,
        identity.request(call.developer_id, call.body),
        status=status,
        idempotency=call.idempotency,
    )


async def read_one(call: Call[None, None]) -> VerificationRecord:
    """One verification, expired or not."""
    return record(call.subject)


async def read_list(call: Call[None, VerificationQuery]) -> VerificationList:
    """Those of one e-mail, newest first, without what expired while it was pending."""
    found = await read_of_email(call.house.pool, call.developer_id, call.query.email)
    return VerificationList(verifications=[record(one) for one in found])
