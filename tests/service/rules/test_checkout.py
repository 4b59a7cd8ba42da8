"""The allow-list of redirect URLs: what it allows, and what cannot get past it."""

from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.rules import checkout
from service.rules.checkout import BadUrl, allowed_url, choose_redirect, is_on, read_target
from service.rules.errors import (
    NoRedirectUrlsConfigured,
    RedirectUrlMustBeHttps,
    RedirectUrlNotAllowed,
)

LIST = ["https://shop.example/app", "http://localhost:3000", "https://api.example:8443/"]


@pytest.mark.parametrize(
    ("url", "form"),
    [
        ("https://shop.example/app", "https://shop.example/app"),
        ("https://shop.example/app/", "https://shop.example/app/"),
        ("https://shop.example/app/done?x=1&y=%20", "https://shop.example/app/done?x=1&y=%20"),
        ("https://shop.example/app?next=https://evil.example/", None),
        ("https://shop.example/app?", None),
        ("HTTPS://SHOP.Example:443/app", "https://shop.example/app"),
        ("https://shop.example/%61pp", "https://shop.example/app"),
        ("https://shop.example/app/a%2db%c3%a9", "https://shop.example/app/a-b%C3%A9"),
        ("https://shop.example/app/100%25", "https://shop.example/app/100%25"),
        ("https://shop.example/app/a%20b;c=1", "https://shop.example/app/a%20b;c=1"),
        ("https://shop.example/app/@me:1", "https://shop.example/app/@me:1"),
        ("http://localhost:3000", "http://localhost:3000/"),
        ("http://LOCALHOST:3000/any/path", "http://localhost:3000/any/path"),
        ("https://api.example:8443/any", "https://api.example:8443/any"),
    ],
)
def test_what_is_allowed_comes_back_in_the_form_in_which_it_was_judged(url, form):
    assert choose_redirect(url, LIST) == (form or url)


@pytest.mark.parametrize(
    "url",
    [
        "https://shop.example/",
        "https://shop.example",
        "https://shop.example/apple",
        "https://shop.example/APP",
        "https://shop.example/other/app",
        "https://shop.example//app",
        "https://shop.example:444/app",
        "https://www.shop.example/app",
        "https://shop.example.evil.example/app",
        "https://evilshop.example/app",
        "https://shop.example./app",
        "https://evil.example/https://shop.example/app",
        "https://evil.example?https://shop.example/app",
        "https://evil.example/#https://shop.example/app",
        "https://shop.example@evil.example/app",
        "https://shop.example:pw@evil.example/app",
        "https://shop.example%2f@evil.example/app",
        "https://evil.example\\@shop.example/app",
        "https://shop.example\\.evil.example/app",
        "https://evil.example\\\\shop.example/app",
        "https:\\\\shop.example/app",
        "https:shop.example/app",
        "https:/shop.example/app",
        "https:///shop.example/app",
        "https://[shop.example]/app",
        "https://shop.ex%61mple/app",
        "https://shop.example%00.evil.example/app",
        "https://shop。example/app",
        "https://\u0455hop.example/app",
        "https://shop.example/app#top",
        "https://shop.example/app#",
        "https://me@shop.example/app",
        "https://@shop.example/app",
        "https://shop.example:0/app",
        "https://shop.example:65536/app",
        "https://shop.example:+443/app",
        "https://shop.example:44 3/app",
        "https://shop.example/app/../admin",
        "https://shop.example/app/%2e%2e/admin",
        "https://shop.example/app/.%2E/admin",
        "https://shop.example/app/..%2fadmin",
        "https://shop.example/app%2fadmin",
        "https://shop.example/app/%5c..%5cadmin",
        "https://shop.example/app/..%5Cadmin",
        "https://shop.example/app/%252e%252e/admin",
        "https://shop.example/app/%25252e%25252e/admin",
        "https://shop.example/app/..%252fadmin",
        "https://shop.example/app/..;/admin",
        "https://shop.example/app/..;x=1/admin",
        "https://shop.example/app/%2e%2e;/admin",
        "https://shop.example/app/%2e%2e%3b/admin",
        "https://shop.example/app/%00",
        "https://shop.example/app/%0d%0aSet-Cookie:x",
        "https://shop.example/app/%250a",
        "https://shop.example/app/%zz",
        "https://shop.example/app/%",
        "https://shop.example/app/%2",
        "https://shop.example/app/é",
        "https://shop.example/app/a b",
        " https://shop.example/app",
        "https://shop.example/app\n",
        "https://shop.example/a\tpp",
        "ht\ntps://shop.example/app",
        "https://shop.example/app\x00",
        "https://shop.example/app?<script>",
        'https://shop.example/app?"',
        "https://shop.example/app/" + "x" * 2048,
        "http://localhost:3001/",
        "http://localhost/",
        "https://localhost:3000/",
        "https://api.example/",
        "https://api.example:443/",
    ],
)
def test_what_is_not_on_the_list_is_refused(url):
    with pytest.raises((RedirectUrlNotAllowed, RedirectUrlMustBeHttps)):
        choose_redirect(url, LIST)


