"""A provider's stream, cut into pieces anywhere."""

import json
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chat.domain import completion
from services.chat.domain.conversation import Turn
from services.chat.domain.provider import Part, Prompt, Relay, Report
from services.chat.domain.tokens import Basis, TokenKinds, Tokens
from services.chat.providers.codecs.codec import BrokeOff, Decoder, TooLarge
from services.chat.providers.codecs.failure import Failed
from services.chat.providers.codecs.openai import OpenAI
from services.chat.providers.codecs.stream import MAX_LINE_BYTES
from tests.odd_streams import ODD

ASKED_FOR = "asked-for"


def chunk(content: str | None = None, finish: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    told = {"model": "answered", "choices": [choice], **more}
    return b"data: " + json.dumps(told, ensure_ascii=False).encode() + b"\n\n"


USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}\n\n'
DONE = b"data: [DONE]\n\n"
# Deeper than any interpreter goes: 3.13 takes ten thousand, 3.11 one.
DEEP = b"[" * 100_000 + b"]" * 100_000
WHOLE = b"".join(
    (
        b": a comment\n\n",
        chunk("Hél"),
        chunk("lo\n🙂", extra={"nested": [1, {"a": None}]}),
        b"event: ping\r\nid: 7\r\n\r\n",
        chunk('\\ " data: [DONE] \u2028').replace(b"\n\n", b"\r\n\r\n"),
        chunk(None, "stop"),
        USAGE,
        DONE,
    )
)
TEXT = 'Héllo\n🙂\\ " data: [DONE] \u2028'


COUNTED = Tokens(3, 4, Basis.PROVIDER)


PROMPT = Prompt(ASKED_FOR, (Turn("user", "Hi"),), 100, None)


def relay(*, stream: bool, usage: bool = False, warning: str = "") -> Relay:
    asked = {"model": "m", "messages": [{}], "stream": stream}
    options = {"stream_options": {"include_usage": usage}} if stream else {}
    body = completion.read(json.dumps(asked | options).encode())
    return Relay(UUID(int=1), ASKED_FOR, body, datetime.now(UTC), None, warning=warning)


STREAM, WHOLE_RELAY = relay(stream=True), relay(stream=False)


def read(*pieces: bytes, of: Prompt | Relay = PROMPT) -> tuple[str, str, Decoder]:
    """The text in `pieces`, what is written besides, and the decoder."""
    decoder = OpenAI().decoder(of)
    parts = []
    for piece in pieces:
        if decoder.done:
            break
        parts.append(decoder.feed(piece))
    told = [part for part in parts if part is not None]
    return "".join(part.text for part in told), "".join(part.beside for part in told), decoder


def reported(decoder: Decoder) -> Report:
    """How it ended."""
    *_, report = decoder.end()
    assert isinstance(report, Report)
    return report


def outcome(*pieces: bytes, of: Prompt | Relay = PROMPT) -> tuple[str, str, bytes, object]:
    """All that comes of `pieces`: texts, what is passed on, and how it ended."""
    decoder = OpenAI().decoder(of)
    parts: list[Part | None] = []
    ending: object = None
    for piece in pieces:
        if decoder.done:
            break
        parts.append(decoder.feed(piece))
    try:
        for each in decoder.end():
            if isinstance(each, Part):
                parts.append(each)
            else:
                ending = each
    except Failed as failed:
        ending = failed.failure
    except (BrokeOff, TooLarge) as error:
        ending = type(error)
    told = [part for part in parts if part is not None]
    return (
        "".join(part.text for part in told),
        "".join(part.beside for part in told),
        b"".join(part.raw for part in told),
        ending,
    )


@pytest.mark.parametrize("at", range(len(WHOLE) + 1))
def test_it_is_read_alike_wherever_it_is_cut(at: int):
    text, beside, reader = read(WHOLE[:at], WHOLE[at:])
    assert (text, beside, reader.done) == (TEXT, "", True)
    assert reported(reader) == Report("stop", "answered", COUNTED)


