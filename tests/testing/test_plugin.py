"""The pytest plugin, as a project of somebody else's uses it."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

CLIENT = """
import json
import urllib.request

import pytest

def call(server, method, path, body=None, timeout=10):
    request = urllib.request.Request(
        server.url + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"authorization": f"Bearer {server.token}", "content-type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=timeout) as reply:
        return json.loads(reply.read() or b"null")

def create(server, **options):
    return call(server, "POST", "/chats", {}, **options)["id"]

def delete(server, chat_id):
    return call(server, "DELETE", f"/chats/{chat_id}")
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makepyfile(client=CLIENT)
    return pytester


def run(project: pytest.Pytester, test: str, *arguments: str) -> pytest.RunResult:
    project.makepyfile(f"from client import *\n{test}")
    return project.runpytest_inprocess("--strict-markers", "-p", "no:cacheprovider", *arguments)


def test_a_test_gets_a_running_server(project: pytest.Pytester) -> None:
    done = run(
        project,
        """
def test_it(oa_server):
    delete(oa_server, create(oa_server))
    assert [request.step for request in oa_server.requests] == ["create", "delete"]
""",
    )
    done.assert_outcomes(passed=1)


def test_a_test_that_leaves_a_chat_has_an_error_that_names_it(project: pytest.Pytester) -> None:
    done = run(
        project,
        """
def test_it(oa_server):
    print("made", create(oa_server))
""",
    )
    done.assert_outcomes(passed=1, errors=1)
    left = "The chat is still on the server. (OA-7.2, chat ????????-????-7???-????-????????????)"
    done.stdout.fnmatch_lines(["the client did something wrong:", left])


def test_a_test_may_be_allowed_to_leave_chats(project: pytest.Pytester) -> None:
    done = run(
        project,
        """
@pytest.mark.oa_server(may_leave_chats=True)
def test_it(oa_server):
    create(oa_server)
""",
    )
    done.assert_outcomes(passed=1)


@pytest.mark.parametrize(("marker", "errors"), [("clean=True", 1), ("", 0), ("clean=True, may_leave_chats=True", 1)])
def test_a_test_may_require_a_clean_verdict(project: pytest.Pytester, marker: str, errors: int) -> None:
    done = run(
        project,
        f"""
@pytest.mark.oa_server({marker})
def test_it(oa_server):
    chat = create(oa_server)
    delete(oa_server, chat)
    with pytest.raises(urllib.error.HTTPError) as refused:
        delete(oa_server, chat)
    refused.value.close()
""",
    )
    done.assert_outcomes(passed=1, errors=errors)
    if errors:
        done.stdout.fnmatch_lines(["the client did something wrong:", "*it was used again*(OA-7.7, chat *)"])


def test_the_marker_has_the_servers_settings_and_the_nearest_one_counts(project: pytest.Pytester) -> None:
    done = run(
        project,
        """
@pytest.mark.oa_server(require_credentials=True, may_leave_chats=True)
class TestIt:
    @pytest.mark.oa_server(require_credentials=False)
    def test_it(self, oa_server):
        oa_server.revoke()
        create(oa_server)
""",
    )
    done.assert_outcomes(passed=1)


def test_an_unknown_setting_is_an_error(project: pytest.Pytester) -> None:
    done = run(
        project,
        """
@pytest.mark.oa_server(wrkers=2)
def test_it(oa_server):
    pass
""",
    )
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*unexpected keyword argument 'wrkers'*"])


def test_faults_happen(project: pytest.Pytester) -> None:
    done = run(
        project,
        """
def test_it(oa_server, oa_faults):
    oa_faults.lose_request("create")
    oa_faults.answer("create", 503, b"busy", headers={"retry-after": "7"})
    with pytest.raises(OSError):
        create(oa_server)
    with pytest.raises(urllib.error.HTTPError) as refused:
        create(oa_server)
    assert (refused.value.code, refused.value.read(), refused.value.headers["retry-after"]) == (503, b"busy", "7")
    refused.value.close()
    assert not oa_server.chats
    oa_faults.hang("create")
    with pytest.raises(TimeoutError):
        create(oa_server, timeout=0.1)
    assert not oa_server.chats
    oa_faults.lose_reply("create")
    with pytest.raises(OSError):
        create(oa_server)
    (chat,) = oa_server.chats
    delete(oa_server, chat.id)
""",
    )
    done.assert_outcomes(passed=1)


def test_a_fault_that_did_not_happen_is_an_error_that_tells_it(project: pytest.Pytester) -> None:
    done = run(
        project,
        """
def test_it(oa_server, oa_faults):
    oa_faults.break_stream(after_events=2)
    oa_faults.fail_answer("Out of memory.")
""",
    )
    done.assert_outcomes(passed=1, errors=1)
    done.stdout.fnmatch_lines(
        [
            "these scripted faults did not happen, or not often enough:",
            "  StreamFault(after_events=2*",
            "  Answer(*Out of memory*",
        ]
    )


ENDS = {
    "fails": ("assert not 'its own failure'", {"failed": 1}),
    "is skipped": ("pytest.skip('not here')", {"skipped": 1}),
    "is expected to fail": ("pytest.xfail('not yet')", {"xfailed": 1}),
}


@pytest.mark.parametrize(("end", "outcomes"), ENDS.values(), ids=list(ENDS))
def test_a_test_that_does_not_pass_has_no_second_error(
    project: pytest.Pytester, end: str, outcomes: dict[str, int]
) -> None:
    done = run(
        project,
        f"""
def test_it(oa_server, oa_faults):
    create(oa_server)
    oa_faults.break_stream()
    {end}
""",
    )
    done.assert_outcomes(**outcomes)


def test_a_test_that_does_not_begin_has_no_second_error(project: pytest.Pytester) -> None:
    done = run(
        project,
        """
@pytest.fixture
def broken(oa_server, oa_faults):
    create(oa_server)
    oa_faults.break_stream()
    raise OSError("its own error")

def test_it(broken):
    pass
""",
    )
    done.assert_outcomes(errors=1)
    done.stdout.no_fnmatch_line("*these scripted faults did not happen*")


def test_a_setting_without_a_name_is_an_error(project: pytest.Pytester) -> None:
    done = run(
        project,
        """
@pytest.mark.oa_server(True)
def test_it(oa_server):
    pass
""",
    )
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*the marker oa_server takes named arguments only, not True*"])


def test_it_can_be_switched_off(project: pytest.Pytester) -> None:
    done = run(
        project,
        """
def test_it(oa_server):
    pass
""",
        "-p",
        "no:oa_protocol",
    )
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*fixture 'oa_server' not found*"])


def test_nothing_of_the_package_is_imported_before_a_fixture_is_used(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
import sys

def test_it():
    ours = {name for name in sys.modules if name.startswith("oa_protocol.")}
    assert ours == {"oa_protocol._lazy", "oa_protocol.testing", "oa_protocol.testing.plugin"}
    assert not {"anyio", "httpx", "starlette", "msgspec", "hypothesis"} & set(sys.modules)
"""
    )
    # Other plugins that are installed here import what they like.
    done = project.runpytest_subprocess("-p", "no:anyio", "-p", "no:hypothesispytest")
    done.assert_outcomes(passed=1)
