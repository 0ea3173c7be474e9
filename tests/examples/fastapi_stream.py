"""A web service that streams answers to browsers. Set OA_URL and OA_COOKIES, and run it::

    uvicorn tests.examples.fastapi_stream:app
    curl -N 'http://127.0.0.1:8000/answer?prompt=Hello'

If the browser disconnects, the chat is deleted.
"""

import os
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse

from oa_protocol import Chat, Client

app = FastAPI()


async def new_chat() -> AsyncIterator[Chat]:
    """Yield a chat of the request's own.

    FastAPI leaves this block when the response has been sent, or when the browser has disconnected. Then the chat is
    deleted, or named in a warning.
    """
    async with Client(os.environ["OA_URL"], cookies=os.environ["OA_COOKIES"]) as client, client.chat() as chat:
        yield chat


@app.get("/answer")
async def answer(prompt: str, chat: Annotated[Chat, Depends(new_chat)]) -> StreamingResponse:
    """Stream the answer, piece by piece."""
    return StreamingResponse(chat.stream(prompt), media_type="text/plain; charset=utf-8")