def test_it_is_read_alike_byte_by_byte():
    text, beside, reader = read(*(WHOLE[at : at + 1] for at in range(len(WHOLE))))
    assert (text, beside, reader.done) == (TEXT, "", True)
    assert reported(reader) == Report("stop", "answered", COUNTED)


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))), st.data()
)
def test_any_text_comes_through_any_cuts(texts: list[str], data: st.DataObject):
    stream = b"".join(map(chunk, texts)) + chunk(None, "stop") + DONE
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    text, _, reader = read(*pieces)
    assert text == "".join(texts)
    assert reader.done


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_end_it(noise: bytes):
    text, _, reader = read(chunk("a"), noise, b"\n", chunk("b"))
    assert text.startswith("a")
    assert reader.done or text.endswith("b")


def test_what_comes_together_is_one_part():
    reader = OpenAI().decoder(PROMPT)
    part = reader.feed(chunk("a") + chunk("b") + chunk("c"))
    assert isinstance(part, Part)
    assert part == Part("abc")
    assert reader.feed(b": nothing\n") is None


@pytest.mark.parametrize("end", [chunk("b", "stop")[:-2], chunk("b") + b"data: [DONE]"])
def test_a_last_line_may_lack_its_end(end: bytes):
    text, _, reader = read(chunk("a"), end)
    text += "".join(each.text for each in reader.end() if isinstance(each, Part))
    assert text == "ab"


@pytest.mark.parametrize("said", [{"message": {"content": "Hi"}}, {"text": "Hi"}])
@pytest.mark.parametrize("odd", [{}, {"index": "0"}])
def test_a_text_that_is_in_no_delta_is_read(said: dict, odd: dict):
    choice = {"finish_reason": "stop"} | said | odd
    whole = b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"
    assert read(whole)[0] == "Hi"
    # Some repeat all of it at the end.
    assert read(chunk("Hi"), whole)[0] == "Hi"


def test_what_ended_by_an_error_has_not_finished():
    assert outcome(chunk("a"), chunk("b", "error"))[3] is BrokeOff


@pytest.mark.parametrize("end", [b"", chunk("b"), chunk("b", "stop")[:-3], b"data: {"])
def test_what_ends_early_broke_off(end: bytes):
    assert outcome(chunk("a"), end)[3] is BrokeOff


def test_what_gave_its_reason_and_then_ended_is_whole():
    text, _, reader = read(chunk("a"), chunk("b", "stop"))
    assert (text, reported(reader)) == ("ab", Report("stop", "answered", None))


@pytest.mark.parametrize(
    "broken",
    [
        b"data:",
        b"data: null",
        b"data: []",
        b"data: 1",
        b"data: {}",
        b"data: : keepalive",
        b'data: {"choices": [}',
        b"data: \xff\xfe",
        b'data: "text"',
        b'data: {"choices": null}',
        b'data: {"choices": "many"}',
        b'data: {"choices": [null, 5]}',
        b'data: {"choices": [{"delta": null}]}',
        b'data: {"choices": [{"delta": "no"}]}',
        b'data: {"choices": [{"index": "many", "delta": {}}]}',
        b'data: {"choices": [{"delta": {"content": 5, "tool_calls": null}}]}',
        b'data: {"choices": [{"finish_reason": ""}]}',
        b'data: {"choices": [{"finish_reason": 7}], "model": 7}',
        b'data: {"error": null, "choices": []}',
        b'data: {"error": {}}',
        b"data: " + b"[" * 5_000,
        b'data: {"choices": [{"delta": {"tool_calls": ' + DEEP + b"}}]}",
        b'data: {"choices": [], "unknown": ' + DEEP + b"}",
        b'data: {"choices": [], "usage": null}',
        b'data: {"choices": [], "usage": {"prompt_tokens": null}}',
        b'data: {"type": "ping"}\ndata: {"id": 5}',
        b"event: ping\nid: 7\nretry: 5\nunknown\ndata\ndata:",
    ],
)
@pytest.mark.parametrize("end", [b"\n\n", b"\n", b"\r\n\r\n", b"\r\r"], ids=repr)
def test_an_odd_event_among_good_ones_is_passed_over_and_passed_on(broken: bytes, end: bytes):
    stream = chunk("a") + broken + end + chunk("b", "stop") + DONE
    said = Report("stop", "answered", None)
    assert outcome(stream)[::3] == ("ab", said)
    pieces = [stream[at : at + 50_000] for at in range(0, len(stream), 50_000)]
    assert outcome(*pieces)[::3] == ("ab", said)
    text, _, raw, ending = outcome(stream, of=STREAM)
    assert (text, ending) == ("ab", said)
    assert raw.startswith(chunk("a"))
    assert raw.endswith(chunk("b", "stop"))
    for payload in (line[5:].strip() for line in broken.split(b"\n") if line.startswith(b"data:")):
        is_object = payload.startswith(b"{") and payload.endswith(b"}") and DEEP not in payload
        is_object &= b"[}" not in payload
        told = (b"data: " if is_object else b": data: ") + payload.decode(errors="replace").encode()
        assert told + b"\n\n" in raw or b"usage" in payload


