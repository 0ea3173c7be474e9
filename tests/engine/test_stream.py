"""The stream and its end, polling if it is lost, and the final text (sections 5 and 6)."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from oa_protocol.bindings.replies import MAX_NESTING
from oa_protocol.engine import conversation as engine
from oa_protocol.engine import steps
from oa_protocol.engine.errors import (
    AnswerFailed,
    ApiError,
    HTTPStatusError,
    OAError,
    RemoteProtocolError,
)
from oa_protocol.engine.events import Answered, Corrected, Event, Queued, Token
from oa_protocol.engine.inputs import Close, Input, ReplyReceived, StreamData, StreamEnded, StreamOpened
from oa_protocol.engine.intents import CloseStream, DeleteChat, FetchMessage, OpenStream
from oa_protocol.engine.phases import Phase
from oa_protocol.testing.playbook import Data, Deadline, Fails, Lost, Pause, Play, Reply, Sends, Unsent, Wait
from oa_protocol.testing.strategies import chunkings

from .stories import (
    ANSWER_2,
    COMMENT,
    GARBAGE,
    INFERENCE,
    PING,
    Story,
    assistant,
    complete,
    final,
    message,
    pending,
    token,
    worker_error,
)

BAD_STATES = pytest.mark.parametrize("state", ["aborted_by_worker", "cancelled", "timeout"])
RUNS = Reply(200, assistant(state="in_progress"))


# ---- a stream that is lost, refused, or empty


@pytest.mark.clause("OA-5.7", "OA-6.5")
@pytest.mark.parametrize(
    "outcome", [Reply(204), Reply(200), Reply(400), Reply(404), Reply(429), Reply(500), Reply(503), Lost()], ids=repr
)
def test_a_stream_that_does_not_open_is_polled_and_never_opened_again(story: Story, outcome: Input) -> None:
    script = story.opening() >> outcome << Phase.POLLING << FetchMessage
    assert polls_to_the_end(script)


@pytest.mark.clause("OA-5.7", "OA-6.5")
def test_an_empty_stream_is_no_success_and_is_never_opened_again(story: Story) -> None:
    assert polls_to_the_end(story.streaming() >> StreamEnded() << Phase.POLLING << FetchMessage)


@pytest.mark.clause("OA-5.7", "OA-6.5")
def test_a_stream_that_ends_without_its_last_event_is_no_success(story: Story) -> None:
    script = story.streaming("Hi ") >> StreamEnded() << Phase.POLLING << FetchMessage >> RUNS << Pause() << FetchMessage
    assert script >> Reply(200, complete()) << Token("there") << Answered(message(complete())) << Phase.ANSWERED


@pytest.mark.clause("OA-6.5", "OA-6.6")
def test_a_silent_stream_is_given_up_and_closed(story: Story) -> None:
    script = story.streaming() << Deadline(45) >> Wait() << Phase.POLLING << CloseStream
    script = script >> Data(token("late")) >> StreamEnded()
    assert polls_to_the_end(script << FetchMessage)


def polls_to_the_end(script: Play) -> Play:
    script = script >> RUNS << Pause(0.5) << FetchMessage >> RUNS << Pause(1.0) << FetchMessage
    return script >> Reply(200, complete()) << Token("Hi there") << Answered(message(complete())) << Phase.ANSWERED


def polls_ever_more_slowly(script: Play, outcome: Input) -> Play:
    for seconds in (0.5, 1.0, 2.0, 4.0, 5.0, 5.0):
        script = script >> outcome << Pause(seconds) << FetchMessage
    return script


def test_polls_come_ever_more_slowly_but_every_five_seconds(story: Story) -> None:
    assert polls_ever_more_slowly(story.polling(), RUNS)


@pytest.mark.clause("OA-6.9")
@pytest.mark.parametrize("outcome", [Lost(), Unsent(), Reply(429), Reply(502), Reply(503), Reply(504)], ids=repr)
def test_while_the_server_is_away_the_message_is_polled_on(story: Story, outcome: Input) -> None:
    script = polls_ever_more_slowly(story.polling(), outcome)
    assert script >> Reply(200, complete("Hi")) << Token("Hi") << Answered(message(complete("Hi"))) << Phase.ANSWERED


@pytest.mark.clause("OA-6.3", "OA-6.9")
def test_while_the_server_is_away_it_is_polled_no_earlier_than_it_says(story: Story) -> None:
    script = story.polling() >> Reply(503, headers={"retry-after": "60"}) << Pause(60.0) << FetchMessage
    assert script >> Reply(503, headers={"retry-after": "61"}) << Fails(HTTPStatusError, "503") << Phase.FAILED << None


@pytest.mark.clause("OA-6.3")
def test_a_poll_that_is_denied_is_tried_again_at_most_retries_times_in_a_row(story: Story) -> None:
    denied = Reply(500)
    script = story.polling() >> denied << Pause(0.5) << FetchMessage >> denied << Pause(1.0) << FetchMessage
    script = script >> RUNS << Pause() << FetchMessage >> denied << Pause() << FetchMessage
    script = script >> denied << Pause() << FetchMessage
    assert script >> denied << Fails(HTTPStatusError, "500") << Phase.FAILED << None


@pytest.mark.clause("OA-8.2")
@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(200, GARBAGE), RemoteProtocolError),
        (Reply(200, {"detail": "No."}), ApiError),
        (Reply(200, complete(message_id=ANSWER_2)), RemoteProtocolError),
        (Reply(200, complete(None)), RemoteProtocolError),
        (Reply(404), HTTPStatusError),
    ],
    ids=repr,
)
def test_a_poll_that_says_something_else_fails_the_answer(
    story: Story, reply: ReplyReceived, error: type[OAError]
) -> None:
    assert story.polling() >> reply << Fails(error) << Phase.FAILED << None >> Close() << Phase.DRAINING


@pytest.mark.clause("OA-5.7")
def test_what_follows_the_last_event_is_ignored(story: Story) -> None:
    script = story.streaming("Hi") >> Data(final(complete("Hi")), token("more"), worker_error("No."))
    assert script << Answered(message(complete("Hi"))) >> Data(token("more")) << CloseStream


# ---- answers that fail


@pytest.mark.clause("OA-5.9")
@pytest.mark.parametrize("tokens", [(), ("Hi ", "the")], ids=["before any token", "after tokens"])
def test_an_error_event_fails_the_answer_with_its_words_and_the_text_so_far(
    story: Story, tokens: tuple[str, ...]
) -> None:
    script = story.streaming(*tokens) >> Data(worker_error("Aborted due to worker error."))
    script = script << Fails(AnswerFailed, "Aborted due to worker error.", text="".join(tokens)) << Phase.FAILED
    assert script << CloseStream >> StreamEnded() << None >> Close() << DeleteChat


@pytest.mark.clause("OA-5.9")
@BAD_STATES
def test_a_final_message_in_a_bad_state_fails_the_answer(story: Story, state: str) -> None:
    script = story.streaming("Hi") >> Data(final(assistant(state=state)))
    assert script << Fails(AnswerFailed, state, text="Hi") << Phase.FAILED


@pytest.mark.clause("OA-5.9")
@BAD_STATES
def test_a_polled_message_in_a_bad_state_fails_the_answer(story: Story, state: str) -> None:
    script = story.polling("Hi") >> Reply(200, assistant(state=state))
    assert script << Fails(AnswerFailed, state, text="Hi") << Phase.FAILED << None


@pytest.mark.clause("OA-4.7", "OA-5.9")
def test_a_cancelled_answer_names_who_cancels_answers(story: Story) -> None:
    script = story.polling("Hi") >> Reply(200, assistant(state="cancelled"))
    assert script << Fails(AnswerFailed, "another request of the same account", text="Hi") << Phase.FAILED


@pytest.mark.clause("OA-5.7")
@pytest.mark.parametrize("state", ["pending", "in_progress", "manual", "unheard_of"])
def test_a_final_message_that_is_not_complete_is_no_success(story: Story, state: str) -> None:
    assert story.streaming() >> Data(final(assistant(state=state))) << Fails(RemoteProtocolError, state) << Phase.FAILED


@pytest.mark.clause("OA-5.7")
def test_a_final_message_without_content_or_of_another_id_is_no_success(story: Story) -> None:
    assert story.streaming() >> Data(final(complete(None))) << Fails(RemoteProtocolError, "without content")
    assert story.streaming() >> Data(final(complete(message_id=ANSWER_2))) << Fails(RemoteProtocolError, ANSWER_2)


# ---- a stream that looks stuck


def queued(script: Play, times: int) -> Play:
    """So many pending events come."""
    script = script >> Data(*[pending()] * times)
    for _ in range(times):
        script = script << Queued(1, 5)
    return script


@pytest.mark.clause("OA-5.8")
@BAD_STATES
def test_every_ten_pending_events_the_message_is_read(story: Story, state: str) -> None:
    script = queued(queued(story.streaming(), 9) << None, 1) << Sends(FetchMessage, shielded=False)
    script = script >> Reply(200, assistant()) << Phase.STREAMING << None
    script = queued(queued(script, 9) << None, 1) << FetchMessage
    script = script >> Reply(200, assistant(state=state)) << Fails(AnswerFailed, state) << Phase.FAILED
    assert script << CloseStream >> StreamEnded() << None >> Close() << DeleteChat


@pytest.mark.clause("OA-5.8")
@pytest.mark.parametrize("keepalive", [PING, COMMENT], ids=["event", "comment"])
def test_every_three_keepalives_the_message_is_read(story: Story, keepalive: bytes) -> None:
    one, two = StreamData(keepalive), StreamData(keepalive * 2)
    script = story.streaming() >> one >> one << None >> one << FetchMessage
    script = script >> Reply(200, assistant()) << None >> two << None >> one << FetchMessage
    assert script >> Reply(200, complete()) << Token("Hi there") << Answered(message(complete())) << CloseStream


@pytest.mark.clause("OA-5.8")
def test_a_stream_that_moves_again_is_not_checked(story: Story) -> None:
    assert story.streaming() >> StreamData(PING * 3) >> Data(token("Hi")) << Token("Hi") << None


@pytest.mark.clause("OA-5.8")
def test_the_stream_goes_on_while_the_message_is_read(story: Story) -> None:
    script = story.streaming() >> StreamData(PING * 3) << FetchMessage >> Data(token("Hi")) << Token("Hi")
    script = script >> Data(final(complete("Hi"))) << Answered(message(complete("Hi"))) << None
    assert script >> Reply(200, complete("Hi")) << Phase.ANSWERED << CloseStream


@pytest.mark.clause("OA-5.8")
def test_a_stream_that_is_lost_while_the_message_is_read_is_polled(story: Story) -> None:
    script = story.streaming() >> StreamData(PING * 3) << FetchMessage >> StreamEnded() << Phase.POLLING << None
    assert script >> RUNS << Pause(0.5) << FetchMessage


@pytest.mark.clause("OA-5.8")
@pytest.mark.parametrize(
    "outcome",
    [Lost(), Unsent(), Reply(429, headers={"retry-after": "3600"}), Reply(502), Reply(503), Reply(504)],
    ids=repr,
)
def test_a_message_that_cannot_be_read_says_nothing_of_the_stream(story: Story, outcome: Input) -> None:
    script = story.streaming()
    for _ in range(5):
        script = script >> StreamData(PING * 3) << FetchMessage >> outcome << Phase.STREAMING << None
    script = script >> Data(token("Hi")) << Token("Hi")
    assert script >> Data(final(complete("Hi"))) << Answered(message(complete("Hi"))) << CloseStream


@pytest.mark.clause("OA-5.8")
@pytest.mark.parametrize("outcome", [Reply(302), Reply(401), Reply(403), Reply(404), Reply(500)], ids=repr)
def test_a_stream_whose_message_the_server_denies_again_and_again_is_given_up(story: Story, outcome: Input) -> None:
    """For example, the chat was deleted, or the credentials have expired. The stream never says so."""
    script = story.streaming()
    for _ in range(2):
        script = script >> StreamData(PING * 3) << FetchMessage >> outcome << Phase.STREAMING << None
    script = script >> StreamData(PING * 3) << FetchMessage >> Reply(200, assistant()) << Phase.STREAMING << None
    for _ in range(2):
        script = script >> StreamData(PING * 3) << FetchMessage >> outcome << Phase.STREAMING << None
    assert script >> StreamData(PING * 3) << FetchMessage >> outcome << Phase.POLLING << CloseStream


@pytest.mark.clause("OA-8.2")
def test_a_message_that_is_none_fails_the_answer_though_the_stream_is_open(story: Story) -> None:
    script = story.streaming() >> StreamData(PING * 3) << FetchMessage >> Reply(200, "no JSON")
    assert script << Fails(RemoteProtocolError) << Phase.FAILED


# ---- limits


@pytest.mark.clause("OA-5.10")
@pytest.mark.parametrize(
    "data",
    [
        b"data: no JSON\r\n\r\n",
        b"data: \r\n\r\n",
        b'data: {"text": "there"}\r\n\r\n',
        b"data: []\r\n\r\n",
        b"data: {}\r\n\r\n",
        b'data: {"event_type": "token"}\r\n\r\n',
        b'data: {"event_type": "token", "text": "\xff"}\r\n\r\n',
        b'data: {"event_type": "token", "text": "\\ud800"}\r\n\r\n',
        b'data: {"event_type": "pending", "queue_position": "x", "queue_size": 1}\r\n\r\n',
        b'data: {"event_type": "x", "y": ' + b"[" * 500 + b"]" * 500 + b"}\r\n\r\n",
    ],
    ids=lambda data: repr(data)[:60].replace("\\", ""),
)
def test_data_that_is_no_event_fails_the_conversation(story: Story, data: bytes) -> None:
    script = story.streaming() >> Data(token("Hi")) << Token("Hi") >> StreamData(data)
    script = script << Fails(RemoteProtocolError, "not an event of this protocol") << Phase.FAILED << CloseStream
    assert script >> StreamEnded() << None >> Close() << Phase.DRAINING


@pytest.mark.clause("OA-5.10")
@pytest.mark.parametrize("data", [b"data: \r\n\r\n", b'data: {"text": "there"}\r\n\r\n'])
def test_it_does_so_among_tokens_too(story: Story, data: bytes) -> None:
    tokens = b'data: {"event_type": "token", "text": "Hi"}\r\n\r\n'
    script = story.streaming() >> StreamData(tokens + data) << Token("Hi")
    assert script << Fails(RemoteProtocolError, "not an event of this protocol") << Phase.FAILED


@pytest.mark.clause("OA-5.10")
@pytest.mark.parametrize("more", [b"[" * 499 + b"]" * 499, b'"' + b"[" * 501 + b'"', b"[" + b"{},[]," * 501 + b"1]"])
def test_json_may_be_nested_500_deep(story: Story, more: bytes) -> None:
    data = b'data: {"event_type":"token","text":"Hi","x":%s}\r\n\r\n' % more
    assert story.streaming() >> StreamData(data) << Token("Hi")


@pytest.mark.clause("OA-5.3", "OA-5.10")
def test_what_came_before_bad_data_is_emitted(story: Story) -> None:
    script = story.streaming() >> StreamData(b'data: {"event_type": "token", "text": "Hi"}\r\n\r\ndata: x\r\n\r\n')
    assert script << Token("Hi") << Fails(RemoteProtocolError)


@pytest.mark.clause("OA-5.10")
def test_an_event_over_the_limit_fails_the_conversation(story: Story) -> None:
    script = story.streaming() >> StreamData(b"data: " + b"x" * steps.MAX_EVENT)
    script = script << Fails(RemoteProtocolError, "8,388,608 bytes") << Phase.FAILED << CloseStream
    assert script >> StreamData(b"late") >> StreamEnded() << None


@pytest.mark.clause("OA-5.10")
def test_an_answer_over_the_limit_fails_the_conversation(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MAX_ANSWER", 5)
    script = story.streaming("Hel") >> Data(token("lo")) << Token("lo") >> Data(token("!")) << Token("!")
    script = script << Fails(RemoteProtocolError, "characters") << Phase.FAILED
    assert script


@pytest.mark.clause("OA-5.10")
def test_a_stream_of_empty_tokens_that_never_ends_fails_the_conversation(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = Data(token(""))
    monkeypatch.setattr(engine, "MAX_ANSWER", 0)
    monkeypatch.setattr(engine, "MAX_STREAM", 2 * len(empty.data))
    script = story.streaming() >> empty << Token("") >> empty << Token("") >> empty << Token("")
    assert script << Fails(RemoteProtocolError, "the stream has more than") << Phase.FAILED


@pytest.mark.clause("OA-5.10")
def test_the_limits_are_those_of_the_specification() -> None:
    assert steps.MAX_EVENT == 8 * 1024**2
    assert steps.MAX_ANSWER == 64 * 1024**2
    assert steps.MAX_STREAM == 128 * 1024**2
    assert MAX_NESTING == 500


@pytest.mark.clause("OA-5.10")
def test_a_body_over_the_limit_fails_the_conversation(story: Story) -> None:
    body = b'{"id": "' + b"x" * (8 * 1024 * 1024) + b'"}'
    assert story.requesting() >> Reply(200, body) << Fails(RemoteProtocolError, "more than 8,388,608 bytes")
    assert story.requesting() >> Reply(404, body) << Fails(HTTPStatusError, "404")


# ---- the final text


def outcome_of(tokens: list[str], final_text: str, *, cut: bool) -> tuple[list[Event], str]:
    """What is emitted after the tokens, and the tokens' own text."""
    script = INFERENCE.polling(*tokens) if cut else INFERENCE.streaming(*tokens)
    last = Reply(200, complete(final_text)) if cut else Data(final(complete(final_text)))
    return script.conversation.handle(last, now=0.0), "".join(tokens)


