"""What users of OpenAI's package for Python do; prints what came, as JSON."""

import json
import os
import sys

import openai
from pydantic import BaseModel

ASK = [{"role": "user", "content": "Hello"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
KEY = os.environ["KHESHT_API_KEY"]


class Person(BaseModel):
    name: str
    age: int


def client(**options):
    return openai.OpenAI(base_url=os.environ["KHESHT_URL"] + "/v1", **{"api_key": KEY} | options)


def text():
    reply = client().chat.completions.create(model="fast", messages=ASK)
    return {"text": reply.choices[0].message.content, "tokens": reply.usage.total_tokens}


def stream():
    chunks = client().chat.completions.create(model="fast", messages=ASK, stream=True)
    return {"pieces": [c.choices[0].delta.content for c in chunks if c.choices[0].delta.content]}


def tools():
    reply = client().chat.completions.create(model="fast", messages=ASK, tools=[TOOL])
    call = reply.choices[0].message.tool_calls[0].function
    return {"tool": call.name, "arguments": json.loads(call.arguments)}


def structured():
    reply = client().chat.completions.parse(model="fast", messages=ASK, response_format=Person)
    return reply.choices[0].message.parsed.model_dump()


def picture():
    url = "data:image/png;base64," + "A" * int(os.environ["PICTURE_BYTES"])
    content = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    messages = [{"role": "user", "content": content}]
    reply = client().chat.completions.create(model="fast", messages=messages)
    return {"text": reply.choices[0].message.content}


def failed(**options):
    model = options.pop("model", "fast")
    try:
        client(**options).chat.completions.create(model=model, messages=ASK)
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
    with client().chat.completions.create(model="fast", messages=ASK, stream=True) as chunks:
        first = next(c for c in chunks if c.choices[0].delta.content)
    return {"first": first.choices[0].delta.content}


def retry():
    return text()


print(json.dumps(globals()[sys.argv[1]]()))