@pytest.mark.parametrize(
    ("odd", "text"),
    [
        ('{"choices": [{"index": null, "delta": {"content": "x"}}]}', "x"),
        ('{"choices": [{"index": "0", "delta": {"content": "x"}}]}', "x"),
        ('{"choices": [{"index": 0.0, "delta": {"content": "x"}}]}', "x"),
        ('{"choices": {"delta": {"content": "x"}}}', "x"),
        ('{"choices": [{"delta": {"content": "x"}}], "usage": {"prompt_tokens": 1e400}}', "x"),
        ('{"choices": [{"delta": {"content": ["x", {"type": "text", "text": "y"}, 5]}}]}', "xy"),
        ('{"choices": [{"delta": {"content": {"text": "x"}}}]}', "x"),
        ('{"choices": [{"delta": {"content": "x", "tool_calls": "odd"}}]}', "x"),
        ('{"choices": [{"delta": {"content": "x\tnew\x01line"}}]}', "x\tnew\x01line"),
        ('{"choices": [{"delta": {"content": "\\ud83d"}}]}', "\ufffd"),
        ('{"choices": [{"delta": {"content": "\\ude00\\ud83dx"}}]}', "\ufffd\ufffdx"),
        ('{"choices": [{"delta": {"content": "x", "role": 5}, "logprobs": NaN}]}', "x"),
        (f'{{"choices": [{{"delta": {{"content": "x"}}}}], "created": {"9" * 5_000}}}', "x"),
        (
            f'{{"choices": [{{"delta": {{"content": "x"}}, "usage": {{"prompt_tokens": {"9" * 5_000}}}}}]}}',
            "x",
        ),
    ],
)
def test_what_can_be_read_of_an_odd_chunk_is_read(odd: str, text: str):
    stream = chunk("a") + b"data: " + odd.encode() + b"\n\n" + chunk("b", "stop") + DONE
    got, _, _, ending = outcome(*(stream[at : at + 7] for at in range(0, len(stream), 7)))
    assert got == f"a{text}b"
    assert isinstance(ending, Report)


def test_bytes_that_are_no_text_are_marked():
    odd = b'data: {"choices": [{"delta": {"content": "x\xffy"}}]}\n\n'
    assert outcome(odd + chunk("b", "stop"))[0] == "x\ufffdyb"


def halves(*texts: str) -> bytes:
    told = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in texts]
    return b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in told)


def test_the_halves_of_a_character_are_joined():
    stream = halves("a\ud83d", "\ude00b", "\ud83d", "c", "\ud83d")
    for of in (PROMPT, STREAM):
        text, _, raw, ending = outcome(stream + chunk(None, "stop") + DONE, of=of)
        assert text == "a😀b\ufffdc\ufffd"
        assert isinstance(ending, Report)
    assert raw.startswith(stream)  # Who reads them joins them too.
    assert outcome(stream + chunk("d", "stop") + DONE)[0] == "a😀b\ufffdc\ufffdd"


@pytest.mark.parametrize("end", [DONE, b"data: [DONE]\n", b"data:[DONE]\n\n", b"data: [DONE] \r\n"])
def test_without_a_reason_what_is_done_has_stopped(end: bytes):
    for of in (PROMPT, STREAM):
        assert outcome(chunk("a") + end, of=of)[::3] == ("a", Report("stop", "answered", None))
    assert outcome(end)[::3] == ("", Report("stop", ASKED_FOR, None))


