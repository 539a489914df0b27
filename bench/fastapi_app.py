"""What people write instead: FastAPI and the openai package, by their tutorials.

It authenticates by one fixed key, validates by pydantic, relays tokens as
server-sent events, and keeps nothing. Run as `python -m bench.fastapi_app PORT`.
"""

import json
import os
import sys
from collections.abc import AsyncIterator
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from openai import AsyncOpenAI
from pydantic import BaseModel, Field

KEY = os.environ["BENCH_KEY"]
app = FastAPI()
client = AsyncOpenAI(max_retries=0)
bearer = HTTPBearer()


class Turn(BaseModel):
    """One turn."""

    role: str
    content: str = Field(max_length=10_000)


class Ask(BaseModel):
    """A request."""

    messages: list[Turn] = Field(max_length=50)
    model: str
    max_tokens: int | None = None


def authenticated(sent: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]) -> None:
    """Refuses all but the one key."""
    if sent.credentials != KEY:
        raise HTTPException(401)


@app.post("/chat/conversation", dependencies=[Depends(authenticated)])
async def conversation(ask: Ask) -> dict[str, object]:
    """A whole reply."""
    reply = await client.chat.completions.create(**ask.model_dump(exclude_none=True))
    usage = reply.usage.model_dump(exclude_none=True) if reply.usage else {}
    return {"message": reply.choices[0].message.content, "model": reply.model, "usage": usage}


@app.post("/api/v1/chat/stream", dependencies=[Depends(authenticated)])
async def stream(ask: Ask) -> StreamingResponse:
    """A streamed reply."""
    return StreamingResponse(_events(ask), media_type="text/event-stream")


async def _events(ask: Ask) -> AsyncIterator[str]:
    full = ""
    options = {"include_usage": True}
    chunks = await client.chat.completions.create(
        **ask.model_dump(exclude_none=True), stream=True, stream_options=options
    )
    async for chunk in chunks:
        if chunk.choices and chunk.choices[0].delta.content:
            full += chunk.choices[0].delta.content
            yield f"data: {json.dumps({'token': chunk.choices[0].delta.content})}\n\n"
    yield f"data: {json.dumps({'done': True, 'full_text': full})}\n\n"


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
