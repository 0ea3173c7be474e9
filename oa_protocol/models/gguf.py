"""Answers from a model in a GGUF file, in this process and without a network. It needs the extra ``local``."""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
from collections.abc import AsyncGenerator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import import_module
from os import PathLike
from pathlib import Path

from oa_protocol.models._completions import body_of, read_chunk
from oa_protocol.models.base import AnswerRequest, Finish, ModelError, Piece

_CONTEXT = 8192
"""The longest conversation, in tokens. It bounds the memory that a model with a very long context would take."""

_BATCH = 16
"""How many tokens of a prompt are read at a time. Generating can be stopped between two batches."""


class Gguf:
    """Answers from a model in a GGUF file, by llama.cpp.

    It uses one thread, because several are slower on a machine that does other things, too. So it writes one answer at
    a time, and the others wait. It needs asyncio.

    Args:
        path: The path of the file. It is loaded at once, which takes a second or more.

    Raises:
        OSError: The file can't be opened.
        ValueError: It isn't a GGUF file, or llama.cpp can't load it.
        ImportError: The extra ``local`` isn't installed.

    """

    def __init__(self, path: str | PathLike[str]) -> None:
        file = Path(path)
        with file.open("rb") as start:
            if start.read(4) != b"GGUF":
                raise ValueError(f"{file} is not a GGUF file")
        try:
            xllamacpp = import_module("xllamacpp")
        except ImportError:
            raise ImportError("a local model needs xllamacpp: pip install 'oa_protocol[local]'") from None
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(file)
        parameters.n_ctx = _CONTEXT
        parameters.n_batch = parameters.n_ubatch = _BATCH
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = parameters.n_parallel = 1
        parameters.cache_ram_mib = 0  # Otherwise, finished conversations are kept in up to 8 GiB of memory.
        parameters.api_keys = [secrets.token_hex()]  # The library listens on loopback, too. We don't use that.
        parameters.verbosity = -1
        try:
            self._llama = xllamacpp.Server(parameters)
        except RuntimeError:
            raise ValueError(f"{file} can't be loaded: it is damaged, or llama.cpp doesn't know this model") from None
        self._thread = ThreadPoolExecutor(1, "oa_protocol.gguf")

    async def answer(self, request: AnswerRequest) -> AsyncGenerator[Piece, None]:
        """Yield the text as it is generated, and the reason for its end."""
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[bytes | None] = asyncio.Queue()
        unwanted = threading.Event()

        def deliver(chunk: bytes) -> bool:
            loop.call_soon_threadsafe(chunks.put_nowait, chunk)
            return unwanted.is_set()

        def end(_: Future[None]) -> None:
            loop.call_soon_threadsafe(chunks.put_nowait, None)

        # With the progress, ``deliver`` is called while the prompt is read, too, so that can be stopped.
        body = json.dumps({**body_of(request), "return_progress": True}).encode()
        job: Future[None] = self._thread.submit(self._llama.handle_chat_completions, body, deliver)
        job.add_done_callback(end)
        try:
            while (chunk := await chunks.get()) is not None:
                for piece in read_chunk(chunk):
                    yield piece
                    if isinstance(piece, Finish):
                        return
        finally:
            unwanted.set()
            if not job.cancel():  # It is running, so wait until it notices.
                await asyncio.wait([asyncio.wrap_future(job)])
        raise ModelError(f"the local model failed: {job.exception() or 'it gave no reason for the end of its answer'}")