def test_a_mark_of_byte_order_is_passed_over():
    for stream in (b"\xef\xbb\xbf" + WHOLE, b"\n \n" + WHOLE, b"\xef\xbb\xbf\n" + WHOLE):
        assert outcome(*(stream[at : at + 1] for at in range(len(stream))))[0] == TEXT


def test_an_event_of_several_lines_is_one_value():
    lines = json.dumps(json.loads(chunk("a")[6:]), indent=1).encode().split(b"\n")
    event = b"\n".join(b"data: " + line for line in lines) + b"\n\n"
    for of in (PROMPT, STREAM):
        text, _, raw, _ = outcome(event + chunk("b", "stop") + DONE, of=of)
        assert text == "ab"
    assert raw == event + chunk("b", "stop")


def test_events_without_an_empty_line_between_them_are_read():
    stream = chunk("a") + b"data: {broken\n" + chunk("b") + b"data: {broken\n" + chunk("c", "stop")
    stream = stream.replace(b"\n\n", b"\n") + b"data: [DONE]\n"
    assert outcome(stream)[::3] == ("abc", Report("stop", "answered", None))


@pytest.mark.parametrize(("length", "whole"), [(MAX_LINE_BYTES, True), (MAX_LINE_BYTES + 1, False)])
@pytest.mark.parametrize("comment", [False, True])
def test_how_long_a_line_may_be_does_not_depend_on_its_cuts(
    length: int, whole: bool, comment: bool
):
    line = (b": " if comment else b"data: ").ljust(length, b"x")
    stream = chunk("a") + line + b"\n\n" + chunk("b", "stop") + DONE
    for size in (len(stream), 65_536, 4_093):
        got = outcome(*(stream[at : at + size] for at in range(0, len(stream), size)))
        assert got[::3] == (("ab", Report("stop", "answered", None)) if whole else ("a", BrokeOff))


def test_a_line_without_end_ends_it():
    text, _, reader = read(chunk("a"), b"data: " + b"x" * MAX_LINE_BYTES)
    assert (text, reader.done) == ("a", True)


def test_a_megabyte_in_single_bytes_costs_no_more_than_its_bytes():
    line = b"data: " + b"x" * 300_000
    assert outcome(chunk("a"), *(line[at : at + 1] for at in range(len(line))))[3] is BrokeOff


def test_what_comes_after_the_end_is_not_read():
    text, _, reader = read(chunk("a", "stop") + DONE + chunk("b"), chunk("c"))
    assert (text, reader.done) == ("a", True)


def test_only_the_first_choice_counts_and_nul_is_left_out():
    deltas = [{"index": 0, "delta": {"content": "a\0b"}}, {"index": 1, "delta": {"content": "c"}}]
    two = {"choices": deltas}
    text, beside, _ = read(b"data:" + json.dumps(two).encode() + b"\n")
    assert (text, beside) == ("ab", "c")  # But all are paid for.


def test_without_a_model_of_its_own_it_is_the_one_asked_for():
    _, _, reader = read(b'data: {"choices": [{"finish_reason": "length"}]}\n')
    assert reported(reader) == Report("length", "asked-for", None)


