"""Where webhooks may go: addresses as they are dialled, URLs as they are written."""

import pytest

from service.rules.address import BAD_URL, ONLY_HTTPS, check_url, is_dialable
from service.rules.errors import WebhookRefused
from service.wire.text import ascii_domain

PUBLIC = ("8.8.8.8", "93.184.215.14", "2606:4700::6810:1", "2a00:1450:4001:82a::200e")
PRIVATE = ("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "::1", "fd00::1")
WRAPPED_PRIVATE = ("::ffff:127.0.0.1", "::ffff:10.0.0.1")
NEVER = (
    "0.0.0.0",
    "169.254.169.254",
    "100.64.0.1",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "203.0.113.9",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::808:808",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "not an address",
    "127.1",
)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_dialled_on_the_open_ports_only(address: str) -> None:
    assert is_dialable(address, 443)
    assert is_dialable(address, 80)
    assert not is_dialable(address, 8080)
    assert is_dialable(address, 8080, allow_private=True)


@pytest.mark.parametrize("address", [*PRIVATE, *WRAPPED_PRIVATE])
def test_a_private_address_is_dialled_only_where_private_is_allowed(address: str) -> None:
    assert not is_dialable(address, 443)
    assert is_dialable(address, 6379, allow_private=True)


@pytest.mark.parametrize("address", NEVER)
def test_what_is_nobodys_server_is_never_dialled(address: str) -> None:
    assert not is_dialable(address, 443)
    assert not is_dialable(address, 443, allow_private=True)


def test_a_mapped_public_address_counts_as_the_one_it_wraps() -> None:
    assert is_dialable("::ffff:8.8.8.8", 443)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/hook",
        "http://example.com",
        "https://example.com:443/a?b=c#d",
        "https://bücher.example/hook",
        "https://8.8.8.8/hook",
        "https://[2606:4700::6810:1]/",
        "https://a_b.example.com./",
    ],
)
def test_an_ordinary_url_is_taken(url: str) -> None:
    check_url(url, live=False, allow_private=False, ascii_name=ascii_domain)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "ftp://example.com/",
        "https://",
        "https:///path",
        "https://user@example.com/",
        "https://user:pw@example.com/",
        "https://@example.com/",
        "https://exa mple.com/",
        "https://example.com/\r\nX: y",
        "https://example.com\\@evil.example/",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://example.com:8443/",
        "https://-bad.example/",
        "https://a..b/",
        "https://[::1",
        "https://localhost/",
        "https://api.localhost./",
        "https://127.0.0.1/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://127.1/",
        "https://１２７.0.0.1/",  # noqa: RUF001 - full-width digits are the point
        "https://[::ffff:10.0.0.1]/",
        "https://169.254.169.254/latest",
        "https://" + "a" * 2048 + ".example/",
    ],
)
def test_a_url_that_leads_nowhere_good_is_refused(url: str) -> None:
    with pytest.raises(WebhookRefused) as refused:
        check_url(url, live=False, allow_private=False, ascii_name=ascii_domain)
    assert str(refused.value) == BAD_URL


def test_live_takes_https_only() -> None:
    with pytest.raises(WebhookRefused) as refused:
        check_url("http://example.com/", live=True, allow_private=False, ascii_name=ascii_domain)
    assert str(refused.value) == ONLY_HTTPS
    check_url("https://example.com/", live=True, allow_private=False, ascii_name=ascii_domain)


@pytest.mark.parametrize(
    "url",
    ["http://localhost:3000/hook", "http://127.0.0.1:9999/", "http://10.0.0.5/", "http://h:81/"],
)
def test_development_reaches_private_networks_on_any_port(url: str) -> None:
    check_url(url, live=False, allow_private=True, ascii_name=ascii_domain)


def test_development_does_not_reach_the_metadata_service() -> None:
    with pytest.raises(WebhookRefused):
        check_url(
            "http://169.254.169.254/", live=False, allow_private=True, ascii_name=ascii_domain
        )
