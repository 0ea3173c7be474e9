"""Turns the options ``--answers`` and ``--gguf`` into a model."""

from __future__ import annotations

import click

from oa_protocol.models import Model


def model_of(answers: str | None, gguf: str | None) -> Model:
    """Return the model that the options name.

    Raises:
        UsageError: The options don't fit together, or the model can't be used. The text says what to do.

    """
    if (gguf is not None) != (answers == "gguf"):
        raise click.UsageError("a model in a file needs both options: --answers gguf --gguf FILE")
    try:
        return _model_of(answers, gguf)
    except OSError as error:
        said = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
        raise click.UsageError(f"--answers {answers}: {said}") from error
    except (ImportError, ValueError) as error:
        raise click.UsageError(f"--answers {answers}: {error}") from error


def _model_of(answers: str | None, gguf: str | None) -> Model:
    match answers:
        case "openai":
            from oa_protocol.models import OpenAICompatible

            return OpenAICompatible()
        case "gguf" if gguf is not None:
            from oa_protocol.models import Gguf

            return Gguf(gguf)
        case "echo":
            from oa_protocol.models import Echo

            return Echo()
        case _:
            from oa_protocol.models import Lorem

            return Lorem()
