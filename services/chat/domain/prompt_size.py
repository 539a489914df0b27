"""How many tokens a prompt has: about, to charge where nobody counted, and at most, to hold for."""

import base64
import binascii
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import imagesize
import msgspec

from mesh import errors
from services.chat.domain.conversation import Turn
from services.chat.domain.models import ImageTokens
from services.chat.domain.token_estimate import estimate, rounded

# Around each turn (OpenAI cookbook, "How to count tokens"), about and at most.
_TOKENS_AROUND_A_TURN = 4
_MOST_AROUND_A_TURN = 8
# The most that a provider counts for a picture, of a small model (OpenAI, 2026).
_MOST_OF_AN_IMAGE = 50_000
# Of a file that a provider already has: about what the largest context windows hold.
_MOST_OF_A_FILE = 200_000
# Ten tokens a second (OpenAI, "Audio and speech"), of 48 kB of WAV or 16 kB of MP3; at most
# ten times as many.
_BYTES_PER_AUDIO_TOKEN = {"wav": 4_800}
_BYTES_PER_COMPRESSED_AUDIO_TOKEN = 1_600
_FEWEST_BYTES_PER_AUDIO_TOKEN = 100
# The size of a picture stands at its beginning, behind what a camera says of it.
_IMAGE_HEAD_CHARACTERS = 256 << 10
# A picture that is only named is taken for one of this size.
_USUAL_IMAGE = (1024, 1024)
_TILE_PIXELS = 512


@dataclass(frozen=True, slots=True)
class PromptSize:
    """Tokens of a prompt, about and at most, and whether some are sound."""

    tokens: int
    bound: int
    audio: bool = False


def of_turns(turns: Sequence[Turn]) -> PromptSize:
    """Of turns of text."""
    tokens = sum(tokens_of_turn(turn) for turn in turns)
    return PromptSize(rounded(tokens), bound_of_turns(turns))


def tokens_of_turn(turn: Turn) -> float:
    """About how many tokens a turn of text has."""
    return estimate(turn.content) + _TOKENS_AROUND_A_TURN


def bound_of_turns(turns: Sequence[Turn]) -> int:
    """The most tokens that turns of text have: each token has a byte or more."""
    return sum(len(turn.content.encode()) + _MOST_AROUND_A_TURN for turn in turns)


def of_request(fields: Mapping[str, msgspec.Raw], images: ImageTokens) -> PromptSize:
    """Of a request in OpenAI's format, pictures and sound by what providers publish of them.

    Raises InvalidRequest for messages that are nested too deep.
    """
    try:
        messages = msgspec.json.decode(fields["messages"])
    except RecursionError:  # It was read with a few frames less on the stack.
        raise errors.invalid("messages", "nested too deep", reason="MALFORMED_REQUEST") from None
    tokens = float(_TOKENS_AROUND_A_TURN * len(messages))
    bound = sum(len(memoryview(field)) for field in fields.values())
    audio = False
    for name in ("tools", "functions", "response_format"):
        if name in fields:
            tokens += estimate(bytes(fields[name]).decode())
    for part in _parts(messages):
        match part:
            case str():
                tokens += estimate(part)
            case {"type": "image_url", "image_url": image}:
                url, detail = _image(image)
                tokens += _of_image(url, detail, images)
                bound += _MOST_OF_AN_IMAGE - (len(url) if url.startswith("data:") else 0)
            case {"type": "input_audio", "input_audio": {"data": str(data), "format": kind}}:
                audio = True
                size = len(data) * 3 // 4
                per_token = _BYTES_PER_AUDIO_TOKEN.get(str(kind), _BYTES_PER_COMPRESSED_AUDIO_TOKEN)
                tokens += size / per_token
                bound += size // _FEWEST_BYTES_PER_AUDIO_TOKEN - len(data)
            case {"type": "file"}:
                bound += _MOST_OF_A_FILE
    return PromptSize(rounded(tokens), bound, audio)


def _parts(messages: list[Any]) -> Iterator[Any]:
    """Texts, and parts that are no text, of all messages."""
    for message in messages:
        if not isinstance(message, dict):
            continue
        content = message.get("content")
        for part in content if isinstance(content, list) else [content]:
            text = part.get("text") if isinstance(part, dict) else part
            yield text if isinstance(text, str) else part
        calls = message.get("tool_calls")
        for call in calls if isinstance(calls, list) else []:
            function = call.get("function") if isinstance(call, dict) else None
            yield from _strings(function)
        yield from _strings(message.get("function_call"))


def _strings(function: object) -> Iterator[str]:
    if isinstance(function, dict):
        yield from (value for value in function.values() if isinstance(value, str))


def _image(image: object) -> tuple[str, object]:
    if isinstance(image, dict):
        url = image.get("url")
        return url if isinstance(url, str) else "", image.get("detail")
    return image if isinstance(image, str) else "", None


def _of_image(url: str, detail: object, images: ImageTokens) -> int:
    """Tokens of a picture (OpenAI, "Images and vision"): by the tiles that it is cut into.

    It is made to fit into 2,048 pixels each way first, and its shorter side into 768.
    """
    if detail == "low":
        return images.base
    width, height = _pixels(url)
    scale = min(1.0, 2048 / max(width, height))
    scale = min(scale, 768 / min(width, height))
    tiles = math.prod(math.ceil(side * scale / _TILE_PIXELS) for side in (width, height))
    return images.base + images.tile * tiles


def _pixels(url: str) -> tuple[int, int]:
    head, _, data = url[:_IMAGE_HEAD_CHARACTERS].partition(";base64,")
    if not head.startswith("data:"):
        return _USUAL_IMAGE
    try:
        known = imagesize.get(io.BytesIO(base64.b64decode(data[: len(data) // 4 * 4])))
        width, height = int(known[0]), int(known[1])
    except (binascii.Error, ValueError, OSError, LookupError, ArithmeticError):
        return _USUAL_IMAGE
    return (width, height) if width > 0 and height > 0 else _USUAL_IMAGE