def test_a_list_of_thoughts_and_texts_is_read_for_its_texts():
    content = [{"type": "thinking", "thinking": [{"text": "hm"}]}, {"type": "text", "text": "Hi"}]
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": "stop"}
    text, beside, reader = read(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n")
    assert (text, beside, reported(reader).finish_reason) == ("Hi", "hm", "stop")


def several(*choices: tuple[int, str | None]) -> bytes:
    told = [{"index": index, "delta": {}, "finish_reason": finish} for index, finish in choices]
    return b"data: " + json.dumps({"choices": told}).encode() + b"\n\n"


def test_of_several_choices_each_has_to_end():
    cut = several((0, None), (1, None)) + several((0, "stop"))
    _, _, reader = read(cut)
    with pytest.raises(BrokeOff):
        reported(reader)
    _, _, reader = read(cut, several((1, "length")), several((0, None)), DONE)
    assert reported(reader).finish_reason == "length"


@pytest.mark.parametrize(
    ("delta", "counted"),
    [
        ({"reasoning_content": "hm, "}, "hm, "),
        ({"reasoning": "hm", "reasoning_details": [{"type": "t", "text": "hm"}]}, "hm"),
        ({"reasoning_details": [{"type": "reasoning.text", "text": "hm"}]}, "hm"),
        ({"refusal": "No."}, "No."),
        (
            {
                "tool_calls": [
                    {"index": 0, "id": "call_1", "function": {"name": "f", "arguments": "{}"}}
                ]
            },
            "f{}",
        ),
        ({"function_call": {"name": "f", "arguments": "{}"}}, "f{}"),
        ({"reasoning": 5, "tool_calls": {"odd": ["a", None, 1]}}, "a"),
        ({"role": "assistant", "content": ""}, ""),
    ],
)
def test_what_is_written_besides_the_text_is_counted_in_any_form(delta, counted: str):
    told = {"choices": [{"index": 0, "delta": delta}]}
    text, beside, reader = read(b"data: " + json.dumps(told).encode() + b"\n")
    assert (text, beside, reader.done) == ("", counted, False)


def test_usage_on_the_way_is_told_with_what_was_written_after_it():
    interim = {"choices": [{"index": 0, "delta": {"content": "b"}}], "usage": {"prompt_tokens": 3}}
    reader = OpenAI().decoder(PROMPT)
    part = reader.feed(chunk("a") + b"data: " + json.dumps(interim).encode() + b"\n" + chunk("c"))
    assert part == Part("abc", "", b"", Tokens(3, 0, Basis.PROVIDER), "c")


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (None, None),
        ([], None),
        ({"prompt_tokens": 0, "completion_tokens": None}, None),
        ({"prompt_tokens": "3", "completion_tokens": 4.0}, COUNTED),
        ({"prompt_tokens": True, "completion_tokens": "many"}, None),
        ({"prompt_tokens": -1, "completion_tokens": 5}, Tokens(0, 5, Basis.PROVIDER)),
        ({"input_tokens": 3, "output_tokens": 4}, COUNTED),
        (
            {
                "prompt_tokens": 1000,
                "completion_tokens": 40,
                "prompt_tokens_details": {"cached_tokens": 900, "audio_tokens": 20},
                "completion_tokens_details": {"reasoning_tokens": 30, "audio_tokens": 50},
            },
            Tokens(1000, 40, Basis.PROVIDER, TokenKinds(900, 0, 30, 20, 10)),
        ),
        (
            {"prompt_tokens": 10, "completion_tokens": 4, "prompt_cache_hit_tokens": 99},
            Tokens(10, 4, Basis.PROVIDER, TokenKinds(cached_read=10)),
        ),
        (
            {"prompt_tokens": 10, "completion_tokens": 4, "cache_creation_input_tokens": 6},
            Tokens(10, 4, Basis.PROVIDER, TokenKinds(cached_write=6)),
        ),
        (  # Thoughts that are in the sum alone.
            {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 30},
            Tokens(10, 20, Basis.PROVIDER, TokenKinds(reasoning=16)),
        ),
    ],
)
def test_usage_is_read_in_any_form_that_providers_have(usage, tokens: Tokens | None):
    ending = b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n"
    _, _, reader = read(chunk("a", "stop"), ending, DONE)
    assert reported(reader).tokens == tokens


def test_groq_has_a_place_of_its_own_for_usage():
    told = {"choices": [], "x_groq": {"usage": {"prompt_tokens": 3, "completion_tokens": 4}}}
    _, _, reader = read(chunk("a", "stop"), b"data: " + json.dumps(told).encode() + b"\n")
    assert reported(reader).tokens == COUNTED