@pytest.mark.parametrize(
    "url",
    [
        "http://shop.example/app",
        "HTTP://shop.example/app",
        "http://localhost.evil.example:3000/",
        "http://localhost@shop.example/",
        "http://127.0.0.1:3000/",
        "http://[::1]:3000/",
        "ftp://shop.example/app",
        "javascript:alert(1)//https://shop.example/app",
        "data:text/html,x",
        "//shop.example/app",
        "/app",
        "shop.example/app",
        "",
    ],
)
def test_another_scheme_is_refused_as_such(url):
    refusals = (RedirectUrlMustBeHttps, RedirectUrlNotAllowed)
    with pytest.raises(refusals) as refused:
        choose_redirect(url, LIST)
    if "@" not in url:
        assert refused.type is RedirectUrlMustBeHttps


def test_the_empty_list_is_said_first_and_the_scheme_before_the_list():
    with pytest.raises(NoRedirectUrlsConfigured):
        choose_redirect("http://evil.example/", [])
    with pytest.raises(RedirectUrlMustBeHttps):
        choose_redirect("http://evil.example/", LIST)
    with pytest.raises(RedirectUrlNotAllowed):
        choose_redirect("https://evil.example/", LIST)


@pytest.mark.parametrize(
    ("entry", "url", "allowed"),
    [
        ("https://a.example", "https://a.example/x", True),
        ("https://a.example/", "https://a.example", True),
        ("https://a.example/x/", "https://a.example/x", True),
        ("https://a.example/x/", "https://a.example/x/y", True),
        ("https://a.example/x/", "https://a.example/xy", False),
        ("https://A.example:443/%78", "https://a.example/x", True),
        ("https://a.example/x/../y", "https://a.example/y/z", False),
        ("https://[2001:DB8::0:1]/", "https://[2001:db8::1]:443/x", True),
        ("http://a.example/", "http://a.example/", False),
        ("https://a.example/?x=1", "https://a.example/?x=1", False),
        ("https://a.example/#x", "https://a.example/", False),
        ("not a url", "https://a.example/", False),
    ],
)
def test_an_entry_is_read_as_the_url_is_and_an_unsound_one_allows_nothing(entry, url, allowed):
    assert is_on([entry], read_target(url)) is allowed


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("http://shop.example/", checkout.MUST_BE_HTTPS),
        ("http://127.0.0.1/", checkout.MUST_BE_HTTPS),
        ("shop.example", checkout.MUST_BE_HTTPS),
        ("https://", checkout.NOT_A_URL),
        ("https://-a.example/", checkout.NOT_A_URL),
        ("https://[::1", checkout.NOT_A_URL),
        ("https://u:p@shop.example/", checkout.HAS_USER),
        ("https://shop.example/#a", checkout.HAS_FRAGMENT),
        ("https://shop.example/?", checkout.HAS_QUERY),
        ("https://shop.example:99999/", checkout.BAD_PORT),
        ("https://shop.example/%4", checkout.BAD_ESCAPE),
        ("https://shop.example/%2f", checkout.TWOFOLD),
        ("https://shop.example/a\\b", checkout.HAS_ODD),
        ("https://é.example/", checkout.NOT_ASCII),
        ("https://shop.example/" + "x" * 2048, checkout.TOO_LONG),
    ],
)
def test_an_entry_that_cannot_stand_in_a_list_says_why(url, fault):
    with pytest.raises(BadUrl) as bad:
        allowed_url(url)
    assert str(bad.value) == fault


