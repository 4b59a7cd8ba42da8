"""A wrong environment stops the start with one line; a right one becomes typed settings."""

import ipaddress

import pytest

from service.rules.identity import BLOCKED_DOMAINS
from service.rules.policy import Policy
from service.settings import Settings, SettingsError, load_settings

KEY = "k" * 32


def test_nothing_set_is_the_sandbox_with_the_manuals_figures():
    settings = load_settings({})
    assert settings.is_sandbox
    assert settings.policy() == Policy()
    assert (settings.port, settings.worker_port, settings.rate_limit_per_minute) == (
        8080,
        8081,
        100,
    )
    assert settings.database_url is None


def test_an_empty_variable_counts_as_unset():
    assert load_settings({"PORT": "", "REDIS_URL": "  "}) == load_settings({})


def test_every_variable_arrives_at_the_rules():
    environ = {
        "AMANA_ENV": "live",
        "AMANA_PUBLIC_URL": "https://pay.example.com/",
        "PLATFORM_FEE_BPS": "250",
        "COMPLETION_DAYS": "14",
        "DAILY_ESCROW_CAP": "50",
        "DEFAULT_TIMEZONE": "Europe/Paris",
        "TICKET_PREFIX": "AM",
        "SMS_URL": "https://sms.example.com",
    }
    assert load_settings(environ).policy() == Policy(
        environment="live",
        public_url="https://pay.example.com",
        platform_fee_bps=250,
        completion_days=14,
        daily_escrow_cap=50,
        timezone="Europe/Paris",
        ticket_prefix="AM",
    )


@pytest.mark.parametrize(
    ("listed", "domains"),
    [
        ("", BLOCKED_DOMAINS),
        ("none", frozenset()),
        ("junk.example", {"junk.example"}),
        (" Junk.Example, @trash.example ,", {"junk.example", "trash.example"}),
        ("müll.example", {"xn--mll-hoa.example"}),
        ("straße.example, \uff4aunk.example.", {"xn--strae-oqa.example", "junk.example"}),
    ],
)
def test_blocked_domains_replace_the_default_list(listed, domains):
    policy = load_settings({"BLOCKED_EMAIL_DOMAINS": listed}).policy()
    assert policy.blocked_email_domains == domains


@pytest.mark.parametrize(
    "listed", ["junk", "junk.example trash.example", "a@b.example", "*.a.b", "a..b"]
)
def test_what_is_no_domain_stops_the_start(listed):
    told = "BLOCKED_EMAIL_DOMAINS must be a list of domains, parted by commas, or none"
    with pytest.raises(SettingsError, match=told):
        load_settings({"BLOCKED_EMAIL_DOMAINS": listed})


def test_live_asks_for_no_phone_that_it_could_not_send_a_code_to():
    assert not load_settings({"AMANA_ENV": "live"}).policy().phone_is_required
    assert load_settings({"AMANA_ENV": "sandbox"}).policy().phone_is_required


def test_lists_are_parted_by_commas():
    environ = {"TRUSTED_PROXIES": "10.0.0.0/8, ::1", "AMANA_SECRET_KEY": f"{KEY}, {KEY}old"}
    settings = load_settings(environ)
    networks = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1"))
    assert settings.trusted_proxies == networks
    assert settings.secret_keys == (KEY, KEY + "old")


def test_a_socket_is_a_fine_place_for_a_database():
    url = "postgresql://amana@/amana?host=/tmp/a"
    settings = load_settings({"DATABASE_URL": url, "REDIS_URL": "unix:///tmp/redis.sock?db=1"})
    assert settings.admin_url == url


