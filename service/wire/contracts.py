"""`GET /escrows/:id/contract`. Source: escrows.md 3.8."""

from datetime import datetime

from service.wire.base import Wire, absent


class GivenSignature(Wire):
    """A party's signature: an image as a data URI, or null and the name that was typed."""

    signed_at: datetime
    signature_image: str | None
    signed_name: str | None = absent()


class PdfVersion(Wire):
    """The contract as a document, in one state of its signatures."""

    type: str
    url: str
    mime_type: str
    created_at: datetime


class ContractShape(Wire):
    """A contract in full."""

    id: str
    escrow: str
    terms: str
    language: str
    version: int
    pdf_url: str | None
    seller_signature: GivenSignature | None
    buyer_signature: GivenSignature | None
    is_fully_signed: bool
    pdf_versions: list[PdfVersion]
    created_at: datetime
    updated_at: datetime


class ContractAnswer(Wire):
    """200 of `GET /escrows/:id/contract`."""

    contract: ContractShape