TWO_READERS = {
    "text behind the brackets": ("https://[::1].evil.example/", checkout.NOT_A_URL),
    "a letter behind the brackets": ("https://[::1]x/", checkout.NOT_A_URL),
    "text before the brackets": ("https://evil[::1]/", checkout.NOT_A_URL),
    "two closing brackets": ("https://[::1]]/", checkout.NOT_A_URL),
    "two opening brackets": ("https://[[::1]]/", checkout.NOT_A_URL),
    "an address of a zone": ("https://[fe80::1%eth0]/", checkout.NOT_A_URL),
    "an address of an encoded zone": ("https://[fe80::1%25eth0]/", checkout.NOT_A_URL),
    "an address that wraps another": ("https://[::ffff:127.0.0.1]/", checkout.NOT_A_URL),
    "one that wraps it in hex": ("https://[::ffff:7f00:1]/", checkout.NOT_A_URL),
    "an address of the future": ("https://[v1.x]/", checkout.NOT_A_URL),
    "brackets of nothing": ("https://[]/", checkout.NOT_A_URL),
    "IPv6 without brackets": ("https://::1/", checkout.NOT_A_URL),
    "IPv4 in two parts": ("https://127.1/", checkout.NOT_A_URL),
    "IPv4 as one number": ("https://2130706433/", checkout.NOT_A_URL),
    "IPv4 in hex": ("https://0x7f.0.0.1/", checkout.NOT_A_URL),
    "IPv4 that ends in hex": ("https://127.0.0.0x1/", checkout.NOT_A_URL),
    "IPv4 that ends in 0x": ("https://127.0.0.0x/", checkout.NOT_A_URL),
    "IPv4 in octal": ("https://0177.0.0.1/", checkout.NOT_A_URL),
    "IPv4 in five parts": ("https://1.2.3.4.5/", checkout.NOT_A_URL),
    "IPv4 past 255": ("https://256.1.1.1/", checkout.NOT_A_URL),
    "IPv4 with a dot behind": ("https://127.0.0.1./", checkout.NOT_A_URL),
    "a name that ends in a number": ("https://shop.1/", checkout.NOT_A_URL),
    "an empty port": ("https://shop.example:/", checkout.BAD_PORT),
    "noughts before the port": ("https://shop.example:0443/", checkout.BAD_PORT),
    "a port of nought": ("https://shop.example:0/", checkout.BAD_PORT),
    "a port with an underscore": ("https://shop.example:4_43/", checkout.BAD_PORT),
    "a port with a sign": ("https://shop.example:-1/", checkout.BAD_PORT),
    "a port past the last": ("https://shop.example:65536/", checkout.BAD_PORT),
    "a port of many digits": ("https://shop.example:" + "9" * 1000 + "/", checkout.BAD_PORT),
    "two ports": ("https://shop.example:443:443/", checkout.BAD_PORT),
    "a port behind brackets twice": ("https://[::1]:443:1/", checkout.BAD_PORT),
    "no host": ("https:///shop.example/", checkout.NOT_A_URL),
    "a port and no host": ("https://:443/", checkout.NOT_A_URL),
    "a query and no host": ("https://?shop.example", checkout.NOT_A_URL),
    "one slash": ("https:/shop.example/", checkout.NOT_A_URL),
    "no slash": ("https:shop.example/", checkout.NOT_A_URL),
    "backslashes": ("https:\\\\shop.example/", checkout.HAS_ODD),
    "a backslash behind the host": ("https://shop.example\\@evil.example/", checkout.HAS_ODD),
    "a dot behind the host": ("https://shop.example./", checkout.NOT_A_URL),
    "two dots behind the host": ("https://shop.example../", checkout.NOT_A_URL),
    "a dot before the host": ("https://.shop.example/", checkout.NOT_A_URL),
    "an empty label": ("https://shop..example/", checkout.NOT_A_URL),
    "a dot and no host": ("https://./", checkout.NOT_A_URL),
    "a label of 64": ("https://" + "a" * 64 + ".example/", checkout.NOT_A_URL),
    "a host of 254": ("https://" + "a." * 123 + "examples/", checkout.NOT_A_URL),
    "a hyphen first": ("https://-shop.example/", checkout.NOT_A_URL),
    "a hyphen last": ("https://shop-.example/", checkout.NOT_A_URL),
    "an escape in the host": ("https://%73hop.example/", checkout.NOT_A_URL),
    "an encoded slash in the host": ("https://shop.example%2f.evil/", checkout.NOT_A_URL),
    "a semicolon in the host": ("https://shop.example;.evil/", checkout.NOT_A_URL),
    "punycode of nothing": ("https://xn--.example/", checkout.NOT_A_URL),
    "punycode of nonsense": ("https://xn--a.example/", checkout.NOT_A_URL),
    "punycode of plain letters": ("https://xn--shop-.example/", checkout.NOT_A_URL),
    "punycode of capitals": ("https://xn--col-mia.example/", checkout.NOT_A_URL),
    "a full-width letter": ("https://\uff53hop.example/", checkout.NOT_ASCII),
    "a soft hyphen": ("https://sh\xadop.example/", checkout.NOT_ASCII),
    "a user": ("https://me@shop.example/", checkout.HAS_USER),
    "an empty user": ("https://@shop.example/", checkout.HAS_USER),
    "a user that looks like the host": ("https://shop.example:1@evil/", checkout.HAS_USER),
    "a fragment": ("https://shop.example/#x", checkout.HAS_FRAGMENT),
    "an empty fragment": ("https://shop.example/#", checkout.HAS_FRAGMENT),
    "a way up": ("https://shop.example/a/../b", checkout.TWOFOLD),
    "a way up at the end": ("https://shop.example/a/..", checkout.TWOFOLD),
    "an encoded way up": ("https://shop.example/a/%2e%2E/b", checkout.TWOFOLD),
    "a half encoded way up": ("https://shop.example/a/.%2e/b", checkout.TWOFOLD),
    "a way nowhere": ("https://shop.example/./a", checkout.TWOFOLD),
    "an encoded way nowhere": ("https://shop.example/%2e", checkout.TWOFOLD),
    "a tab": ("https://shop.example/\ta", checkout.HAS_ODD),
    "a tab in the host": ("https://shop\t.example/", checkout.HAS_ODD),
    "a tab in the scheme": ("ht\ttps://shop.example/", checkout.HAS_ODD),
    "a line end": ("https://shop.example/\n", checkout.HAS_ODD),
    "a NUL": ("https://shop.example/\0", checkout.HAS_ODD),
    "a C1 control character": ("https://shop.example/\x85", checkout.NOT_ASCII),
    "braces in the path": ("https://shop.example/{a}", checkout.HAS_ODD),
    "a backquote in the path": ("https://shop.example/`", checkout.HAS_ODD),
}


