"""``--answers``: which model answers on the embedded server."""

from __future__ import annotations

import signal

import pytest

from tests.models.endpoint import GOOD, KEY, ONE, Endpoint, refusal, reply

from .command import ended, oa_protocol, started
from .test_serve import environment_of


def endpoint_of(endpoint: Endpoint) -> dict[str, str]:
    return {"OPENAI_BASE_URL": f"{endpoint.url}/v1", "OPENAI_API_KEY": KEY, "OPENAI_MODEL": "small"}


@pytest.mark.parametrize(
    ("command", "stdin", "printed"), [(["ask", "Count"], "", "One two.\n"), (["chat"], "Count\nOn\n", "One two.\n" * 2)]
)
def test_a_real_model_answers(command: list[str], stdin: str, printed: str) -> None:
    with Endpoint(GOOD, GOOD) as endpoint:
        done = oa_protocol(*command, "--answers", "openai", "--quiet", stdin=stdin, env=endpoint_of(endpoint))
    assert (done.code, done.out, done.err) == (0, printed, "")


def test_the_second_prompt_of_a_chat_is_sent_with_the_first_one_and_its_answer() -> None:
    with Endpoint(GOOD, GOOD) as endpoint:
        oa_protocol("chat", "--answers", "openai", stdin="Count\nOn\n", env=endpoint_of(endpoint))
    assert [(one["role"], one["content"]) for one in endpoint.bodies[1]["messages"]] == [
        ("user", "Count"),
        ("assistant", "One two."),
        ("user", "On"),
    ]


def test_an_answer_that_breaks_off_has_an_exit_code_of_its_own() -> None:
    with Endpoint(reply(ONE)) as endpoint:
        done = oa_protocol("ask", "Count", "--answers", "openai", "--quiet", env=endpoint_of(endpoint))
    assert (done.code, done.out) == (5, "One\n")
    assert "the answer broke off" in done.err


def test_serve_answers_with_a_real_model_and_shows_its_warnings() -> None:
    unknown = refusal("400 Bad", {"error": {"message": "Unsupported parameter: top_k"}})
    with (
        Endpoint(unknown, GOOD) as endpoint,
        started(["serve", "--answers", "openai"], endpoint_of(endpoint)) as running,
    ):
        assert oa_protocol("ask", "Count", env=environment_of(running)).out == "One two.\n"
        running.send_signal(signal.SIGINT)
        shown = ended(running).err
    assert f"Z {endpoint.url} doesn't know top_k, which is left out from now on\n" in shown
    assert KEY not in shown


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("openai", "--answers openai: there is no endpoint: set OPENAI_BASE_URL"),
        ("gguf", "needs both options: --answers gguf --gguf FILE"),
        ("echo --gguf x.gguf", "needs both options: --answers gguf --gguf FILE"),
        ("gguf --gguf missing.gguf", "--answers gguf: missing.gguf: No such file or directory"),
        ("echo --url http://127.0.0.1:1", "--answers and --gguf are for the embedded server"),
    ],
)
def test_options_that_do_not_fit_are_usage_errors(options: str, words: str) -> None:
    done = oa_protocol("ask", "x", "--answers", *options.split())
    assert (done.code, done.out) == (2, "")
    assert words in done.err
