"""The operator's figures that the rules need: fees, clocks, floors. Made once from the settings."""

from dataclasses import dataclass

from service.rules.identity import BLOCKED_DOMAINS


@dataclass(frozen=True, slots=True)
class Policy:
    """Rates in basis points (1/100 of a percent); clocks in the unit their name says."""

    environment: str = "sandbox"
    public_url: str = "http://localhost:8080"
    platform_fee_bps: int = 500
    instant_fee_bps: int = 0
    protocol_fee_bps: int = 30
    expiry_months: int = 1
    completion_days: int = 7
    overdue_refund_days: int = 3
    cancellation_answer_days: int = 5
    dispute_answer_days: int = 5
    proof_max_rounds: int = 3
    fx_max_age_hours: int = 48
    daily_escrow_cap: int | None = None
    max_webhooks_per_developer: int = 2
    webhook_allow_private: bool = False
    ticket_prefix: str = "DHM"
    timezone: str = "Africa/Tunis"
    phone_is_required: bool = True
    blocked_email_domains: frozenset[str] = BLOCKED_DOMAINS
    attempt_retention_days: int = 30
    body_retention_days: int = 90

    @property
    def is_sandbox(self) -> bool:
        """Whether the sandbox's helpers and its movable clock exist here."""
        return self.environment == "sandbox"
