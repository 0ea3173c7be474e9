from __future__ import annotations

import json

import pytest

from oa_protocol.server import Fault, Reply, Server

from .command import credentials, oa_protocol


@pytest.mark.parametrize("api", ["website", "inference"])
def test_a_name_a_line(server: Server, api: str) -> None:
    done = oa_protocol("models", "--api", api, env=credentials(server))
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[:2] == ["_lorem", "distilgpt2"]


def test_an_inference_server_needs_no_credentials_for_it(server: Server) -> None:
    done = oa_protocol("models", "--api", "inference", env={"OA_URL": server.url})
    assert (done.code, done.err) == (0, "")
    assert "_lorem\n" in done.out


def test_descriptions(server: Server) -> None:
    listed = [{"name": "a", "description": "b c"}, {"name": "d"}]
    server.script(Fault("models", before=Reply(200, json.dumps(listed).encode()), times=2))
    assert oa_protocol("models", env=credentials(server)).out == "a\tb c\nd\n"
    assert oa_protocol("models", "--json", env=credentials(server)).events == [
        {"name": "a", "description": "b c", "parameter_configs": []},
        {"name": "d", "description": "", "parameter_configs": []},
    ]


def test_of_an_embedded_server() -> None:
    done = oa_protocol("models")
    assert done.code == 0
    assert "OA_SFT_Llama_30B_6\n" in done.out
