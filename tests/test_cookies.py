"""Cookies from mappings, headers, files and browsers: what is taken, what is refused, and what is never said."""

import json
import os
import string
import sys
from collections.abc import Callable
from http.cookiejar import Cookie as JarCookie
from http.cookiejar import CookieJar
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_protocol.client import cookies as cookies_module
from oa_protocol.client.cookies import Cookie, load_cookies
from oa_protocol.engine.errors import AuthenticationError
from oa_protocol.tape._har_file import Request

DATA = Path(__file__).parent / "data" / "cookies"
BASE = "https://oa.example.org"
SESSION = "__Secure-next-auth.session-token"
NOW = 1_700_000_000.0
LATER, EARLIER = 1_800_000_000, 1_600_000_000
SECRET = "s3cr3t"

CONTROLS = "".join(map(chr, [*range(32), 127]))
PRINTABLE = "".join(map(chr, range(32, 127)))
names = st.text("".join(c for c in PRINTABLE if c not in " ,;="), min_size=1, max_size=15)
values = st.text(PRINTABLE.replace(";", "")).map(str.strip)
labels = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=8).map("x{}".format)
domains = st.lists(labels, min_size=1, max_size=4).map(".".join)


WriteFile = Callable[[str | bytes], Path]


@pytest.fixture
def file(tmp_path: Path) -> WriteFile:
    def write(content: str | bytes) -> Path:
        path = tmp_path / "cookies"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def netscape(
    name: str = "a",
    value: str = "b",
    *,
    domain: str = "oa.example.org",
    subdomains: bool = False,
    path: str = "/",
    secure: bool = False,
    expires: object = LATER,
) -> str:
    flags = {True: "TRUE", False: "FALSE"}
    return "\t".join([domain, flags[subdomains], path, flags[secure], str(expires), name, value]) + "\n"


def exported(**members: object) -> str:
    return json.dumps([{"name": "a", "value": SECRET, "domain": "oa.example.org"} | members])


def har(*requests: tuple[str, str, str]) -> str:
    """Return a HAR file of requests, each a time, a URL and a Cookie header."""
    entries = [
        {"startedDateTime": time, "request": {"url": url, "headers": [{"name": "Cookie", "value": header}]}}
        for time, url, header in requests
    ]
    return json.dumps({"log": {"entries": entries}})


class TestMapping:
    @given(st.dictionaries(names, values))
    def test_is_taken_as_it_is(self, cookies: dict[str, str]) -> None:
        assert load_cookies(cookies, BASE) == cookies

    def test_is_copied(self) -> None:
        mine = {"a": "b"}
        assert load_cookies(mine, BASE) is not mine

    @pytest.mark.parametrize("character", [*CONTROLS, ";", "é", "\ud800", "\u2028"])
    def test_with_a_value_that_cannot_be_sent_is_refused_by_name_only(self, character: str) -> None:
        with pytest.raises(ValueError, match="cookie 'session'") as refusal:
            load_cookies({"fine": "1", "session": f"{SECRET}{character}"}, BASE)
        assert SECRET not in repr(refusal.value)

    @pytest.mark.parametrize("value", [" b", "b "])
    def test_with_a_value_that_a_browser_would_strip_is_refused(self, value: str) -> None:
        with pytest.raises(ValueError, match="cookie 'a' has characters"):
            load_cookies({"a": value}, BASE)

    @pytest.mark.parametrize("character", [*CONTROLS, *";=, é"])
    def test_with_a_name_that_cannot_be_sent_is_refused(self, character: str) -> None:
        with pytest.raises(ValueError, match="the name of a cookie has characters") as refusal:
            load_cookies({f"na{character}me": SECRET}, BASE)
        assert SECRET not in repr(refusal.value)

    def test_with_an_empty_name_is_refused(self) -> None:
        with pytest.raises(ValueError, match="the name of a cookie"):
            load_cookies({"": "b"}, BASE)

    @pytest.mark.clause("OA-2.5")
    @pytest.mark.parametrize("name", ["c2VjcmV0LXZhbHVlLW9mLXRoZQ", "A" * 65])
    def test_with_a_name_that_may_be_a_secret_is_refused_by_its_place(self, name: str) -> None:
        with pytest.raises(ValueError, match=r"^cookie number 2 has characters"):
            load_cookies({"fine": "1", name: "\n"}, BASE)

    def test_of_something_else_than_str_is_a_type_error(self) -> None:
        with pytest.raises(TypeError, match="must be text, not NoneType"):
            load_cookies({"a": None}, BASE)  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]