def test_moonshot_says_usage_in_a_choice():
    used = {"prompt_tokens": 3, "completion_tokens": 4}
    choice = {"index": 0, "delta": {}, "finish_reason": "stop", "usage": used}
    _, _, reader = read(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n")
    assert reported(reader).tokens == COUNTED


def test_usage_is_told_when_it_comes_and_not_only_with_text():
    reader = OpenAI().decoder(PROMPT)
    reader.feed(chunk("a"))
    assert reader.feed(USAGE) == Part("", tokens=COUNTED)
    assert reader.feed(b": nothing\n") is None


@pytest.mark.parametrize("odd", [b'"choices": null', b'"choices": [{"index": null}]'])
def test_what_is_null_is_as_if_it_were_left_out(odd: bytes):
    text, _, reader = read(chunk("a") + b"data: {" + odd + b"}\n\n" + chunk("b", "stop") + USAGE)
    assert (text, reported(reader).tokens) == ("ab", COUNTED)


@pytest.mark.parametrize(
    "body",
    [
        b'{"choices": [{"finish_reason": "content_filter"}], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}',
        b'{"error": {}, "usage": {"prompt_tokens": 3, "completion_tokens": 4}}',
    ],
)
def test_a_whole_answer_that_is_none_is_charged_as_it_was_counted(body: bytes):
    _, _, decoder = read(body, of=WHOLE_RELAY)
    parts = decoder.end()
    assert next(parts) == Part("", tokens=COUNTED)
    with pytest.raises(BrokeOff):
        next(parts)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"<html>", b'{"usage": 5}', b'{"choices": ' + DEEP + b"}"]
)
@pytest.mark.parametrize("of", [PROMPT, STREAM, WHOLE_RELAY])
def test_an_answer_that_is_none_and_counts_nothing_broke_off(body: bytes, of: Prompt | Relay):
    assert outcome(body, of=of)[3] is BrokeOff


MESSAGE = {
    "role": "assistant",
    "content": "Hé",
    "tool_calls": [{"id": "c", "function": {"name": "f"}}],
}
ANSWER = {
    "id": "c",
    "object": "chat.completion",
    "model": "answered",
    "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "length"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4},
}


def test_a_whole_answer_in_place_of_a_stream_is_passed_on_as_one():
    body = b"\n\n " + json.dumps(ANSWER, indent=1).encode()
    said = Report("length", "answered", COUNTED)
    for of, events in ((PROMPT, 0), (STREAM, 1), (relay(stream=True, usage=True, warning="w"), 2)):
        text, beside, raw, ending = outcome(
            *(body[at : at + 9] for at in range(0, len(body), 9)), of=of
        )
        assert (text, beside, ending) == ("Hé", "f", said)
        told = [json.loads(event[6:]) for event in raw.split(b"\n\n")[:-1]]
        assert len(told) == events
    assert told[0]["object"] == "chat.completion.chunk"
    assert told[0]["warning"] == "w"
    (choice,) = told[0]["choices"]
    assert (choice["delta"]["content"], choice["finish_reason"]) == ("Hé", "length")
    assert choice["delta"]["tool_calls"][0]["index"] == 0
    assert (told[1]["choices"], told[1]["usage"]) == ([], ANSWER["usage"])


def test_a_stream_in_place_of_a_whole_answer_is_put_together():
    calls = [
        {
            "tool_calls": [
                {
                    "index": 1,
                    "id": "d",
                    "type": "function",
                    "function": {"name": "g", "arguments": ""},
                }
            ]
        },
        {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"x"'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ": 5}"}}]},
        {"role": "assistant", "content": "H", "reasoning_content": "a"},
        {"content": "é", "reasoning_content": "b"},
    ]
    told = [
        {"id": "c", "model": "answered", "choices": [{"index": 0, "delta": each}]} for each in calls
    ]
    told += [{"choices": [{"index": 1, "delta": {"content": "z"}, "finish_reason": "length"}]}]
    events = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in told)
    stream = b": comment\n\n" + events + chunk(None, "stop") + USAGE + DONE
    of = relay(stream=False, warning="w")
    text, _, raw, ending = outcome(*(stream[at : at + 9] for at in range(0, len(stream), 9)), of=of)
    assert (text, ending) == ("Héz", Report("stop", "answered", COUNTED))
    whole = json.loads(raw)
    assert (whole["object"], whole["id"], whole["warning"]) == ("chat.completion", "c", "w")
    assert whole["usage"] == {"prompt_tokens": 3, "completion_tokens": 4}
    first, second = whole["choices"]
    assert (first["message"]["content"], first["message"]["reasoning_content"]) == ("Hé", "ab")
    made = {call["id"]: call["function"] for call in first["message"]["tool_calls"]}
    assert made == {
        "c": {"name": "f", "arguments": '{"x": 5}'},
        "d": {"name": "g", "arguments": ""},
    }
    assert (first["finish_reason"], second["finish_reason"]) == ("stop", "length")


