"""A provider's stream, cut into pieces anywhere."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import errors
from services.chat.domain.provider import Part, Report
from services.chat.domain.tokens import Basis, TokenKinds, Tokens
from services.chat.providers.codecs.openai import LONGEST_LINE, EventStream, WholeAnswer

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


def read(*pieces: bytes) -> tuple[str, str, EventStream]:
    """The text in `pieces`, what is written besides, and the reader."""
    reader = EventStream("openai", ASKED_FOR)
    parts = [part for piece in pieces if (part := reader.feed(piece)) is not None]
    return "".join(part.text for part in parts), "".join(part.beside for part in parts), reader


def reported(reader: EventStream) -> Report:
    """How it ended."""
    (report,) = reader.end()
    assert isinstance(report, Report)
    return report


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
    reader = EventStream("openai", ASKED_FOR)
    part = reader.feed(chunk("a") + chunk("b") + chunk("c"))
    assert isinstance(part, Part)
    assert part == Part("abc")
    assert reader.feed(b": nothing\n") is None


@pytest.mark.parametrize("end", [b"", chunk("b"), chunk("b", "stop")[:-2], b"data: {"])
def test_what_ends_early_broke_off(end: bytes):
    _, _, reader = read(chunk("a"), end)
    with pytest.raises(errors.Unavailable) as failed:
        reported(reader)
    assert failed.value.reason == "PROVIDER_BROKE_OFF"
    assert failed.value.metadata == {"provider": "openai"}


def test_what_gave_its_reason_and_then_ended_is_whole():
    text, _, reader = read(chunk("a"), chunk("b", "stop"))
    assert (text, reported(reader)) == ("ab", Report("stop", "answered", None))


@pytest.mark.parametrize(
    "broken",
    [
        b'data: {"choices": [}\n',
        b"data: \xff\xfe\n",
        b'data: "text"\n',
        b'data: {"choices": "many"}\n',
        b'data: {"choices": [{"delta": {"content": 5}}]}\n',
        b'data: {"choices": [{"delta": {"content": "\xff"}}]}\n',
        b'data: {"choices": [{"delta": {"content": "\\ud800"}}]}\n',
        b'data: {"error": {"message": "inner state"}}\n',
        b"data: " + b"[" * 5_000 + b"\n",
        b'data: {"choices": [{"delta": {"tool_calls": ' + DEEP + b"}}]}\n",
        b'data: {"choices": [], "unknown": ' + DEEP + b"}\n",
    ],
)
def test_what_is_no_chunk_ends_it_as_broken(broken: bytes):
    text, _, reader = read(chunk("a") + broken + chunk("never", "stop") + DONE)
    assert (text, reader.done) == ("a", True)
    with pytest.raises(errors.Unavailable) as failed:
        reported(reader)
    assert "inner" not in failed.value.message


def test_a_line_without_end_ends_it():
    text, _, reader = read(chunk("a"), b"data: " + b"x" * LONGEST_LINE)
    assert (text, reader.done) == ("a", True)
    with pytest.raises(errors.Unavailable):
        reported(reader)


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
    with pytest.raises(errors.Unavailable):
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
    reader = EventStream("openai", ASKED_FOR)
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
    reader = EventStream("openai", ASKED_FOR)
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
    whole = WholeAnswer("openai")
    whole.feed(body)
    parts = whole.end()
    assert next(parts) == Part("", tokens=COUNTED)
    with pytest.raises(errors.Unavailable):
        next(parts)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"usage": 5}', b'{"choices": ' + DEEP + b"}"])
def test_a_whole_answer_that_is_none_and_counts_nothing_broke_off(body: bytes):
    whole = WholeAnswer("openai")
    whole.feed(body)
    with pytest.raises(errors.Unavailable):
        next(whole.end())
