"""What a model is given, what it yields, and the protocol ``Model``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any, Literal, Protocol

from msgspec import Struct


class Turn(Struct, frozen=True):
    """One earlier message, on the path from the chat's first prompt to the prompt that is answered."""

    role: Literal["prompter", "assistant"]
    content: str


class Sampling(Struct, frozen=True, kw_only=True):
    """The sampling parameters of a request, by the server's names. None means that the model chooses.

    Values of ``max_new_tokens`` count tokens of the model. The server's default is 1024.
    """

    top_k: int | None = None
    top_p: float | None = None
    typical_p: float | None = None
    temperature: float | None = None
    repetition_penalty: float | None = None
    max_new_tokens: int = 1024


class AnswerRequest(Struct, frozen=True, kw_only=True):
    """What a model answers: a prompt, and everything that came with it.

    Attributes:
        prompt: The text of the prompt.
        history: The chat's earlier messages, oldest first.
        model: The name of the model that the client asked for, for example ``OA_SFT_Llama_30B_6``. A model that answers
            under all names ignores it.
        sampling: The sampling parameters.
        seed: The seed that the server chose for this answer, below 2**64.
        system_prompt: Instructions that come before the conversation.
        user_profile: What the user says about themselves.
        user_response_instructions: How the user wants to be answered.
        plugins: The plugins that may be used, as on the wire: ``url``, ``enabled``, ``plugin_config``, ``trusted``.

    """

    prompt: str
    history: tuple[Turn, ...] = ()
    model: str = ""
    sampling: Sampling = Sampling()
    seed: int | None = None
    system_prompt: str | None = None
    user_profile: str | None = None
    user_response_instructions: str | None = None
    plugins: tuple[Mapping[str, Any], ...] = ()

    @property
    def messages(self) -> list[dict[str, str]]:
        """The conversation in the form of chat models: ``{"role": "system" | "user" | "assistant", "content": …}``."""
        about = self.user_profile and f"About the user: {self.user_profile}"
        wishes = self.user_response_instructions and f"How to answer: {self.user_response_instructions}"
        system = "\n\n".join(filter(None, (self.system_prompt, about, wishes)))
        turns = [*self.history, Turn("prompter", self.prompt)]
        said = [{"role": "user" if turn.role == "prompter" else "assistant", "content": turn.content} for turn in turns]
        return [{"role": "system", "content": system}, *said] if system else said


class PluginStep(Struct, frozen=True):
    """One step of a plugin's work. The stream shows it as ``plugin_intermediate`` and an empty token."""

    thought: str
    action: str
    input: str
    response: str


class Finish(Struct, frozen=True):
    """Why the answer ends, as its last piece. Without one, the reason is ``eos_token``. Only workers send it."""

    reason: Literal["length", "eos_token", "stop_sequence"]


Piece = str | PluginStep | Finish
"""What a model yields: the text of a token, a step of a plugin, or at the end the reason for it."""


class ModelError(Exception):
    """The model can't answer. The error's text is sent to the client, so it must not contain secrets."""


class Model(Protocol):
    """Writes answers, several at a time."""

    def answer(self, request: AnswerRequest) -> AsyncGenerator[Piece, None]:
        """Answer a request.

        Write it as an async generator. It runs in the event loop of the server or worker, so it must not block the
        loop. When the answer is no longer wanted, because its chat was deleted, its message was aborted or the server
        stops, the generator is cancelled or closed at once. Stop the generation in a ``finally``.

        Args:
            request: The prompt, and everything that came with it.

        Yields:
            The pieces of the answer. If there are none, the answer is empty.

        Raises:
            ModelError: The message is aborted with the error's text. Any other exception does the same, and is logged
                with its traceback.

        """
        ...