@pytest.mark.parametrize(("url", "fault"), TWO_READERS.values(), ids=TWO_READERS)
def test_what_two_readers_could_read_in_two_ways_is_refused_wanted_or_allowed(url, fault):
    with pytest.raises(BadUrl) as bad:
        read_target(url)
    assert str(bad.value) == fault
    with pytest.raises(BadUrl):
        allowed_url(url)
    everything = [url, "https://[::1]", "https://127.0.0.1", "https://shop.example"]
    with pytest.raises(RedirectUrlNotAllowed):
        choose_redirect(url, everything)


@pytest.mark.parametrize(
    ("url", "form"),
    [
        ("https://[::1]/x", "https://[::1]/x"),
        ("https://[0:0:0:0:0:0:0:1]:443/x", "https://[::1]/x"),
        ("https://[2001:0DB8::000A]:8443", "https://[2001:db8::a]:8443/"),
        ("https://127.0.0.1", "https://127.0.0.1/"),
        ("https://shop.example:80/", "https://shop.example:80/"),
        ("http://localhost:80/", "http://localhost/"),
        ("https://xn--strae-oqa.example/", "https://xn--strae-oqa.example/"),
        ("https://XN--BCHER-KVA.example/", "https://xn--bcher-kva.example/"),
        ("https://a_b.my--shop.example/", "https://a_b.my--shop.example/"),
        ("https://" + "a." * 123 + "example/", "https://" + "a." * 123 + "example/"),
        ("https://shop.example?ids[]={ID}", "https://shop.example/?ids[]={ID}"),
        ("https://shop.example/a.b/...", "https://shop.example/a.b/..."),
    ],
)
def test_what_every_reader_reads_alike_has_one_form_wanted_and_allowed(url, form):
    entry = url.partition("?")[0]
    assert read_target(url).url == form
    assert choose_redirect(url, [entry]) == form
    assert choose_redirect(form, [entry]) == form
    assert choose_redirect(url, [form.partition("?")[0]]) == form


@pytest.mark.parametrize("url", LIST)
def test_an_entry_stays_as_it_was_given(url):
    assert allowed_url(url) == url


PIECES = st.sampled_from(
    ["/", ".", "..", "%2e", "%2E", "%2f", "%5c", "%25", "2e", "app", "a", ";", "%", "//", "@", ":",
     "\\", "?", "#", "%00", "é", " ", "shop.example", "evil.example", "%61", "[::1]", "]", "443",
     "\t", "xn--", "0x"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=12).map("".join))
@example("/../..")
@example("/%2e%2e/%252e")
def test_the_one_form_is_read_as_itself(tail):
    try:
        target = read_target("https://shop.example" + tail)
    except BadUrl:
        return  # refused, never repaired
    assert read_target(target.url) == target
    assert target.url == read_target(target.url).url


@given(st.lists(PIECES, max_size=12).map("".join))
def test_whatever_is_allowed_leads_to_the_host_and_below_the_path(tail):
    try:
        url = choose_redirect("https://shop.example" + tail, ["https://shop.example/app"])
    except RedirectUrlNotAllowed:
        return
    parts = urlsplit(url)
    assert (parts.scheme, parts.netloc, parts.fragment) == ("https", "shop.example", "")
    assert parts.path == "/app" or parts.path.startswith("/app/")
    assert not {".", ".."} & set(parts.path.split("/"))
    assert "\\" not in url
