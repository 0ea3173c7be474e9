"""What a worker and the server say to each other, without sockets."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from oa_protocol.engine.errors import RemoteProtocolError
from oa_protocol.models import Finish, PluginStep, Turn
from oa_protocol.server._worker_protocol import Response, decode_hello, decode_response
from oa_protocol.server.model_configs import MODEL_CONFIGS as SERVERS_CONFIGS
from oa_protocol.worker import MODEL_CONFIGS
from oa_protocol.worker._hardware import hardware
from oa_protocol.worker.protocol import (
    BadWork,
    Ending,
    Ping,
    Reply,
    Unknown,
    Work,
    decode_request,
    encode_hello,
    encode_pong,
)

THREAD = [
    {"role": "prompter", "content": "Hi", "state": "manual"},
    {"role": "assistant", "content": "Hello.", "state": "complete"},
    {"role": "prompter", "content": "How are you?", "state": "manual"},
]


def decode(**fields: Any) -> object:
    return decode_request(json.dumps({"id": "1", **fields}), "a model")


def work(**parameters: Any) -> object:
    return decode(request_type="work", thread={"messages": THREAD}, parameters=parameters, safety_parameters={})


DEEP = f'{{"request_type": "work", "id": "1", "x": {"[" * 9999}{"]" * 9999}}}'


def brief(text: object) -> str:
    return repr(text)[:30]


def responses(reply: Reply, *pieces: Any) -> list[Response]:
    return [decode_response(text) for text in (*map(reply.piece, pieces), reply.end()) if text]


@pytest.mark.clause("OA-10.2")
def test_the_first_text_has_everything_that_the_server_wants() -> None:
    hello = decode_hello(encode_hello(MODEL_CONFIGS["distilgpt2"], 3, hardware()))
    assert hello.config.max_parallel_requests == 3
    assert hello.config.model_config == SERVERS_CONFIGS["distilgpt2"]
    assert hello.hardware_info.cpu_count_logical > 0


@pytest.mark.parametrize("name", SERVERS_CONFIGS)
def test_worker_and_server_know_a_model_by_the_same_numbers(name: str) -> None:
    assert msgspec.to_builtins(MODEL_CONFIGS[name]) == SERVERS_CONFIGS[name]


@pytest.mark.clause("OA-10.3")
def test_a_model_gets_everything_that_came_with_the_prompt() -> None:
    found = work(sampling_parameters={"top_k": 50}, seed=2**64 - 1, system_prompt="Be kind.", do_sample=True)
    assert isinstance(found, Work)
    request = found.request
    assert (request.prompt, request.model, request.seed) == ("How are you?", "a model", 2**64 - 1)
    assert request.history == (Turn("prompter", "Hi"), Turn("assistant", "Hello."))
    assert (request.sampling.top_k, request.system_prompt) == (50, "Be kind.")


@pytest.mark.clause("OA-10.3")
@pytest.mark.parametrize("messages", [[], THREAD[:2], "Hi", [{"role": "system", "content": "x"}]], ids=str)
def test_work_that_cannot_be_read_is_answered_with_an_error(messages: object) -> None:
    found = decode(request_type="work", thread={"messages": messages}, parameters={})
    assert isinstance(found, BadWork)
    assert "worker can't" in found.error


@pytest.mark.clause("OA-10.4")
def test_each_piece_is_a_response_of_its_own_and_the_text_is_stripped() -> None:
    step = PluginStep("thought", "action", "input", "response")
    found = responses(Reply("1"), " Hello ", step, "you \n", Finish("length"))
    assert [msgspec.to_builtins(one) for one in found] == [
        {"response_type": "token", "request_id": "1", "text": " Hello ", "log_prob": None, "token_id": 0},
        {
            "response_type": "plugin_intermediate",
            "request_id": "1",
            "current_plugin_thought": "thought",
            "current_plugin_action_taken": "action",
            "current_plugin_action_input": "input",
            "current_plugin_action_response": "response",
        },
        {"response_type": "token", "request_id": "1", "text": "you \n", "log_prob": None, "token_id": 1},
        {
            "response_type": "generated_text",
            "request_id": "1",
            "text": "Hello you",
            "finish_reason": "length",
            "used_plugin": None,
        },
    ]


@pytest.mark.clause("OA-10.4")
def test_what_the_server_cannot_store_is_replaced() -> None:
    token, whole = responses(Reply("1"), "a\0b\ud800c")
    assert "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c" in str(token)
    assert "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c" in str(whole)
    assert json.loads(Reply("1").fail("\0"))["error"] == "\N{REPLACEMENT CHARACTER}"


@pytest.mark.clause("OA-10.5")
def test_a_ping_gets_a_pong_with_its_id() -> None:
    ping = decode(request_type="ping")
    assert isinstance(ping, Ping)
    assert json.loads(encode_pong(ping)) == {"response_type": "pong", "request_id": "1"}


@pytest.mark.clause("OA-10.5")
def test_what_ends_a_worker_is_told_apart() -> None:
    assert decode(request_type="error", error="why") == Ending("error", "why")
    for kind in ("terminate", "upgrade_protocol", "wrong_api_key"):
        found = decode(request_type=kind)
        assert isinstance(found, Ending)
        assert (found.kind, found.error) == (kind, "")
    assert decode(request_type="dance") == Unknown("dance")


@pytest.mark.clause("OA-10.5")
@pytest.mark.parametrize("text", ["", "garbage", "[]", "{}", '{"request_type": 1}', b"\xff", DEEP], ids=brief)
def test_garbage_is_an_error(text: str | bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="no request"):
        decode_request(text, "a model")
