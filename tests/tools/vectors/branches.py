"""Other answers and other prompts, chats that exist already, and chats that stay."""

from __future__ import annotations

from collections.abc import Iterator

from oa_protocol.engine.inputs import Keep, Prompt, Regenerate

from .notation import (
    ANSWER,
    ANSWER_2,
    BOTH,
    CHAT,
    CREATED,
    KEPT,
    NEWER,
    OLDER,
    PROMPT,
    PROMPT_2,
    Case,
    answered,
    assistant,
    chat,
    emitted,
    happened,
    leaked,
    prompter,
    sse,
    the_end,
    token,
)

_HELLO = prompter()
_HI = assistant("complete", "Hi")
_HI_AGAIN = assistant("complete", "Hi again", ANSWER_2)
_REQUESTED = emitted("Requested", message_id=ANSWER_2)
_PROMPTED = emitted("Prompted", message_id=PROMPT_2)


def _answers() -> Iterator[Case]:
    for api in BOTH:

        def regenerating(name: str, *clauses: str, api: str = api, **config: object) -> Case:
            case = Case(api, f"another answer, {api}: {name}", *clauses, **config)  # type: ignore[arg-type]
            return case.answered().regenerate().asks("RequestAssistant")

        def lost(name: str, api: str = api) -> Case:
            case = regenerating(name, "OA-6.14", api=api)
            return case.lost(to="REQUEST_LOST").asks("FetchChat")

        streaming = regenerating("it is requested under the same prompt", "OA-3.5")
        streaming.reply(200, {"id": ANSWER_2}, _REQUESTED, to="ASSISTANT_REQUESTED").asks("OpenStream").opens()
        streaming.data(
            sse(the_end("Hi again", message_id=ANSWER_2)),
            token("Hi again"),
            answered("Hi again", ANSWER_2),
            to="ANSWERED",
        )
        yield streaming.closes_stream().leaves()
        found = assistant("in_progress", None, ANSWER_2)
        yield (
            lost("after a lost reply the new one is adopted")
            .reply(200, chat(found, _HI, _HELLO), _REQUESTED, to="ASSISTANT_REQUESTED")
            .asks("OpenStream")
        )
        yield (
            lost("after a lost request the earlier one is not adopted")
            .reply(200, chat(_HELLO, _HI), to="PROMPTED")
            .pauses(0.5)
            .asks("RequestAssistant")
        )
        yield (
            Case(api, f"another answer, {api}: to a prompt that is named", "OA-3.5")
            .answered()
            .regenerate(PROMPT_2)
            .asks("RequestAssistant")
        )
        yield (
            Case(api, f"another answer, {api}: there is no prompt yet", "OA-3.5")
            .refuses(happened(Regenerate))
            .creating()
        )


def _prompts() -> Iterator[Case]:
    older = prompter(PROMPT_2, "More", ANSWER)
    ours = prompter(NEWER, "More", ANSWER)
    for api in BOTH:

        def lost(name: str, api: str = api) -> Case:
            case = Case(api, f"another prompt, {api}: {name}", "OA-3.4", "OA-6.14", chat_id=CHAT)  # type: ignore[arg-type]
            case.enters(_HELLO, _HI, older, parent_id=ANSWER).prompt("More", after=ANSWER).asks("SendPrompt")
            return case.lost(to="PROMPT_LOST").asks("FetchChat")

        yield (
            lost("an older one with the same words is not adopted")
            .reply(200, chat(_HELLO, _HI, older), to="ANSWERED")
            .pauses(0.5)
            .asks("SendPrompt")
        )
        yield lost("the new one is adopted").reply(
            200, chat(ours, _HELLO, _HI, older), emitted("Prompted", message_id=NEWER), to="PROMPTED"
        )
        yield (
            Case(api, f"another prompt, {api}: after an earlier answer", "OA-3.4")
            .answered()
            .prompt("More", after=OLDER)
            .asks("SendPrompt")
        )
        yield (
            Case(api, f"another prompt, {api}: a second first one is refused", "OA-3.4", chat_id=CHAT)
            .enters(_HELLO, assistant("timeout"), to="CHAT_CREATED", parent_id=None)
            .refuses(happened(Prompt, text="Hello"))
            .regenerate(PROMPT)
            .asks("RequestAssistant")
        )


def _existing() -> Iterator[Case]:
    tree = _HELLO, _HI, _HI_AGAIN, prompter(PROMPT_2, "More", ANSWER), assistant("cancelled", None, NEWER, PROMPT_2)
    for api in BOTH:

        def opening(name: str, api: str = api) -> Case:
            return Case(api, f"an existing chat, {api}: {name}", "OA-3.6", chat_id=CHAT)  # type: ignore[arg-type]

        for name, tail_id, parent_id in (
            ("its branch ends where it says", ANSWER_2, ANSWER_2),
            ("its branch goes on below that", ANSWER, ANSWER),
            ("without that, the newest message counts", None, ANSWER),
        ):
            case = opening(name).enters(*tree, tail_id=tail_id, parent_id=parent_id)
            yield case.prompt("Next").asks("SendPrompt")
        second = assistant("aborted_by_worker", None, ANSWER_2)
        case = opening("another answer to the same prompt counts").enters(_HELLO, _HI, second, parent_id=ANSWER)
        yield case.prompt("Next").asks("SendPrompt")
        case = opening("it is empty").enters(to="CHAT_CREATED", parent_id=None)
        yield case.prompt("Hello").asks("SendPrompt")


def _kept() -> Iterator[Case]:
    for api in BOTH:

        def case(name: str, api: str = api, **config: object) -> Case:
            return Case(api, f"a chat that stays, {api}: {name}", "OA-7.9", **config)  # type: ignore[arg-type]

        yield case("it is told so at the beginning", keep=True).answered().close(KEPT, to="KEPT").asks_nothing()
        yield case("it is told so later").answered().keep().close(KEPT, to="KEPT").asks_nothing()
        yield case("it is told otherwise", keep=True).answered().keep(keep=False).leaves()
        yield case("it is given up").answered().keep().abandon(KEPT, to="KEPT")
        streaming = case("its stream is closed", keep=True).streaming("Hi").close(to="POLLING").closing_stream()
        streaming.step({"type": "StreamEnded"}, KEPT, to="KEPT")
        yield streaming
        lost = case("a lost create is named", keep=True).creating().lost().pauses(0.5).asks("CreateChat")
        lost.reply(200, {"id": CHAT}, CREATED, to="CHAT_CREATED")
        yield lost.close(KEPT, leaked(None), to="LEAKED")
        yield case("it is too late").answered().leaving().refuses(happened(Keep)).gone()


def cases() -> Iterator[Case]:
    yield from _answers()
    yield from _prompts()
    yield from _existing()
    yield from _kept()
