"""What users of Pydantic AI do; prints what came, as JSON."""

import asyncio
import json
import os
import sys

from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, ModelHTTPError, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider


class Person(BaseModel):
    name: str
    age: int


def agent(model="fast", key=None, **options):
    provider = OpenAIProvider(
        base_url=os.environ["KHESHT_URL"] + "/v1", api_key=key or os.environ["KHESHT_API_KEY"]
    )
    return Agent(OpenAIChatModel(model, provider=provider), **options)


async def text():
    reply = await agent().run("Hello")
    return {"text": reply.output, "tokens": reply.usage.total_tokens}


async def stream():
    async with agent().run_stream("Hello") as reply:
        return {"pieces": [each async for each in reply.stream_text(delta=True, debounce_by=None)]}


async def tools():
    asked = []

    def weather(city: str) -> str:
        """The weather in a city."""
        asked.append(city)
        return "rain"

    reply = await agent(tools=[weather]).run("Hello")
    return {"tool": "weather", "arguments": {"city": asked[0]}, "text": reply.output}


async def structured():
    return (await agent(output_type=NativeOutput(Person)).run("Hello")).output.model_dump()


async def picture():
    image = BinaryContent(b"A" * int(os.environ["PICTURE_BYTES"]), media_type="image/png")
    return {"text": (await agent().run(["What is it?", image])).output}


async def failed(**options):
    try:
        await agent(**options).run("Hello")
    except ModelHTTPError as error:
        return {
            "error": type(error).__name__,
            "status": error.status_code,
            "code": error.body["code"],
        }
    return {"error": None}


async def wrong_key():
    return await failed(key="sk_wrong")


async def no_model():
    return await failed(model="no-such-model")


async def refused():
    return await failed()


async def abort():
    async with agent().run_stream("Hello") as reply:
        async for first in reply.stream_text(delta=True, debounce_by=None):
            return {"first": first}


async def retry():
    return await text()


print(json.dumps(asyncio.run(globals()[sys.argv[1]]())))
