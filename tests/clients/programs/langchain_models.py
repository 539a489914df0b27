"""What users of LangChain do; prints what came, as JSON."""

import json
import os
import sys

import openai
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


class Person(BaseModel):
    name: str
    age: int


def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


def model(**options):
    told = {"model": "fast", "api_key": os.environ["KHESHT_API_KEY"]} | options
    return ChatOpenAI(base_url=os.environ["KHESHT_URL"] + "/v1", **told)


def text():
    reply = model().invoke("Hello")
    return {"text": reply.content, "tokens": reply.usage_metadata["total_tokens"]}


def stream():
    return {"pieces": [chunk.content for chunk in model().stream("Hello") if chunk.content]}


def tools():
    call = model().bind_tools([weather]).invoke("Hello").tool_calls[0]
    return {"tool": call["name"], "arguments": call["args"]}


def structured():
    return model().with_structured_output(Person).invoke("Hello").model_dump()


def picture():
    url = "data:image/png;base64," + "A" * int(os.environ["PICTURE_BYTES"])
    content = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    return {"text": model().invoke([HumanMessage(content)]).content}


def failed(**options):
    try:
        model(**options).invoke("Hello")
    except openai.APIStatusError as error:
        return {"error": type(error).__name__, "status": error.status_code, "code": error.code}
    return {"error": None}


def wrong_key():
    return failed(api_key="sk_wrong")


def no_model():
    return failed(model="no-such-model")


def refused():
    return failed()


def limited():
    return failed(max_retries=0)


def abort():
    chunks = model().stream("Hello")
    first = next(chunk.content for chunk in chunks if chunk.content)
    chunks.close()
    return {"first": first}


def retry():
    return text()


print(json.dumps(globals()[sys.argv[1]]()))