def test_a_database_may_have_several_hosts():
    url = "postgresql://amana@one:5432,two:5433/amana"
    assert load_settings({"DATABASE_URL": url}).database_url == url


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        ({"AMANA_ENV": "prod"}, "AMANA_ENV must be one of 'sandbox' or 'live'"),
        ({"PORT": "http"}, "PORT must be a whole number"),
        ({"PORT": "70000"}, "PORT must be at most 65535"),
        ({"WORKER_PORT": "-1"}, "WORKER_PORT must be at least 0"),
        ({"DATABASE_URL": "mysql://x"}, "DATABASE_URL must be a URL that begins with postgresql:"),
        ({"REDIS_URL": "localhost"}, "REDIS_URL must be a URL that begins with redis://"),
        ({"SMTP_URL": "mail.example.com"}, "SMTP_URL must be a URL that begins with smtp://"),
        ({"SMTP_URL": "smtp://"}, "SMTP_URL must name a host, such as smtp://example.com"),
        ({"SMTP_URL": "smtp://me:pass@:25"}, "SMTP_URL must name a host"),
        ({"SMTP_URL": "smtp:///mail"}, "SMTP_URL must name a host"),
        ({"SMTP_URL": "smtp://mail:smtp"}, "SMTP_URL must be a URL, with a port from 1 to 65535"),
        ({"DATABASE_URL": "postgres://a:b,c:x/d"}, "DATABASE_URL must be a URL, with a port"),
        ({"DATABASE_URL": "postgresql://[::1/d"}, "DATABASE_URL must be a URL"),
        ({"REDIS_URL": "redis://h:0"}, "REDIS_URL must be a URL, with a port from 1 to 65535"),
        ({"REDIS_URL": "unix://"}, "REDIS_URL must name a path, such as unix:///srv/amana"),
        ({"STORAGE_URL": "file:///"}, "STORAGE_URL must name a path"),
        ({"STORAGE_URL": "s3:///key"}, "STORAGE_URL must name a host"),
        ({"STORAGE_URL": "s3://id:hunter2@bucket"}, "STORAGE_URL must have no user name"),
        ({"STORAGE_URL": "s3://bucket?region=x"}, "STORAGE_URL must have no user name, query"),
        ({"STORAGE_URL": "file:///srv/%2e%2e/etc"}, "STORAGE_URL must have no user name"),
        ({"STORAGE_URL": "file://host/srv"}, "STORAGE_URL must name a folder of this machine"),
        ({"STORAGE_KEY_ID": "AKID"}, "STORAGE_SECRET must be set where the other half"),
        ({"STORAGE_SECRET": "hunter2"}, "STORAGE_KEY_ID must be set where the other half"),
        ({"STORAGE_ENDPOINT": "s3.example.com"}, "STORAGE_ENDPOINT must be a URL that begins"),
        ({"AMANA_PUBLIC_URL": "example.com"}, "AMANA_PUBLIC_URL must be a URL that begins"),
        ({"FX_URL": "ftp://x"}, "FX_URL must be a URL that begins with http://"),
        ({"FX_URL": "https:///rates"}, "FX_URL must name a host"),
        ({"AMANA_SECRET_KEY": "short"}, "AMANA_SECRET_KEY must hold keys of at least 32"),
        ({"AMANA_SECRET_KEY": f"{KEY},old"}, "AMANA_SECRET_KEY must hold keys of at least 32"),
        ({"TRUSTED_PROXIES": "proxy"}, "TRUSTED_PROXIES must be a list of addresses"),
        ({"PGBOUNCER": "perhaps"}, "PGBOUNCER must be true or false"),
        ({"PROTOCOL_FEE_BPS": "101"}, "PROTOCOL_FEE_BPS must be at most 100"),
        ({"PLATFORM_FEE_BPS": "5.5"}, "PLATFORM_FEE_BPS must be a whole number"),
        ({"TICKET_PREFIX": "dhm"}, "TICKET_PREFIX has the wrong format"),
        ({"DEFAULT_TIMEZONE": "Mars/Base"}, "DEFAULT_TIMEZONE must be the name of a time zone"),
        ({"DEFAULT_TIMEZONE": "../etc"}, "DEFAULT_TIMEZONE must be the name of a time zone"),
        ({"LOG_FORMAT": "xml"}, "LOG_FORMAT must be one of 'json' or 'console'"),
        ({"METRICS_TOKEN": "abc"}, "METRICS_TOKEN must be at least 16 characters"),
        ({"MAIL_FROM": "nobody"}, "MAIL_FROM has the wrong format"),
        ({"PAYMENT_PROVIDERS": "paypal"}, "PAYMENT_PROVIDERS must be a list of sandbox, bank_tr"),
        ({"PAYMENT_PROVIDERS": "sandbox,sandbox"}, "PAYMENT_PROVIDERS must be a list of sandbox"),
        ({"PAYMENT_PROVIDERS": ","}, "PAYMENT_PROVIDERS must be a list of sandbox"),
        ({"PAYMENT_PROVIDERS": "stripe"}, "STRIPE_SECRET_KEY must be set when PAYMENT_PROVIDERS"),
        (
            {"PAYMENT_PROVIDERS": "stripe", "STRIPE_SECRET_KEY": "sk_test_a"},
            "STRIPE_WEBHOOK_SECRET must be set when PAYMENT_PROVIDERS names stripe",
        ),
        ({"STRIPE_SECRET_KEY": "pk_test_a"}, "STRIPE_SECRET_KEY has the wrong format"),
        ({"STRIPE_SECRET_KEY": "sk_live_a"}, "STRIPE_SECRET_KEY must be a test key when"),
        (
            {"AMANA_ENV": "live", "STRIPE_SECRET_KEY": "rk_test_a"},
            "STRIPE_SECRET_KEY must be a live key when AMANA_ENV is live",
        ),
        ({"STRIPE_WEBHOOK_SECRET": "secret"}, "STRIPE_WEBHOOK_SECRET has the wrong format"),
        ({"STRIPE_API_BASE": "localhost"}, "STRIPE_API_BASE must be a URL that begins with http"),
        (
            {"AMANA_ENV": "live", "STRIPE_API_BASE": "http://localhost:1"},
            "STRIPE_API_BASE must not be set when AMANA_ENV is live",
        ),
        (
            {"AMANA_ENV": "live", "PAYMENT_PROVIDERS": "sandbox"},
            "PAYMENT_PROVIDERS must not name sandbox when AMANA_ENV is live",
        ),
        (
            {"AMANA_ENV": "live", "PAYMENT_PROVIDERS": "bank_transfer"},
            "BANK_TRANSFER_DETAILS must be set when PAYMENT_PROVIDERS names bank_transfer",
        ),
        (
            {"AMANA_ENV": "live", "WEBHOOK_ALLOW_PRIVATE": "1"},
            "WEBHOOK_ALLOW_PRIVATE must not be set when AMANA_ENV is live",
        ),
        (
            {"AMANA_ENV": "live", "RATE_LIMIT_PER_MINUTE": "0"},
            "RATE_LIMIT_PER_MINUTE must be at least 1 when AMANA_ENV is live",
        ),
    ],
)
def test_a_wrong_value_is_one_line_that_names_variable_and_reason(environ, line):
    with pytest.raises(SettingsError) as refusal:
        load_settings(environ)
    told = str(refusal.value)
    assert told.startswith(line)
    assert "\n" not in told


