"""What a prompt is taken for: tokens about, and at most."""

import base64
import json
import struct

import msgspec
import pytest

from mesh import errors
from services.chat.domain.conversation import Turn
from services.chat.domain.models import ImageTokens
from services.chat.domain.prompt_size import PromptSize, of_request, of_turns

GPT_4O = ImageTokens(85, 170)


def png(width: int, height: int, size: int = 142_500) -> str:
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII5B", 13, b"IHDR", width, height, 8, 2, 0, 0, 0)
    data = base64.b64encode(head.ljust(size, b"\0")).decode()
    return f"data:image/png;base64,{data}"


def drawing(svg: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def size_of(*content: object, **fields: object) -> PromptSize:
    body = {"messages": [{"role": "user", "content": list(content)}], **fields}
    given = {name: msgspec.Raw(json.dumps(value).encode()) for name, value in body.items()}
    return of_request(given, GPT_4O)


def picture(url: str, **more: str) -> dict:
    return {"type": "image_url", "image_url": {"url": url, **more}}


@pytest.mark.parametrize(
    ("image", "tokens"),
    [
        # As OpenAI's guide "Images and vision" counts them.
        (picture(png(1024, 1024)), 765),
        (picture(png(2048, 4096)), 1105),
        (picture(png(4096, 8192), detail="low"), 85),
        (picture(png(100, 100)), 255),
        (picture("https://example.com/cat.png"), 765),
        (picture("data:image/png;base64,no picture"), 765),
        (picture("data:image/png;base64,"), 765),
        (picture(png(0, 0)), 765),
        # Less than a pixel.
        (picture(drawing('<svg width="0.2" height="0.5"/>')), 765),
        (picture(drawing('<svg width="512" height="512"/>')), 255),
        ({"type": "image_url", "image_url": None}, 765),
    ],
)
def test_a_picture_counts_by_its_tiles_and_not_by_its_bytes(image: dict, tokens: int):
    size = size_of(image)
    assert size.tokens == tokens + 4
    assert 50_000 <= size.bound < 50_200
    assert not size.audio


def test_sound_counts_by_its_length():
    data = base64.b64encode(bytes(480_000)).decode()  # Ten seconds.
    size = size_of({"type": "input_audio", "input_audio": {"data": data, "format": "wav"}})
    assert (size.tokens, size.audio) == (104, True)
    assert 100 < size.bound < 6_000


def test_texts_tools_and_calls_count_by_what_they_say():
    text = {"type": "text", "text": "word " * 100}
    assert size_of(text).tokens == 104
    assert size_of(text, tools=[{"function": {"name": "word " * 50}}]).tokens > 150
    assert size_of("word " * 100).tokens == 104


@pytest.mark.parametrize("odd", [None, 5, [], [5], {"type": 5}, {"type": "text", "text": 5}])
def test_what_is_odd_counts_for_its_bytes_at_most(odd: object):
    size = size_of(odd)
    assert size.tokens <= size.bound


def test_what_is_nested_too_deep_is_refused():
    deep = msgspec.Raw(b"[" * 100_000 + b"]" * 100_000)
    with pytest.raises(errors.InvalidRequest) as refused:
        of_request({"messages": deep}, GPT_4O)
    assert refused.value.reason == "MALFORMED_REQUEST"


def test_a_file_that_the_provider_has_may_be_anything():
    assert size_of({"type": "file", "file": {"file_id": "f"}}).bound > 200_000


def test_turns_count_by_their_text():
    assert of_turns([Turn("user", "word " * 100)]) == PromptSize(104, 508)
    assert of_turns([Turn("user", "字")]) == PromptSize(5, 11)