TEXTS = st.text(st.sampled_from("ab \n"), max_size=8)


@pytest.mark.clause("OA-5.6")
@given(tokens=st.lists(TEXTS, max_size=4), final_text=TEXTS, cut=st.booleans())
@example(tokens=[" Hi"], final_text="Hi there", cut=False)
@example(tokens=["Hi  "], final_text="Hi there", cut=True)
@example(tokens=["Hi \n"], final_text="Hi", cut=False)
@example(tokens=[], final_text="", cut=True)
def test_the_tokens_amount_to_the_final_text(tokens: list[str], final_text: str, cut: bool) -> None:
    (*before, last), text = outcome_of(tokens, final_text, cut=cut)
    assert last == Answered(message(complete(final_text)))
    match before:
        case []:
            assert text.strip() == final_text.strip()
        case [Token(text=rest)]:
            assert (text + rest).lstrip() == final_text.lstrip()
            assert rest
        case [Corrected() as corrected]:
            assert corrected == Corrected(final_text, cut)
            assert not final_text.startswith(text)
            assert not final_text.startswith(text.lstrip())
        case _:
            pytest.fail(f"emitted {before}")


@pytest.mark.clause("OA-5.6")
@given(tokens=st.lists(st.text(), max_size=4), rest=st.text(), cut=st.booleans())
def test_a_final_text_that_continues_the_tokens_is_never_a_correction(tokens: list[str], rest: str, cut: bool) -> None:
    tokens = [text.encode(errors="ignore").decode() for text in tokens]
    rest = rest.encode(errors="ignore").decode()
    emitted, text = outcome_of(tokens, "".join(tokens) + rest, cut=cut)
    assert emitted[:-1] == ([Token(rest)] if (text + rest).strip() != text.strip() else [])