def test_no_secret_is_in_the_line_or_in_the_settings_text():
    with pytest.raises(SettingsError) as refusal:
        load_settings({"AMANA_SECRET_KEY": "hunter2"})
    assert "hunter2" not in str(refusal.value)
    environ = {
        "AMANA_SECRET_KEY": KEY,
        "DATABASE_URL": "postgresql://a:hunter2@b/c",
        "REDIS_URL": "redis://:hunter2@b",
        "SMTP_URL": "smtp://a:hunter2@b",
        "METRICS_TOKEN": "hunter2" * 4,
        "STRIPE_SECRET_KEY": "sk_test_hunter2",
        "STRIPE_WEBHOOK_SECRET": "whsec_hunter2",
        "STORAGE_KEY_ID": "hunter2",
        "STORAGE_SECRET": "hunter2",
    }
    shown = repr(load_settings(environ))
    assert "hunter2" not in shown
    assert KEY not in shown


@pytest.mark.parametrize(
    ("environ", "providers"),
    [
        ({}, ("sandbox", "bank_transfer")),
        ({"PAYMENT_PROVIDERS": " bank_transfer "}, ("bank_transfer",)),
        ({"AMANA_ENV": "live"}, ()),
        ({"AMANA_ENV": "live", "BANK_TRANSFER_DETAILS": "IBAN TN59 1"}, ("bank_transfer",)),
        (
            {
                "AMANA_ENV": "live",
                "PAYMENT_PROVIDERS": "stripe",
                "STRIPE_SECRET_KEY": "sk_live_a",
                "STRIPE_WEBHOOK_SECRET": "whsec_a, whsec_b",
            },
            ("stripe",),
        ),
    ],
)
def test_money_comes_in_by_what_was_chosen_or_needs_no_choice(environ, providers):
    assert load_settings(environ).providers == providers


def test_what_a_command_needs_is_asked_for_by_name():
    with pytest.raises(SettingsError, match=r"^AMANA_SECRET_KEY is not set"):
        load_settings({"REDIS_URL": "redis://x"}).require("REDIS_URL", "AMANA_SECRET_KEY")


def test_settings_do_not_change():
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 1
