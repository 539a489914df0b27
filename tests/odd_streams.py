"""What providers really send: odd events among good ones, and the text that is in them."""

import json
import random

USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


def chunk(content: object = None, finish: object = None, **more: object) -> bytes:
    """The event of some text."""
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    told = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return event(told | {"choices": [choice]} | more)


def event(value: object) -> bytes:
    """One event of a JSON value."""
    return b"data: " + json.dumps(value).encode() + b"\n\n"


END = chunk(None, "stop") + event({"choices": [], "usage": USAGE}) + b"data: [DONE]\n\n"
# Events, and the text that is in them.
ODD: dict[str, tuple[bytes, str]] = {
    "null": (b"data: null\n\n", ""),
    "a list": (b"data: []\n\n", ""),
    "a number": (b"data: 1\n\n", ""),
    "nothing": (b"data:\n\n", ""),
    "data without a colon": (b"data\n\n", ""),
    "no choices": (b'data: {"choices": null}\n\n', ""),
    "a comment as data": (b"data: : keepalive\n\n", ""),
    "broken": (b'data: {"choices": [}\n\n', ""),
    "comments": (b": PROCESSING\n\n:\n\n", ""),
    "other fields": (b"event: ping\nid: 7\nretry: 5\nodd\n: data\n\n", ""),
    "no index": (chunk("x").replace(b'"index": 0', b'"index": null'), "x"),
    "no space": (chunk("x").replace(b"data: ", b"data:"), "x"),
    "data in data": (b"data: " + chunk("x"), "x"),
    "line ends": (
        chunk("x").replace(b"\n\n", b"\r\n\r\n") + chunk("y").replace(b"\n\n", b"\r\r"),
        "xy",
    ),
    "several lines": (b'data: {"choices": [{"delta":\ndata: {"content": "x"}}]}\n\n', "x"),
    "no delta": (event({"choices": [{"index": 0, "delta": None}]}), ""),
    "parts": (chunk([{"type": "text", "text": "x"}, "y"]), "xy"),
    "no calls": (
        event({"choices": [{"index": 0, "delta": {"content": "x", "tool_calls": None}}]}),
        "x",
    ),
    "an empty reason": (chunk("x", ""), "x"),
    "counts that are none": (
        chunk("x", usage={"prompt_tokens": None, "completion_tokens": "many"}),
        "x",
    ),
    "counts that are large": (
        chunk("x", usage="?").replace(
            b'"?"', b'{"prompt_tokens": 1e400, "completion_tokens": %s}' % (b"9" * 5_000)
        ),
        "x",
    ),
    "counts in other forms": (
        chunk("x", usage={"prompt_tokens": 11.0, "completion_tokens": "7"}),
        "x",
    ),
    "a cut emoji": (chunk("\ud83d") + chunk("\ude00"), "😀"),
    "half an emoji": (chunk("\ud83d") + chunk("x"), "\ufffdx"),
    "no text": (b'data: {"choices": [{"delta": {"content": "x\xff"}}]}\n\n', "x\ufffd"),
    "half a line": (chunk("é").replace(b"\\u00e9", "é".encode()), "é"),
}


def among_good_ones(name: str) -> tuple[bytes, str]:
    """A whole stream with what is odd in its middle, and its text."""
    odd, text = ODD[name]
    return chunk("Hello ") + odd + chunk(" there") + END, f"Hello {text} there"


def all_at_once() -> tuple[bytes, str]:
    """A whole stream with all that is odd, and its text."""
    stream = b"".join(odd + chunk("|") for odd, _ in ODD.values())
    return b"\xef\xbb\xbf" + stream + END, "".join(text + "|" for _, text in ODD.values())


def sizes(seed: int) -> list[int]:
    """Sizes of pieces, of a few bytes and of many."""
    drawn = random.Random(seed)
    return [drawn.choice((1, 2, 3, 7, 40, 200, 1_000)) for _ in range(50)]