def test_a_stream_of_nothing_is_an_empty_answer():
    for stream in (DONE, b"data: {}\n\n" + DONE, chunk(None, "stop")):
        text, _, raw, ending = outcome(stream, of=WHOLE_RELAY)
        (choice,) = json.loads(raw)["choices"]
        assert (text, choice["message"]["role"], choice["finish_reason"]) == (
            "",
            "assistant",
            "stop",
        )
        assert isinstance(ending, Report)


ODD_ANSWERS = (
    '{"choices": [{"message": {"content": "x"}, "finish_reason": null, "index": null}]}',
    '{"choices": {"message": {"content": ["x"], "tool_calls": null}}}',
    '{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 1e400}, "model": null}',
    f'{{"choices": [{{"message": {{"content": "x"}}}}], "created": {"9" * 5_000}}}',
    '\ufeff{"choices": [{"message": {"content": "x"}}], "error": null}',
)


@pytest.mark.parametrize("body", ODD_ANSWERS)
def test_an_odd_whole_answer_is_read_and_passed_on_as_it_came(body: str):
    text, _, raw, ending = outcome(body.encode(), of=WHOLE_RELAY)
    assert (text, raw) == ("x", body.removeprefix("\ufeff").encode())
    assert isinstance(ending, Report)
    assert ending.finish_reason == "stop"


@given(st.data())
def test_a_whole_answer_is_read_alike_wherever_it_is_cut(data: st.DataObject):
    body = json.dumps(ANSWER).encode()
    for stream in (body, WHOLE):
        for of in (PROMPT, STREAM, WHOLE_RELAY):
            cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
            pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
            assert outcome(*pieces, of=of) == outcome(stream, of=of)


@pytest.mark.parametrize("depth", [100, 900, 3_000, 100_000])
@pytest.mark.parametrize("of", [PROMPT, STREAM, WHOLE_RELAY, relay(stream=True, warning="w")])
def test_what_is_nested_deep_is_read_or_breaks_off(depth: int, of: Prompt | Relay):
    for deep in ('{"a":' * depth + "1" + "}" * depth, "[" * depth + "]" * depth):
        delta = f'{{"content": "x", "odd": {deep}}}'
        answer = (
            f'{{"choices": [{{"message": {delta}, "delta": {delta}}}], "odd": {deep}}}'.encode()
        )
        for stream in (
            answer,
            chunk("a") + b"data: " + answer + b"\n\n" + chunk("b", "stop") + DONE,
        ):
            text, _, _, ending = outcome(stream, of=of)
            assert isinstance(ending, Report) or ending is BrokeOff
            assert depth > 100 or "x" in text


FRAGMENTS = st.sampled_from(
    [
        *(odd for odd, _ in ODD.values()),
        *(b"\r", b"\n", b"\r\n", b"data:", b"data: ", b"{", b"}", b"event: error", b"\xef\xbb\xbf"),
        *(b"[DONE]", b'"', b"\\ud83d", b": ", chunk("a"), chunk("b", "stop"), USAGE, DONE),
        b'data: {"error": {"message": "no", "code": 429}}\n\n',
        json.dumps(ANSWER).encode(),
    ]
)


@given(st.lists(FRAGMENTS | st.binary(max_size=5), max_size=12), st.data())
def test_whatever_comes_is_read_alike_wherever_it_is_cut(
    fragments: list[bytes], data: st.DataObject
):
    stream = b"".join(fragments)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    singly = [stream[at : at + 1] for at in range(len(stream))]
    for of in (PROMPT, STREAM, WHOLE_RELAY):
        expected = outcome(stream, of=of)
        assert outcome(*pieces, of=of) == expected
        assert outcome(*singly, of=of) == expected
