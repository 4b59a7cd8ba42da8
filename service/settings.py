"""Everything the environment decides, typed and bounded; read only by the mains.

Law: a wrong value stops the start with one line that names the variable and the reason. The names
are those of the operations manual: the field `platform_fee_bps` is the variable
`PLATFORM_FEE_BPS`. An empty variable counts as unset. Values that may hold a password are kept
out of `repr`.
"""

import ipaddress
import os
import re
import zoneinfo
from collections.abc import Mapping
from typing import Annotated, Literal, Self
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import AfterValidator as After
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from service.rules.identity import BLOCKED_DOMAINS
from service.rules.payment import BANK_TRANSFER, PROVIDERS, SANDBOX, STRIPE
from service.rules.policy import Policy
from service.wire.complaints import complaint
from service.wire.text import ascii_domain

SECRET_KEY_MIN_CHARACTERS = 32
METRICS_TOKEN_MIN_CHARACTERS = 16
DAYS_MAX = 3650
# Where a path says it all, and where no host means the usual one: a socket, this machine.
BY_PATH = ("file", "unix")
BY_DEFAULT = ("postgresql", "postgres", "redis", "rediss")

VISIBLE = r"^[\x21-\x7e]{1,1000}$"
DOMAIN = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")

_NEEDED = "must be set when PAYMENT_PROVIDERS names {}"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class SettingsError(Exception):
    """One line: the variable and what is wrong with it. Never holds the value of a secret."""


def _url(*schemes: str) -> After:
    """A URL of one of these schemes that says where: a host, or a path where that is enough."""

    def check(url: str) -> str:
        parts = _split(url)
        if parts.scheme not in schemes:
            starts = " or ".join(f"{scheme}://" for scheme in schemes)
            raise ValueError(f"must be a URL that begins with {starts}")
        if parts.scheme in BY_PATH and not parts.path.strip("/"):
            raise ValueError(f"must name a path, such as {parts.scheme}:///srv/amana")
        if parts.scheme not in (*BY_PATH, *BY_DEFAULT) and not parts.hostname:
            raise ValueError(f"must name a host, such as {parts.scheme}://example.com")
        return url

    return After(check)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        for host in parts.netloc.rpartition("@")[2].split(","):  # a database may have several
            if urlsplit(f"//{host}").port == 0:
                raise ValueError
    except ValueError:
        raise ValueError("must be a URL, with a port from 1 to 65535 if with any") from None
    return parts


