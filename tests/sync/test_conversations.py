"""What a client can be asked, over both APIs."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import oa_protocol
from oa_protocol import (
    AnswerFailed,
    ApiError,
    AuthenticationError,
    Cleanup,
    LocalProtocolError,
    Phase,
    sync,
)
from oa_protocol.client.journal import Journal
from oa_protocol.engine.events import Answered, Created, Prompted, Requested, Token
from oa_protocol.server import Answer, Close, Fault, Reply, StreamFault, WorkerError
from tests.driver.site import Site

from .clients import client_of


def test_the_whole_answer(site: Site) -> None:
    site.script(Answer(pieces=("One ", "two.")))
    with client_of(site) as client, client.chat() as chat:
        assert chat.ask("Count") == "One two."
        assert chat.id == site.chats[0]
    assert chat.phase is Phase.DELETED
    assert client.leaked == []


def test_its_events(site: Site) -> None:
    site.script(Answer(pieces=("One ", "two.")))
    with client_of(site) as client, client.chat() as chat:
        answer = chat.send("Count")
        events = list(answer)
        assert [type(event) for event in events] == [Created, Prompted, Requested, Token, Token, Answered]
        assert answer.text == "One two."
        assert answer.message is not None
        assert answer.message.content == "One two."


def test_its_pieces(site: Site) -> None:
    site.script(Answer(pieces=("One ", "", "two.")))
    with client_of(site) as client, client.chat() as chat:
        stream = chat.stream("Count")
        assert list(stream) == ["One ", "two."]
        assert stream.answer.text == "One two."


def test_until_an_answer_is_complete_its_text_is_what_was_taken_of_it(site: Site) -> None:
    site.script(Answer(pieces=("One ", "two.")))
    with client_of(site) as client, client.chat() as chat:
        stream = chat.stream("Count")
        assert stream.answer.message is None
        next(stream)
        assert stream.answer.text == "One "


@pytest.mark.clause("OA-3.3")
def test_the_next_turn_reads_an_answer_that_was_given_up_to_its_end(site: Site) -> None:
    site.script(Answer(pieces=("One ", "two.")), Answer(pieces=("Three.",)))
    with client_of(site) as client, client.chat() as chat:
        for _ in chat.stream("Count"):
            break
        assert chat.ask("And on") == "Three."
    assert site.prompts() == ["Count", "And on"]


def test_the_models(site: Site) -> None:
    with client_of(site) as client:
        assert "OA_SFT_Llama_30B_6" in {model.name for model in client.models()}


@pytest.mark.clause("OA-7.2")
def test_a_sweep_deletes_what_another_owner_left(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    site.script(Fault("delete", before=Reply(500, b"no"), times=3))
    with (
        pytest.warns(oa_protocol.ChatLeakedWarning),
        client_of(site, journal=path) as careless,
        careless.chat() as chat,
    ):
        chat.ask("Hello")
    with client_of(site, journal=path) as tidy:
        assert [record.chat_id for record in careless.leaked] == [chat.id]
        assert len(tidy.sweep().deleted) == 1
    assert Journal(path).lines() == []


def test_a_chat_can_be_taped(site: Site, tmp_path: Path) -> None:
    with client_of(site) as client, client.chat(tape=tmp_path / "tape") as chat:
        chat.ask("Hello")
    assert '"DELETED"' in (tmp_path / "tape").read_text("utf-8")


@pytest.mark.clause("OA-8.1")
def test_an_error_comes_out_as_it_is(site: Site) -> None:
    with (
        pytest.raises(ApiError, match="Model gpt-4 not found") as caught,
        client_of(site) as client,
        client.chat("gpt-4") as chat,
    ):
        chat.ask("Hello")
    assert caught.value.status == 422
    assert caught.value.phase == "PROMPTED"


@pytest.mark.clause("OA-5.9")
def test_an_answer_that_failed_has_its_text_on_the_error(site: Site) -> None:
    site.script(Answer(pieces=("One ", "two."), after=1, then=WorkerError("out of memory")))
    with client_of(site) as client, client.chat() as chat:
        with pytest.raises(AnswerFailed, match="out of memory") as caught:
            chat.ask("Count")
        assert caught.value.text == "One "
        with pytest.raises(LocalProtocolError, match="out of memory"):
            chat.ask("And on")


@pytest.mark.clause("OA-5.6")
def test_pieces_that_turn_out_to_be_wrong_are_an_error(site: Site) -> None:
    site.script(Answer(pieces=("One ", "two."), final="Other."), StreamFault(after_events=1, then=Close()))
    with client_of(site) as client, client.chat() as chat:
        with pytest.raises(AnswerFailed, match="does not continue") as caught:
            list(chat.stream("Count"))
        assert caught.value.text == "Other."


@pytest.mark.clause("OA-4.1")
def test_a_client_without_credentials_says_how_to_give_them(site: Site) -> None:
    with (
        client_of(site, cookies=None, token=None) as client,
        client.chat() as chat,
        pytest.raises(AuthenticationError, match="cookies="),
    ):
        chat.ask("Hello")


@pytest.mark.clause("OA-4.4")
def test_bad_arguments_are_refused_at_once(site: Site) -> None:
    with pytest.raises(ValueError, match="http"):
        sync.Client("ftp://oa.example.org")
    with client_of(site) as client:
        with pytest.raises(TypeError, match="temperature"):
            client.chat(sampling={"temperature": "hot"})
        with client.chat() as chat:
            with pytest.raises(ValueError, match="NUL"):
                chat.send("\0")
            with pytest.raises(ValueError, match="NUL"):
                chat.ask("\0")
    assert site.steps == []


@pytest.mark.clause("OA-7.2")
def test_the_bodys_exception_is_raised_once_the_chat_is_deleted(site: Site) -> None:
    def fail() -> None:
        with client_of(site) as client, client.chat() as chat:
            for _ in chat.stream("Hello"):
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert site.chats == ()


@pytest.mark.clause("OA-7.2")
def test_leaving_a_client_closes_its_chats(site: Site) -> None:
    with client_of(site) as client:
        chats = [client.chat() for _ in range(3)]
        for chat in chats:
            chat.ask("Hello")
    assert {chat.phase for chat in chats} == {Phase.DELETED}
    for chat in chats:
        chat.close()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("Client", "__init__"),
        ("Client", "chat"),
        ("Client", "open"),
        ("Client", "models"),
        ("Client", "sweep"),
        ("Chat", "send"),
        ("Chat", "ask"),
        ("Chat", "stream"),
        ("Chat", "regenerate"),
        ("Chat", "edit"),
    ],
)
def test_a_method_takes_what_its_asynchronous_twin_takes(kind: str, name: str) -> None:
    ours = inspect.signature(getattr(getattr(sync, kind), name))
    theirs = inspect.signature(getattr(getattr(oa_protocol, kind), name))
    assert str(ours) == str(theirs)


@pytest.mark.parametrize(
    ("kind", "closing"), [("Client", "close"), ("Chat", "close"), ("Answer", ""), ("TextStream", "")]
)
def test_a_class_has_what_its_asynchronous_twin_has(kind: str, closing: str) -> None:
    ours = {name for name in dir(getattr(sync, kind)) if not name.startswith("_")}
    theirs = {name for name in dir(getattr(oa_protocol, kind)) if not name.startswith("_")}
    attributes = {"Client": {"leaked"}, "Answer": {"message"}}.get(kind, set())
    assert ours == (theirs - {"aclose"}) | attributes | ({closing} - {""})


def test_a_cleanup_is_checked_as_always(site: Site) -> None:
    with pytest.raises(TypeError, match="cleanup"):
        client_of(site, cleanup=5)  # type: ignore[arg-type]
    client_of(site, cleanup=Cleanup(drain=0)).close()


def test_it_is_imported_when_it_is_first_used() -> None:
    program = (
        "import oa_protocol, sys; assert 'oa_protocol.client.sync' not in sys.modules; print(oa_protocol.sync.Client)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "<class 'oa_protocol.client.sync.Client'>\n", done.stderr