class TestHeader:
    @given(st.dictionaries(names, values, min_size=1))
    def test_gives_each_cookie_back(self, cookies: dict[str, str]) -> None:
        assert load_cookies("; ".join(f"{name}={value}" for name, value in cookies.items()), BASE) == cookies

    def test_value_may_contain_an_equals_sign(self) -> None:
        assert load_cookies("a=b==", BASE) == {"a": "b=="}

    def test_tolerates_missing_spaces_and_a_last_semicolon(self) -> None:
        assert load_cookies("a=b;c=d;", BASE) == {"a": "b", "c": "d"}

    def test_with_a_name_twice_means_the_first(self) -> None:
        assert load_cookies("a=specific; a=general", BASE) == {"a": "specific"}

    def test_longer_than_a_file_name_may_be_is_still_a_header(self) -> None:
        assert load_cookies("a=" + "b" * 5000, BASE) == {"a": "b" * 5000}

    @pytest.mark.parametrize("injection", ["a={}\r\nX-Evil: 1", "a={}\n", "a={}\0", "a={}\r; b=c"])
    def test_with_a_control_character_is_refused(self, injection: str) -> None:
        with pytest.raises(ValueError, match="cookie 'a' has characters") as refusal:
            load_cookies(injection.format(SECRET), BASE)
        assert SECRET not in repr(refusal.value)

    @pytest.mark.parametrize("header", ['"a=b; c=d"', "'a=b; c=d'", "Cookie: a=b; c=d", "cookie:a=b; c=d"])
    def test_may_be_in_quotes_or_with_its_name(self, header: str) -> None:
        assert load_cookies(header, BASE) == {"a": "b", "c": "d"}

    def test_value_in_quotes_keeps_them_as_in_a_browser(self) -> None:
        assert load_cookies('a="b"', BASE) == {"a": '"b"'}

    @pytest.mark.clause("OA-2.5")
    @pytest.mark.parametrize("source", [exported(), exported(value=f"{SECRET}=="), f'{{"a":"{SECRET}="}}'])
    def test_that_is_json_is_refused_with_what_to_do(self, source: str) -> None:
        with pytest.raises(AuthenticationError, match=r"are JSON, .* Save them in a file") as told:
            load_cookies(source, BASE)
        assert SECRET not in repr(told.value)

    @pytest.mark.clause("OA-2.5")
    @pytest.mark.parametrize(
        "source", [repr({"a": f"{SECRET}="}), netscape(value=f"{SECRET}=", expires=0), f"Bearer {SECRET}=="]
    )
    def test_that_is_something_else_is_refused_without_repeating_it(self, source: str) -> None:
        with pytest.raises(ValueError, match="the name of a cookie") as told:
            load_cookies(source, BASE)
        assert SECRET not in repr(told.value)

    @pytest.mark.parametrize("source", ["c2VjcmV0LXZhbHVlLW9mLXRoZQ==", "", SECRET, f"/no/such/{SECRET}.txt", ";;"])
    def test_without_any_cookie_says_what_a_source_may_be_and_does_not_repeat_it(self, source: str) -> None:
        with pytest.raises(AuthenticationError, match="neither the path of an existing file, nor browser:NAME") as told:
            load_cookies(source, BASE)
        assert SECRET not in repr(told.value)


class TestFixtureFiles:
    def test_cookies_txt(self) -> None:
        assert load_cookies(DATA / "cookies.txt", BASE, now=NOW) == {
            SESSION: "placeholder==",
            "next-auth.callback-url": "https%3A%2F%2Foa.example.org",
            "consent": "",
        }

    def test_cookie_editor(self) -> None:
        assert load_cookies(DATA / "cookie-editor.json", BASE, now=NOW) == {
            f"{SESSION}.0": "placeholder-0",
            f"{SESSION}.1": "placeholder-1",
            "consent": "yes",
        }

    def test_playwright(self) -> None:
        assert load_cookies(DATA / "playwright.json", BASE, now=NOW) == {
            SESSION: "placeholder",
            "next-auth.csrf-token": "placeholder|csrf",
        }

    def test_selenium(self) -> None:
        assert load_cookies(DATA / "selenium.json", BASE, now=NOW) == {SESSION: "placeholder"}

    def test_har(self) -> None:
        assert load_cookies(DATA / "browser.har", BASE) == {SESSION: "placeholder-new", "consent": "a%20b"}

    def test_har_without_a_cookie_header_but_with_a_list(self) -> None:
        assert load_cookies(DATA / "browser.har", "https://listed.example.org") == {"only-listed": "placeholder"}


