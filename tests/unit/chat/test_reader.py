"""A provider's stream, cut into pieces anywhere."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import errors
from services.chat.domain.provider import Part, Report
from services.chat.providers.reader import LONGEST_LINE, Reader

ASKED_FOR = "asked-for"


def chunk(content: str | None = None, finish: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    told = {"model": "answered", "choices": [choice], **more}
    return b"data: " + json.dumps(told, ensure_ascii=False).encode() + b"\n\n"


USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}\n\n'
DONE = b"data: [DONE]\n\n"
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


def read(*pieces: bytes) -> tuple[str, int, Reader]:
    """The text in `pieces`, in how many parts it was written, and the reader."""
    reader = Reader("openai")
    parts = [part for piece in pieces if (part := reader.read(piece)) is not None]
    return "".join(part.text for part in parts), sum(part.pieces for part in parts), reader


@pytest.mark.parametrize("at", range(len(WHOLE) + 1))
def test_it_is_read_alike_wherever_it_is_cut(at: int):
    text, pieces, reader = read(WHOLE[:at], WHOLE[at:])
    assert (text, pieces, reader.done) == (TEXT, 3, True)
    assert reader.report(ASKED_FOR) == Report("stop", "answered", (3, 4))


def test_it_is_read_alike_byte_by_byte():
    text, pieces, reader = read(*(WHOLE[at : at + 1] for at in range(len(WHOLE))))
    assert (text, pieces, reader.done) == (TEXT, 3, True)
    assert reader.report(ASKED_FOR) == Report("stop", "answered", (3, 4))


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))), st.data()
)
def test_any_text_comes_through_any_cuts(texts: list[str], data: st.DataObject):
    stream = b"".join(map(chunk, texts)) + chunk(None, "stop") + DONE
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    text, count, reader = read(*pieces)
    assert text == "".join(texts)
    assert count == len([each for each in texts if each])
    assert reader.done


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_end_it(noise: bytes):
    text, _, reader = read(chunk("a"), noise, b"\n", chunk("b"))
    assert text.startswith("a")
    assert reader.done or text.endswith("b")


def test_what_comes_together_is_one_part_of_many_pieces():
    reader = Reader("openai")
    part = reader.read(chunk("a") + chunk("b") + chunk("c"))
    assert isinstance(part, Part)
    assert (part.text, part.pieces) == ("abc", 3)
    assert reader.read(b": nothing\n") is None


@pytest.mark.parametrize("end", [b"", chunk("b"), chunk("b", "stop")[:-2], b"data: {"])
def test_what_ends_early_broke_off(end: bytes):
    _, _, reader = read(chunk("a"), end)
    with pytest.raises(errors.Unavailable) as failed:
        reader.report(ASKED_FOR)
    assert failed.value.reason == "PROVIDER_BROKE_OFF"
    assert failed.value.metadata == {"provider": "openai"}


def test_what_gave_its_reason_and_then_ended_is_whole():
    text, _, reader = read(chunk("a"), chunk("b", "stop"))
    assert (text, reader.report(ASKED_FOR)) == ("ab", Report("stop", "answered", None))


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
        b'data: {"usage": {"prompt_tokens": "three"}}\n',
        b"data: " + b"[" * 5_000 + b"\n",
    ],
)
def test_what_is_no_chunk_ends_it_as_broken(broken: bytes):
    text, pieces, reader = read(chunk("a") + broken + chunk("never", "stop") + DONE)
    assert (text, pieces, reader.done) == ("a", 1, True)
    with pytest.raises(errors.Unavailable) as failed:
        reader.report(ASKED_FOR)
    assert "inner" not in failed.value.message


def test_a_line_without_end_ends_it():
    text, _, reader = read(chunk("a"), b"data: " + b"x" * LONGEST_LINE)
    assert (text, reader.done) == ("a", True)
    with pytest.raises(errors.Unavailable):
        reader.report(ASKED_FOR)


def test_what_comes_after_the_end_is_not_read():
    text, _, reader = read(chunk("a", "stop") + DONE + chunk("b"), chunk("c"))
    assert (text, reader.done) == ("a", True)


def test_only_the_first_choice_counts_and_nul_is_left_out():
    deltas = [{"index": 0, "delta": {"content": "a\0b"}}, {"index": 1, "delta": {"content": "c"}}]
    two = {"choices": deltas}
    text, _, _ = read(b"data:" + json.dumps(two).encode() + b"\n")
    assert text == "ab"


def test_without_a_model_of_its_own_it_is_the_one_asked_for():
    _, _, reader = read(b'data: {"choices": [{"finish_reason": "length"}]}\n')
    assert reader.report(ASKED_FOR) == Report("length", "asked-for", None)


def test_a_list_of_thoughts_and_texts_is_read_for_its_texts():
    content = [{"type": "thinking", "thinking": [{"text": "hm"}]}, {"type": "text", "text": "Hi"}]
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": "stop"}
    text, pieces, reader = read(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n")
    assert (text, pieces, reader.report(ASKED_FOR).finish_reason) == ("Hi", 1, "stop")


def several(*choices: tuple[int, str | None]) -> bytes:
    told = [{"index": index, "delta": {}, "finish_reason": finish} for index, finish in choices]
    return b"data: " + json.dumps({"choices": told}).encode() + b"\n\n"


def test_of_several_choices_each_has_to_end():
    cut = several((0, None), (1, None)) + several((0, "stop"))
    _, _, reader = read(cut)
    with pytest.raises(errors.Unavailable):
        reader.report(ASKED_FOR)
    _, _, reader = read(cut, several((1, "length")), several((0, None)), DONE)
    assert reader.report(ASKED_FOR).finish_reason == "length"