@pytest.mark.clause("OA-5.6")
def test_a_final_text_that_contradicts_the_tokens_is_a_correction(story: Story) -> None:
    script = story.streaming("Hello <stop> wor") >> Data(final(complete("Hello")))
    assert script << Corrected("Hello", cut=False) << Answered(message(complete("Hello")))
    script = story.polling("Helo") >> Reply(200, complete("Hello"))
    assert script << Corrected("Hello", cut=True) << Answered(message(complete("Hello")))
    script = story.streaming("Helo") >> StreamData(COMMENT * 3) << FetchMessage >> Reply(200, complete("Hello"))
    assert script << Corrected("Hello", cut=True) << Answered(message(complete("Hello")))


BLOCKS = [
    *[Data(token(text)).data for text in ("Grüße ", "😀", "")],
    Data(pending()).data,
    Data({"event_type": "plugin_intermediate"}).data,
    Data({"event_type": "safe_prompt"}).data,
    Data(final(complete("Grüße"))).data,
    Data(worker_error("Timeout")).data,
    b"data: no JSON\r\n\r\n",
    b"data: \r\n\r\n",
    b"data\r\ndata\r\n\r\n",
    b'data: {"text": "no type"}\r\n\r\n',
    b'data: {"event_type": "token"}\r\n\r\n',
    b'data: {"event_type": "new", "text": "a"}\r\n\r\n',
    b'data: {"event_type": "token", "text": "\xff"}\r\n\r\n',
    b'data: {"event_type": "token",\r\ndata: "text": "a"}\r\n\r\n',
    b'data:{"text": "a", "event_type": "token", "more": [1]}\n\n',
    b'data: {"event_type": "token", "text": "a"}\r\ndata: {"event_type": "token", "text": "b"}\r\n\r\n',
    COMMENT,
    PING,
]


@pytest.mark.clause("OA-5.3")
@given(
    st.lists(st.sampled_from(BLOCKS), max_size=10).flatmap(
        lambda blocks: st.tuples(st.just(blocks), chunkings(b"".join(blocks)))
    )
)
def test_the_places_at_which_a_stream_is_cut_make_no_difference(stream: tuple[list[bytes], list[bytes]]) -> None:
    outcomes: list[tuple[list[str], Phase]] = []
    for chunks in stream:
        conversation = INFERENCE.streaming().conversation
        events = [str(event) for chunk in chunks for event in conversation.receive_stream_data(chunk, now=0.0)]
        outcomes.append((events, conversation.phase))
    assert outcomes[0] == outcomes[1]


def test_opening_a_stream_forgets_the_tries_it_took(story: Story) -> None:
    script = story.opening() >> Unsent() << Pause(0.5) << OpenStream >> StreamOpened() >> StreamEnded() << FetchMessage
    assert script >> RUNS << Pause(0.5) << FetchMessage