class TestFile:
    def test_can_be_named_by_a_string(self) -> None:
        assert SESSION in load_cookies(str(DATA / "cookies.txt"), BASE, now=NOW)

    def test_wins_over_a_cookie_header_that_looks_the_same(
        self, file: WriteFile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = file(netscape("from-file"))
        path.rename(path.with_name("a=b"))
        monkeypatch.chdir(path.parent)
        assert load_cookies("a=b", BASE, now=NOW) == {"from-file": "b"}

    def test_time_is_the_current_one_by_default(self, file: WriteFile, monkeypatch: pytest.MonkeyPatch) -> None:
        path = file(netscape(expires=1000))
        monkeypatch.setattr("time.time", lambda: 999.0)
        assert load_cookies(path, BASE) == {"a": "b"}
        monkeypatch.setattr("time.time", lambda: 1000.0)
        with pytest.raises(AuthenticationError, match="only expired"):
            load_cookies(path, BASE)

    def test_that_is_missing_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(AuthenticationError, match=r"cannot be read: .*No such file.*missing\.txt"):
            load_cookies(tmp_path / "missing.txt", BASE)

    def test_that_is_a_folder_cannot_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(AuthenticationError, match="cannot be read"):
            load_cookies(str(tmp_path), BASE)

    def test_whose_name_has_a_nul_cannot_be_read(self) -> None:
        with pytest.raises(AuthenticationError, match="cannot be read"):
            load_cookies(Path("a\0b"), BASE)

    def test_over_the_size_limit_is_refused(self, file: WriteFile, monkeypatch: pytest.MonkeyPatch) -> None:
        content = netscape()
        monkeypatch.setattr(cookies_module, "MAX_FILE_SIZE", len(content))
        assert load_cookies(file(content), BASE, now=NOW) == {"a": "b"}
        with pytest.raises(AuthenticationError, match="is over 0 MiB"):
            load_cookies(file(content + "\n"), BASE, now=NOW)

    def test_limit_is_64_mebibytes(self) -> None:
        assert cookies_module.MAX_FILE_SIZE == 67_108_864

    @pytest.mark.skipif(not Path("/dev/fd").exists(), reason="needs /dev/fd")
    def test_may_be_a_pipe(self) -> None:
        reading, writing = os.pipe()
        os.write(writing, netscape().encode())
        os.close(writing)
        try:
            assert load_cookies(f"/dev/fd/{reading}", BASE, now=NOW) == {"a": "b"}
        finally:
            os.close(reading)

    @pytest.mark.parametrize(
        "content",
        [
            f"a={SECRET}",
            f"a b {SECRET}",
            f"name value domain path secure expires {SECRET}",
            f"oa.example.org\tFALSE\t/\tTRUE\t{SECRET}\ta\tb",
            f"oa.example.org\tFALSE\t/\tTRUE\t-\ta\t{SECRET}",
            f'[{{"name": "a", "value": "{SECRET}", "domain": "oa.example.org"',
            f'{{"{SECRET}": "{SECRET}"}}',
            exported(value=[SECRET]),
            exported(domain=None),
            exported(expires=SECRET),
            f'["{SECRET}"]',
            json.dumps({"log": {"entries": [{"request": SECRET}]}}),
            '{"x":' + "[" * 100_000,
        ],
    )
    def test_that_cannot_be_parsed_is_refused_without_repeating_it(self, file: WriteFile, content: str | bytes) -> None:
        with pytest.raises(AuthenticationError, match=r"cannot be parsed: .* It must be cookies\.txt") as told:
            load_cookies(file(content), BASE)
        assert SECRET not in repr(told.value)

    @given(st.binary())
    def test_of_any_bytes_raises_nothing_but_authentication_errors(
        self, tmp_path_factory: pytest.TempPathFactory, content: bytes
    ) -> None:
        path = tmp_path_factory.getbasetemp() / "any-bytes"
        path.write_bytes(content)
        with pytest.raises(AuthenticationError):
            load_cookies(path, BASE)

    def test_with_a_value_that_cannot_be_sent_is_refused_by_name_only(self, file: WriteFile) -> None:
        with pytest.raises(ValueError, match="cookie 'a'") as refusal:
            load_cookies(file(exported(value=f"{SECRET}\r\nX: y")), BASE)
        assert SECRET not in repr(refusal.value)

    def test_with_one_cookie_that_cannot_be_sent_says_so(
        self, file: WriteFile, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert load_cookies(file(netscape() + netscape("b", f"{SECRET}é")), BASE, now=NOW) == {"a": "b"}
        (record,) = caplog.records
        assert "a cookie with characters that cannot be sent" in record.getMessage()

    def test_may_hold_what_cannot_be_sent_for_another_host(self, file: WriteFile) -> None:
        content = netscape(value="é", domain="elsewhere.example") + netscape()
        assert load_cookies(file(content), BASE, now=NOW) == {"a": "b"}

    def test_without_a_cookie_for_the_host_says_for_which_hosts_it_has_some(self, file: WriteFile) -> None:
        content = netscape(value=SECRET, domain="b.example") + netscape(value=SECRET, domain=".a.example")
        with pytest.raises(
            AuthenticationError,
            match=r"cookies has no cookie for oa\.example\.org, only for a\.example, b\.example\. Log in",
        ) as told:
            load_cookies(file(content), BASE)
        assert SECRET not in repr(told.value)

    def test_with_many_hosts_names_only_the_first(self, file: WriteFile) -> None:
        content = "".join(netscape(domain=f"{letter}.example") for letter in "abcdefghij")
        with pytest.raises(AuthenticationError, match=r"only for a\.example, .*, h\.example and 2 more\."):
            load_cookies(file(content), BASE)

    @pytest.mark.parametrize("domain", [f"\x1b[31m {SECRET}", SECRET, f"eyj.{SECRET}.{SECRET}"])
    def test_names_only_hosts_that_can_be_hosts(self, file: WriteFile, domain: str) -> None:
        with pytest.raises(AuthenticationError) as told:
            load_cookies(file(netscape(domain=domain)), BASE)
        assert SECRET not in str(told.value)

    @pytest.mark.parametrize(
        "content", ["", "# Netscape HTTP Cookie File\n", "[]", har(("2024-01-01T00:00:00Z", BASE, ""))]
    )
    def test_without_any_cookie_tells_about_sanitised_har_files(self, file: WriteFile, content: str) -> None:
        with pytest.raises(
            AuthenticationError, match=r"holds no cookie at all.*\(Chrome leaves them out of a HAR file"
        ):
            load_cookies(file(content), BASE)

    def test_with_only_secure_cookies_says_that_they_need_https(self, file: WriteFile) -> None:
        with pytest.raises(AuthenticationError, match="secure cookies need https"):
            load_cookies(file(netscape(secure=True)), "http://oa.example.org", now=NOW)

    def test_a_password_in_the_base_url_is_refused_and_not_repeated(self, file: WriteFile) -> None:
        with pytest.raises(ValueError, match="credentials") as told:
            load_cookies(file(netscape()), f"https://user:{SECRET}@oa.example.org", now=NOW)
        assert SECRET not in repr(told.value)

    def test_any_spelling_of_the_base_url_will_do(self, file: WriteFile) -> None:
        assert load_cookies(file(netscape()), "HTTPS://o%61.Example.org:443/.", now=NOW)

    def test_needs_a_base_url_with_a_host(self, file: WriteFile) -> None:
        with pytest.raises(ValueError, match="base_url"):
            load_cookies(file(netscape()), "oa.example.org")

    @pytest.mark.parametrize(("name", "value"), [("pref", "caf\u00e9"), ("a name", "b"), ("x", "y;z")])
    def test_leaves_out_the_cookies_of_others_that_cannot_be_sent(self, file: WriteFile, name: str, value: str) -> None:
        members = {"domain": "oa.example.org"}
        content = json.dumps([{"name": name, "value": value, **members}, {"name": "a", "value": "b", **members}])
        assert load_cookies(file(content), BASE) == {"a": "b"}


class TestNetscapeFile:
    @given(st.dictionaries(names, values, min_size=1))
    def test_gives_any_cookies_back(self, tmp_path_factory: pytest.TempPathFactory, cookies: dict[str, str]) -> None:
        path = tmp_path_factory.getbasetemp() / "round-trip.txt"
        path.write_text("".join(netscape(name, value) for name, value in cookies.items()), newline="")
        assert load_cookies(path, BASE, now=NOW) == cookies

    def test_may_have_crlf_line_ends_and_a_byte_order_mark(self, file: WriteFile) -> None:
        content = "\ufeff# Netscape HTTP Cookie File\n\n" + netscape() + netscape("c", "")
        assert load_cookies(file(content.replace("\n", "\r\n")), BASE, now=NOW) == {"a": "b", "c": ""}

    def test_may_lack_the_last_line_end(self, file: WriteFile) -> None:
        assert load_cookies(file(netscape().rstrip()), BASE, now=NOW) == {"a": "b"}

    def test_may_have_lost_the_tab_before_an_empty_value(self, file: WriteFile) -> None:
        assert load_cookies(file(netscape(value="").rstrip()), BASE, now=NOW) == {"a": ""}

    def test_http_only_cookies_are_no_comments(self, file: WriteFile) -> None:
        assert load_cookies(file(f"#HttpOnly_{netscape()}#{netscape('c')}"), BASE, now=NOW) == {"a": "b"}

    @pytest.mark.parametrize("expires", [0, "", -1, LATER, LATER + 0.5, LATER * 1000, "9" * 400])
    def test_takes_cookies_of_the_session_and_of_the_future(self, file: WriteFile, expires: object) -> None:
        assert load_cookies(file(netscape(expires=expires)), BASE, now=NOW) == {"a": "b"}

    @pytest.mark.parametrize("expires", [1, EARLIER, EARLIER * 1000, int(NOW)])
    def test_leaves_expired_cookies(self, file: WriteFile, expires: object) -> None:
        with pytest.raises(AuthenticationError, match=r"has only expired cookies for oa\.example\.org\. Log in"):
            load_cookies(file(netscape(expires=expires)), BASE, now=NOW)

    def test_without_the_subdomains_flag_is_for_one_host_in_spite_of_a_dot(self, file: WriteFile) -> None:
        path = file(netscape(domain=".example.org", subdomains=False))
        with pytest.raises(AuthenticationError, match="no cookie for oa"):
            load_cookies(path, BASE, now=NOW)
        assert load_cookies(path, "https://example.org", now=NOW) == {"a": "b"}

    @pytest.mark.parametrize(
        "odd",
        [
            "nonsense",
            netscape("b", SECRET, expires=SECRET),
            netscape("b", SECRET, expires=f"Mon, 01 Jan {10**20} 00:00:00 GMT"),
            f"a b / TRUE 0 x {SECRET}",
        ],
    )
    def test_odd_line_is_left_out_and_named(self, file: WriteFile, caplog: pytest.LogCaptureFixture, odd: str) -> None:
        assert load_cookies(file(f"# comment\n{netscape()}{odd.rstrip()}\n"), BASE, now=NOW) == {"a": "b"}
        (record,) = caplog.records
        assert "line 3" in record.getMessage()
        assert SECRET not in record.getMessage()

    def test_may_have_spaces_in_place_of_tabs(self, file: WriteFile) -> None:
        assert load_cookies(file(netscape(value="b c ").replace("\t", "  ")), BASE, now=NOW) == {"a": "b c"}

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
    @pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
    def test_may_be_of_any_editor(self, file: WriteFile, encoding: str, line_end: str) -> None:
        content = ("# comment\n" + netscape() + netscape("c")).replace("\n", line_end).encode(encoding)
        assert load_cookies(file(content), BASE, now=NOW) == {"a": "b", "c": "b"}


class TestExpiry:
    @pytest.mark.parametrize(
        ("expires", "is_alive"),
        [
            (0, True),
            (-1, True),
            ("Session", True),
            (LATER, True),
            (LATER * 1000, True),
            (LATER * 1_000_000, True),
            ((LATER + 11644473600) * 1_000_000, True),  # as Chrome counts
            (253402300799, True),  # the end of the year 9999
            (253402300799000, True),
            (9223372036854775807, True),
            (1e400, True),
            ("2027-01-15T08:00:00.000Z", True),
            ("2027-01-15T08:00:00", True),
            ("Fri, 15 Jan 2027 08:00:00 GMT", True),
            ("Fri, 15-Jan-2027 08:00:00 GMT", True),
            (EARLIER, False),
            (str(EARLIER), False),
            (EARLIER * 1000, False),
            (EARLIER * 1_000_000, False),
            ((EARLIER + 11644473600) * 1_000_000, False),
            (1_000_000_000_000, False),
            ("2020-09-13T12:26:40Z", False),
            ("Sun, 13 Sep 2020 12:26:40 GMT", False),
        ],
    )
    def test_is_read_in_whatever_unit_it_is_written(self, file: WriteFile, expires: object, is_alive: bool) -> None:
        for content in (exported(value="b", expires=expires), netscape(expires=expires)):
            path = file(content)
            if is_alive:
                assert load_cookies(path, BASE, now=NOW) == {"a": "b"}
            else:
                with pytest.raises(AuthenticationError, match="only expired"):
                    load_cookies(path, BASE, now=NOW)


class TestForeignFile:
    @pytest.mark.parametrize(
        ("content", "what"),
        [
            (b"SQLite format 3\0\x10\0", "a browser's own database: give browser:NAME"),
            (b"cook\0\0\0\1", "Safari's own cookie store"),
            (b"#LWP-Cookies-2.0\nSet-Cookie3: a=b", "MozillaCookieJar"),
            (b"PK\3\4\n", "a ZIP archive"),
            (b"\x1f\x8b\x08\0", "compressed with gzip"),
            (b"\n<!DOCTYPE html>\n<p>", "an HTML or XML page"),
            (b"curl 'https://oa.example.org/' -H 'Cookie: a=s3cr3t'", "a curl command"),
            (b"Cookie: a=s3cr3t", "a Cookie header: give its text"),
            (b"a=s3cr3t; c=d\n", "line 1 is not a cookie"),
        ],
    )
    def test_is_refused_with_what_it_is(self, file: WriteFile, content: bytes, what: str) -> None:
        with pytest.raises(AuthenticationError, match=f"cannot be parsed: .*{what}") as told:
            load_cookies(file(content), BASE)
        assert SECRET not in repr(told.value)


class TestJsonFile:
    @given(st.dictionaries(names, values, min_size=1))
    def test_gives_any_cookies_back(self, tmp_path_factory: pytest.TempPathFactory, cookies: dict[str, str]) -> None:
        path = tmp_path_factory.getbasetemp() / "round-trip.json"
        exports = [{"name": name, "value": value, "domain": "oa.example.org"} for name, value in cookies.items()]
        path.write_text(json.dumps(exports))
        assert load_cookies(path, BASE) == cookies

    @pytest.mark.parametrize("member", ["expirationDate", "expires", "expiry"])
    def test_leaves_expired_cookies(self, file: WriteFile, member: str) -> None:
        path = file(exported(**{member: NOW + 0.5}))
        assert load_cookies(path, BASE, now=NOW) == {"a": SECRET}
        with pytest.raises(AuthenticationError, match="only expired"):
            load_cookies(path, BASE, now=NOW + 0.5)

    @pytest.mark.parametrize(
        "members", [{"session": True, "expirationDate": 1}, {"expires": -1}, {"expirationDate": None}]
    )
    def test_takes_cookies_of_the_session(self, file: WriteFile, members: dict[str, object]) -> None:
        assert load_cookies(file(exported(**members)), BASE) == {"a": SECRET}

    def test_odd_cookie_is_left_out_and_named(self, file: WriteFile, caplog: pytest.LogCaptureFixture) -> None:
        odd: list[object] = [
            None,
            {"name": "a", "value": None},
            SECRET,
            {"name": "b", "value": SECRET, "domain": "x", "expires": SECRET},
            {"name": "c", "value": SECRET, "domain": "x", "partitionKey": f"http://[{SECRET}"},
        ]
        for content in (odd + json.loads(exported()), {"cookies": odd + json.loads(exported())}):
            assert load_cookies(file(json.dumps(content)), BASE) == {"a": SECRET}
        for record in caplog.records:
            assert all(f"cookie {number}" in record.getMessage() for number in (1, 2, 3, 4, 5))
            assert SECRET not in record.getMessage()
        assert len(caplog.records) == 2

    def test_may_write_truth_and_numbers_in_its_own_way(self, file: WriteFile) -> None:
        odd = {"secure": 0, "hostOnly": "true", "session": "false", "sameSite": "no_restriction", "storeId": "0"}
        assert load_cookies(file(exported(expirationDate=f"{LATER}.5", **odd)), BASE, now=NOW) == {"a": SECRET}
        nothing = dict.fromkeys(("path", "hostOnly", "secure", "session", "expirationDate", "partitionKey"))
        assert load_cookies(file(exported(**nothing)), BASE) == {"a": SECRET}

    @pytest.mark.parametrize(
        "key", ["https://oa.example.org", "https://example.org", {"topLevelSite": "https://example.org"}, {}, None]
    )
    def test_cookie_of_its_own_sites_partition_is_taken(self, file: WriteFile, key: object) -> None:
        assert load_cookies(file(exported(partitionKey=key)), BASE) == {"a": SECRET}

    def test_cookie_of_another_sites_partition_is_left(self, file: WriteFile) -> None:
        with pytest.raises(AuthenticationError, match="no cookie for oa"):
            load_cookies(file(exported(partitionKey="https://embedding.example")), BASE)

    @pytest.mark.parametrize(
        ("domain", "host_only", "reaches_subdomains"),
        [
            (".example.org", None, True),
            ("example.org", None, False),
            (".example.org", False, True),
            ("example.org", False, True),
            ("example.org", True, False),
        ],
    )
    def test_dot_decides_about_subdomains_if_host_only_does_not(
        self, file: WriteFile, domain: str, host_only: bool | None, reaches_subdomains: bool
    ) -> None:
        path = file(exported(domain=domain, hostOnly=host_only))
        assert load_cookies(path, "https://example.org") == {"a": SECRET}
        if reaches_subdomains:
            assert load_cookies(path, BASE) == {"a": SECRET}
        else:
            with pytest.raises(AuthenticationError, match="no cookie for oa"):
                load_cookies(path, BASE)


class TestHarFile:
    def test_newest_request_wins_as_a_whole_wherever_it_stands(self, file: WriteFile) -> None:
        content = har(
            ("2024-01-01T12:00:00Z", BASE, "a=new"),
            ("2024-01-01T12:30:00+01:00", BASE, "a=old; b=old"),
        )
        assert load_cookies(file(content), BASE) == {"a": "new"}

    def test_later_entry_wins_at_the_same_time(self, file: WriteFile) -> None:
        content = har(*(("2024-01-01T12:00:00.000Z", BASE, f"a={value}") for value in ("old", "new")))
        assert load_cookies(file(content), BASE) == {"a": "new"}

    def test_cookie_with_a_name_twice_means_the_first(self, file: WriteFile) -> None:
        content = har(("2024-01-01T12:00:00Z", BASE, "a=specific; a=general"))
        assert load_cookies(file(content), BASE) == {"a": "specific"}

    @pytest.mark.parametrize("date", [None, "", {}, "0"])
    def test_entry_with_an_odd_date_counts_in_the_order_of_the_file(self, file: WriteFile, date: object) -> None:
        log = json.loads(har(("", BASE, "a=older"), ("2024-01-01T12:00:00Z", BASE, "a=old"), ("", BASE, "a=new")))
        for odd in log["log"]["entries"][::2]:
            odd["startedDateTime"] = date
        assert load_cookies(file(json.dumps(log)), BASE) == {"a": "new"}

    def test_odd_entry_is_left_out_and_named(self, file: WriteFile, caplog: pytest.LogCaptureFixture) -> None:
        log = json.loads(har(("2024-01-01T12:00:00Z", BASE, "a=b")))
        log["log"]["entries"] += [{"request": {"url": None}}, SECRET]
        log["log"]["entries"][0]["request"]["headers"].append({"name": "x", "value": None})
        assert load_cookies(file(json.dumps(log)), BASE) == {"a": "b"}
        (record,) = caplog.records
        assert "entry 2" in record.getMessage()
        assert "entry 3" in record.getMessage()
        assert SECRET not in record.getMessage()

    def test_joins_several_cookie_headers(self, file: WriteFile) -> None:
        headers = [{"name": "cookie", "value": "a=b"}, {"name": "Cookie", "value": "c=d"}]
        entry = {"startedDateTime": "2024-01-01T12:00:00Z", "request": {"url": BASE, "headers": headers}}
        content = json.dumps({"log": {"entries": [entry]}})
        assert load_cookies(file(content), BASE) == {"a": "b", "c": "d"}

    def test_cookies_sent_to_another_host_are_left(self, file: WriteFile) -> None:
        with pytest.raises(AuthenticationError, match=r"only for example\.org, sub\.oa\.example\.org"):
            load_cookies(
                file(
                    har(
                        ("2024-01-01T12:00:00Z", "https://example.org/", "a=b"),
                        ("2024-01-01T12:00:00Z", "https://sub.oa.example.org/", "a=b"),
                        ("2024-01-01T12:00:00Z", "data:text/plain,x", ""),
                    )
                ),
                BASE,
            )

    def test_cookies_sent_over_https_are_not_sent_in_the_clear(self, file: WriteFile) -> None:
        path = file(har(("2024-01-01T12:00:00Z", BASE, "a=b")))
        with pytest.raises(AuthenticationError, match="secure cookies need https"):
            load_cookies(path, "http://oa.example.org")

    def test_cookies_sent_in_the_clear_are_sent_over_https(self, file: WriteFile) -> None:
        path = file(har(("2024-01-01T12:00:00Z", "http://OA.example.org:8080/x", "a=b")))
        assert load_cookies(path, BASE) == {"a": "b"}


class TestWhatABrowserWouldSend:
    @given(domain=domains, sub=domains)
    def test_domain_cookie_goes_to_its_host_and_those_below(self, domain: str, sub: str) -> None:
        cookie = Cookie("a", "b", domain, host_only=False)
        assert cookie.belongs_to(domain)
        assert cookie.belongs_to(f"{sub}.{domain}")

    @given(domain=domains, sub=domains)
    def test_domain_cookie_never_goes_to_a_host_above_or_beside(self, domain: str, sub: str) -> None:
        assert not Cookie("a", "b", f"{sub}.{domain}", host_only=False).belongs_to(domain)
        assert not Cookie("a", "b", domain, host_only=False).belongs_to(f"{sub}{domain}")

    @given(domain=domains, host=domains)
    def test_host_only_cookie_goes_to_its_host_alone(self, domain: str, host: str) -> None:
        assert Cookie("a", "b", domain).belongs_to(host) == (domain == host)
        assert not Cookie("a", "b", domain).belongs_to(f"{host}.{domain}")

    @given(st.ip_addresses().map(str))
    def test_ip_address_matches_itself_alone(self, address: str) -> None:
        assert Cookie("a", "b", address, host_only=False).belongs_to(address)
        assert not Cookie("a", "b", address.partition(".")[2], host_only=False).belongs_to(address)

    def test_cookie_without_a_domain_goes_nowhere(self) -> None:
        assert not Cookie("a", "b", "", host_only=False).belongs_to("oa.example.org")

    def test_case_of_hosts_does_not_matter(self, file: WriteFile) -> None:
        assert load_cookies(file(netscape(domain="OA.Example.org")), "https://oa.eXAMPLE.org", now=NOW) == {"a": "b"}

    def test_spelling_of_an_address_does_not_matter(self, file: WriteFile) -> None:
        assert load_cookies(file(netscape(domain="[0:0::1]")), "http://[::1]", now=NOW) == {"a": "b"}

    def test_cookie_with_the_prefix_host_goes_to_its_host_alone(self, file: WriteFile) -> None:
        path = file(netscape("__Host-a", domain=".example.org", subdomains=True, secure=True) + netscape())
        assert load_cookies(path, BASE, now=NOW) == {"a": "b"}

    def test_port_does_not_matter(self, file: WriteFile) -> None:
        assert load_cookies(file(netscape()), f"{BASE}:8443", now=NOW) == {"a": "b"}

    @pytest.mark.parametrize("host", ["localhost", "oa.localhost", "127.0.0.1", "127.1.2.3", "[::1]"])
    def test_secure_cookie_goes_to_loopback_hosts_without_https(self, file: WriteFile, host: str) -> None:
        path = file("# an IPv6 address looks like JSON\n" + netscape(domain=host, secure=True))
        assert load_cookies(path, f"http://{host}:3000", now=NOW) == {"a": "b"}

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_cookie_that_is_not_secure_goes_everywhere(self, file: WriteFile, scheme: str) -> None:
        assert load_cookies(file(netscape()), f"{scheme}://oa.example.org", now=NOW) == {"a": "b"}

    @pytest.mark.parametrize(
        ("cookie_path", "base_path"),
        [
            ("/", ""),
            ("/", "/"),
            ("", "/"),
            ("/", "/oa"),
            ("/oa", "/oa"),
            ("/oa/", "/oa"),
            ("/oa", "/oa/"),
            ("/oa", "/oa/x"),
            ("/api", ""),
            ("/api/", "/"),
            ("/api/chat", ""),
            ("/oa/api", "/oa"),
            ("oa", ""),
        ],
    )
    def test_cookie_goes_to_its_path_and_below(self, file: WriteFile, cookie_path: str, base_path: str) -> None:
        assert load_cookies(file(netscape(path=cookie_path)), BASE + base_path, now=NOW) == {"a": "b"}

    @pytest.mark.parametrize(
        ("cookie_path", "base_path"), [("/oa", "/"), ("/oa", "/oax"), ("/oa/x", "/oa"), ("/api/other", "")]
    )
    def test_cookie_does_not_go_to_other_paths(self, file: WriteFile, cookie_path: str, base_path: str) -> None:
        with pytest.raises(AuthenticationError, match="a cookie's path must match"):
            load_cookies(file(netscape(path=cookie_path)), BASE + base_path, now=NOW)

    @pytest.mark.parametrize("reverse", [False, True])
    def test_of_several_with_one_name_the_longest_path_wins(self, file: WriteFile, reverse: bool) -> None:
        lines = [
            netscape(value="path", domain=".example.org", subdomains=True, path="/oa"),
            netscape(value="host", path="/"),
        ]
        lines.sort(reverse=reverse)
        assert load_cookies(file("".join(lines)), f"{BASE}/oa", now=NOW) == {"a": "path"}

    @pytest.mark.parametrize("reverse", [False, True])
    def test_then_the_most_specific_domain_wins(self, file: WriteFile, reverse: bool) -> None:
        lines = [
            netscape(value="parent", domain=".example.org", subdomains=True),
            netscape(value="own", domain=".oa.example.org", subdomains=True),
        ]
        lines.sort(reverse=reverse)
        assert load_cookies(file("".join(lines)), BASE, now=NOW) == {"a": "own"}

    @pytest.mark.parametrize("reverse", [False, True])
    def test_then_the_host_only_one_wins(self, file: WriteFile, reverse: bool) -> None:
        lines = [netscape(value="domain", domain=".oa.example.org", subdomains=True), netscape(value="host")]
        lines.sort(reverse=reverse)
        assert load_cookies(file("".join(lines)), BASE, now=NOW) == {"a": "host"}

    def test_expired_cookie_does_not_hide_a_live_one(self, file: WriteFile) -> None:
        content = netscape(value="gone", expires=1) + netscape(domain=".example.org", subdomains=True)
        assert load_cookies(file(content), BASE, now=NOW) == {"a": "b"}


class FakeStore:
    """Stands in for the module browser_cookie3 and its one browser, firefox."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.jar = CookieJar()
        self.failure: Exception | None = None
        self.asked: list[str] = []
        module = ModuleType("browser_cookie3")
        self.error = type("BrowserCookieError", (Exception,), {})

        def firefox(*, domain_name: str) -> CookieJar:
            self.asked.append(domain_name)
            if self.failure:
                raise self.failure
            return self.jar

        vars(module).update(all_browsers=[firefox], BrowserCookieError=self.error, load=pytest.fail)
        monkeypatch.setitem(sys.modules, "browser_cookie3", module)

    def add(self, name: str, value: str | None, domain: str, *, secure: int = 0, expires: int | None = None) -> None:
        dot = domain.startswith(".")
        # The arguments, and integers for booleans, are those of browser_cookie3.create_cookie.
        self.jar.set_cookie(
            JarCookie(
                0, name, value, None, False, domain, dot, dot, "/", True, bool(secure), expires, False, None, None, {}
            )
        )


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> FakeStore:
    return FakeStore(monkeypatch)


class TestBrowser:
    def test_cookies_are_chosen_as_from_a_file(self, store: FakeStore) -> None:
        store.add(SESSION, "own", "oa.example.org", secure=1, expires=LATER)
        store.add("parents", "yes", ".example.org")
        store.add("nothing", None, ".example.org")
        store.add("host-only", "no", "example.org")
        store.add("gone", "no", ".example.org", expires=EARLIER)
        assert load_cookies("browser:firefox", BASE, now=NOW) == {SESSION: "own", "parents": "yes", "nothing": ""}

    def test_expiry_may_be_in_milliseconds(self, store: FakeStore) -> None:
        store.add("live", "yes", "oa.example.org", expires=LATER * 1000)
        store.add("gone", "no", "oa.example.org", expires=EARLIER * 1000)
        assert load_cookies("browser:firefox", BASE, now=NOW) == {"live": "yes"}

    @pytest.mark.parametrize(
        ("base", "asked"),
        [
            (BASE, "example.org"),
            ("http://localhost:3000", "localhost"),
            ("http://127.0.0.1:3000", "127.0.0.1"),
            ("http://[::1]:3000", "::1"),
        ],
    )
    def test_is_asked_for_no_more_sites_than_needed(self, store: FakeStore, base: str, asked: str) -> None:
        with pytest.raises(AuthenticationError, match=r"the cookie store of firefox has no cookie for [^ ,]+\. Log in"):
            load_cookies("browser:firefox", base)
        assert store.asked == [asked]

    @pytest.mark.parametrize("name", ["", "load", "os", f"firefox; session={SECRET}"])
    def test_that_is_unknown_is_refused_with_the_names_there_are(self, store: FakeStore, name: str) -> None:
        with pytest.raises(AuthenticationError, match=r"one of these names: firefox$") as told:
            load_cookies(f"browser:{name}", BASE)
        assert SECRET not in repr(told.value)
        assert store.asked == []

    def test_is_never_read_for_another_source(self, store: FakeStore) -> None:
        load_cookies({"a": "b"}, BASE)
        load_cookies("a=b", BASE)
        load_cookies(DATA / "cookies.txt", BASE)
        assert store.asked == []

    def test_extra_that_is_not_installed_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "browser_cookie3", None)
        with pytest.raises(AuthenticationError, match=r"pip install 'oa_protocol\[browser\]'"):
            load_cookies("browser:firefox", BASE)

    def test_without_a_profile_says_so(self, store: FakeStore) -> None:
        store.failure = store.error("Could not find firefox profile directory")
        with pytest.raises(
            AuthenticationError, match="store of firefox cannot be read: Could not find firefox profile"
        ):
            load_cookies("browser:firefox", BASE)

    def test_failure_of_another_kind_is_named_but_not_quoted(self, store: FakeStore) -> None:
        store.failure = UnicodeDecodeError("utf-8", SECRET.encode(), 0, 1, SECRET)
        with pytest.raises(AuthenticationError, match=r"cannot be read \(UnicodeDecodeError\)") as told:
            load_cookies("browser:firefox", BASE)
        assert SECRET not in repr(told.value)
        assert told.value.__cause__ is None

    def test_needs_a_base_url_with_a_host(self, store: FakeStore) -> None:
        with pytest.raises(ValueError, match="base_url"):
            load_cookies("browser:firefox", "https://")
        assert store.asked == []

    def test_names_are_those_of_the_real_package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("browser_cookie3")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("APPDATA", str(tmp_path))
        monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
        with pytest.raises(AuthenticationError, match="store of firefox cannot be read: Could not find"):
            load_cookies("browser:firefox", BASE)


def test_no_repr_shows_a_value() -> None:
    exported_cookie = cookies_module._ExportedCookie("a", SECRET, "x")  # pyright: ignore[reportPrivateUsage]
    assert SECRET not in repr(
        [Cookie("a", SECRET, "x"), exported_cookie, Request("x", headers=[SECRET], cookies=[SECRET])]
    )