def _web_url(url: str) -> str:
    parts = _split(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be a URL that begins with http:// or https://")
    if parts.query or parts.fragment or parts.username:
        raise ValueError("must be a URL without query, fragment or user name")
    return url.rstrip("/")


def _plain(url: str) -> str:
    parts = _split(url)
    if parts.query or parts.fragment or "@" in parts.netloc or _has_steps(parts.path):
        raise ValueError("must have no user name, query or fragment, and no .. in its path")
    if parts.scheme == "file" and parts.netloc not in ("", "localhost"):
        raise ValueError("must name a folder of this machine, such as file:///srv/amana")
    return url


def _has_steps(path: str) -> bool:
    return ".." in unquote(path).split("/")


def _networks(listed: object) -> object:
    if not isinstance(listed, str):
        return listed
    try:
        return tuple(ipaddress.ip_network(part.strip()) for part in listed.split(",") if part)
    except ValueError:
        raise ValueError("must be a list of addresses or networks, parted by commas") from None


def _domains(listed: object) -> object:
    """Parted by commas; `none` stands for an empty list, since an empty variable is unset."""
    if not isinstance(listed, str):
        return listed
    names = [part.strip().removeprefix("@") for part in listed.split(",") if part.strip()]
    fault = "must be a list of domains, parted by commas, or none"
    try:
        domains = frozenset(ascii_domain(name) for name in names if name.lower() != "none")
    except ValueError:
        raise ValueError(fault) from None
    if not all(DOMAIN.fullmatch(domain) for domain in domains):
        raise ValueError(fault)
    return domains


def _providers(listed: object) -> object:
    if not isinstance(listed, str):
        return listed
    names = tuple(part.strip() for part in listed.split(",") if part.strip())
    if not names or len(set(names)) < len(names) or not set(names) <= set(PROVIDERS):
        raise ValueError(f"must be a list of {', '.join(PROVIDERS)}, parted by commas, each once")
    return names


def _hook_secrets(listed: object) -> object:
    if not isinstance(listed, str):
        return listed
    return tuple(part.strip() for part in listed.split(",") if part.strip())


def _timezone(name: str) -> str:
    try:
        zoneinfo.ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError("must be the name of a time zone, such as Africa/Tunis") from None
    return name


PostgresUrl = Annotated[str, _url("postgresql", "postgres")]
RedisUrl = Annotated[str, _url("redis", "rediss", "unix")]
WebUrl = Annotated[str, After(_web_url)]
Bps = Annotated[int, Field(ge=0, le=10_000)]
Days = Annotated[int, Field(ge=1, le=DAYS_MAX)]
Port = Annotated[int, Field(ge=1, le=65_535)]
Networks = Annotated[tuple[Network, ...], BeforeValidator(_networks)]
Domains = Annotated[frozenset[str], BeforeValidator(_domains)]
Providers = Annotated[tuple[str, ...], BeforeValidator(_providers)]
HookSecrets = Annotated[
    tuple[Annotated[str, Field(pattern=r"^whsec_[\x21-\x7e]+$")], ...],
    BeforeValidator(_hook_secrets),
]


class Settings(BaseModel):
    """The operator's choices. Units are in the names; times in days unless said otherwise."""

    model_config = ConfigDict(frozen=True, extra="ignore", str_strip_whitespace=True)

    amana_env: Literal["sandbox", "live"] = "sandbox"
    amana_host: str = "0.0.0.0"  # noqa: S104 - a server is meant to be reached; `up` narrows it
    port: Port = 8080
    worker_port: Annotated[int, Field(ge=0, le=65_535)] = 8081
    amana_public_url: WebUrl = "http://localhost:8080"

    database_url: PostgresUrl | None = Field(default=None, repr=False)
    database_admin_url: PostgresUrl | None = Field(default=None, repr=False)
    pgbouncer: bool = False
    redis_url: RedisUrl | None = Field(default=None, repr=False)
    amana_secret_key: str | None = Field(default=None, repr=False)

    smtp_url: Annotated[str, _url("smtp", "smtps")] | None = Field(default=None, repr=False)
    mail_from: Annotated[str, Field(pattern=r"^[^\r\n]*[^\s@<]+@[^\s@>]+>?$", max_length=200)] = (
        "Amana <amana@localhost>"
    )
    sms_url: WebUrl | None = Field(default=None, repr=False)
    storage_url: Annotated[str, _url("file", "s3"), After(_plain)] | None = None
    storage_endpoint: WebUrl | None = None
    storage_region: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}$")] | None = None
    storage_key_id: Annotated[str, Field(pattern=VISIBLE)] | None = Field(default=None, repr=False)
    storage_secret: Annotated[str, Field(pattern=VISIBLE)] | None = Field(default=None, repr=False)

    trusted_proxies: Networks = ()
    webhook_allow_private: bool = False
    max_webhooks_per_developer: Annotated[int, Field(ge=1, le=100)] = 2
    daily_escrow_cap: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    blocked_email_domains: Domains = BLOCKED_DOMAINS
    rate_limit_per_minute: Annotated[int, Field(ge=0, le=1_000_000)] = 100

    payment_providers: Providers | None = None
    bank_transfer_details: Annotated[str, Field(max_length=1_000)] | None = None
    stripe_secret_key: (
        Annotated[str, Field(pattern=r"^(sk|rk)_(test|live)_[A-Za-z0-9_]+$")] | None
    ) = Field(default=None, repr=False)
    stripe_webhook_secret: HookSecrets = Field(default=(), repr=False)
    stripe_api_base: WebUrl | None = None

    platform_fee_bps: Bps = 500
    instant_fee_bps: Bps = 0
    protocol_fee_bps: Annotated[int, Field(ge=0, le=100)] = 30
    expiry_months: Annotated[int, Field(ge=1, le=120)] = 1
    completion_days: Days = 7
    overdue_refund_days: Days = 3
    cancellation_answer_days: Days = 5
    dispute_answer_days: Days = 5
    proof_max_rounds: Annotated[int, Field(ge=0, le=100)] = 3
    fx_url: Annotated[str, _url("http", "https")] | None = Field(default=None, repr=False)
    fx_max_age_hours: Annotated[int, Field(ge=1, le=8_760)] = 48
    ticket_prefix: Annotated[str, Field(pattern=r"^[A-Z]{1,10}$")] = "DHM"
    attempt_retention_days: Days = 30
    body_retention_days: Days = 90

    log_format: Literal["json", "console"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    default_timezone: Annotated[str, After(_timezone)] = "Africa/Tunis"
    metrics_token: (
        Annotated[str, Field(min_length=METRICS_TOKEN_MIN_CHARACTERS, pattern=r"^[\x21-\x7e]+$")]
        | None
    ) = Field(default=None, repr=False)

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, level: object) -> object:
        return level.lower() if isinstance(level, str) else level

    @field_validator("amana_secret_key")
    @classmethod
    def _long_enough(cls, keys: str | None) -> str | None:
        if keys and any(len(k.strip()) < SECRET_KEY_MIN_CHARACTERS for k in keys.split(",")):
            raise ValueError(f"must hold keys of at least {SECRET_KEY_MIN_CHARACTERS} characters")
        return keys

    @model_validator(mode="after")
    def _safe_when_live(self) -> Self:
        if self.amana_env == "live" and self.webhook_allow_private:
            raise _of("WEBHOOK_ALLOW_PRIVATE", "must not be set when AMANA_ENV is live")
        if self.amana_env == "live" and self.rate_limit_per_minute == 0:
            raise _of("RATE_LIMIT_PER_MINUTE", "must be at least 1 when AMANA_ENV is live")
        return self

    @model_validator(mode="after")
    def _able_to_keep_files(self) -> Self:
        if (self.storage_key_id is None) != (self.storage_secret is None):
            missing = "STORAGE_SECRET" if self.storage_secret is None else "STORAGE_KEY_ID"
            raise _of(missing, "must be set where the other half of the key is")
        return self

    @model_validator(mode="after")
    def _able_to_take_money(self) -> Self:
        is_live = self.amana_env == "live"
        if is_live and SANDBOX in self.providers:
            raise _of("PAYMENT_PROVIDERS", "must not name sandbox when AMANA_ENV is live")
        if BANK_TRANSFER in self.providers and is_live and not self.bank_transfer_details:
            raise _of("BANK_TRANSFER_DETAILS", _NEEDED.format(BANK_TRANSFER))
        if STRIPE in self.providers and not self.stripe_secret_key:
            raise _of("STRIPE_SECRET_KEY", _NEEDED.format(STRIPE))
        if STRIPE in self.providers and not self.stripe_webhook_secret:
            raise _of("STRIPE_WEBHOOK_SECRET", _NEEDED.format(STRIPE))
        if self.stripe_secret_key and ("_live_" in self.stripe_secret_key[:8]) != is_live:
            kind = "live" if is_live else "test"
            raise _of(
                "STRIPE_SECRET_KEY", f"must be a {kind} key when AMANA_ENV is {self.amana_env}"
            )
        if is_live and self.stripe_api_base:
            raise _of("STRIPE_API_BASE", "must not be set when AMANA_ENV is live")
        return self

    @property
    def providers(self) -> tuple[str, ...]:
        """How money may come in: what was chosen, else what can be had without choosing."""
        if self.payment_providers is not None:
            return self.payment_providers
        if self.is_sandbox:
            return (SANDBOX, BANK_TRANSFER)
        return (BANK_TRANSFER,) if self.bank_transfer_details else ()

    @property
    def is_sandbox(self) -> bool:
        """Whether this deployment plays with money that is not real."""
        return self.amana_env == "sandbox"

    @property
    def storage_access(self) -> tuple[str | None, str | None, str | None, str | None]:
        """Endpoint, region, key id and secret of an S3-compatible store."""
        return self.storage_endpoint, self.storage_region, self.storage_key_id, self.storage_secret

    @property
    def admin_url(self) -> str | None:
        """The owner's database URL; the application's where none of its own is set."""
        return self.database_admin_url or self.database_url

    @property
    def secret_keys(self) -> tuple[str, ...]:
        """The keys of AMANA_SECRET_KEY: the first seals and signs, every one opens."""
        return tuple(key.strip() for key in (self.amana_secret_key or "").split(",") if key)

    def require(self, *variables: str) -> None:
        """Raise SettingsError for the first of these variables that is not set."""
        for variable in variables:
            if getattr(self, variable.lower()) is None:
                raise SettingsError(f"{variable} is not set; this command needs it")

    def policy(self) -> Policy:
        """The operator's figures as the rules want them."""
        return Policy(
            environment=self.amana_env,
            public_url=self.amana_public_url,
            platform_fee_bps=self.platform_fee_bps,
            instant_fee_bps=self.instant_fee_bps,
            protocol_fee_bps=self.protocol_fee_bps,
            expiry_months=self.expiry_months,
            completion_days=self.completion_days,
            overdue_refund_days=self.overdue_refund_days,
            cancellation_answer_days=self.cancellation_answer_days,
            dispute_answer_days=self.dispute_answer_days,
            proof_max_rounds=self.proof_max_rounds,
            fx_max_age_hours=self.fx_max_age_hours,
            daily_escrow_cap=self.daily_escrow_cap,
            max_webhooks_per_developer=self.max_webhooks_per_developer,
            webhook_allow_private=self.webhook_allow_private,
            attempt_retention_days=self.attempt_retention_days,
            body_retention_days=self.body_retention_days,
            ticket_prefix=self.ticket_prefix,
            timezone=self.default_timezone,
            # Live without a gateway nobody could be sent a code, so that paying asks for none.
            phone_is_required=self.is_sandbox or self.sms_url is not None,
            blocked_email_domains=self.blocked_email_domains,
        )


def load_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings of this environment.

    Raises:
        SettingsError: a value is wrong; the message is one line for the operator.
    """
    given = {
        name: environ[name.upper()]
        for name in Settings.model_fields
        if environ.get(name.upper(), "").strip()
    }
    try:
        return Settings.model_validate(given)
    except ValidationError as failure:
        error = failure.errors(include_url=False, include_input=False)[0]
        variable = str(error["loc"][0]).upper() + " " if error["loc"] else ""
        raise SettingsError(f"{variable}{complaint(error)}") from None


def _of(variable: str, reason: str) -> ValueError:
    return ValueError(f"{variable} {reason}")
