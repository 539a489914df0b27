"""What is kept of refusals, and of how many models."""

from dataclasses import replace

from services.chat.domain.conversation import Turn
from services.chat.domain.models import OutputLimit, Takes
from services.chat.domain.provider import Prompt
from services.chat.providers import learning
from services.chat.providers.learning import Learnt

PROMPT = Prompt("m", (Turn("user", "word " * 100), Turn("user", "Hi")), 100, 0.5)


def test_the_oldest_lesson_gives_way_when_there_are_too_many(monkeypatch):
    monkeypatch.setattr(learning, "_MAX_MODELS", 2)
    learnt = Learnt("p")
    for name in ("first", "second", "second", "third"):
        learnt.remember(name, {"temperature": False})
    takes = {
        name: learnt.applied(replace(PROMPT, model=name)).takes.temperature
        for name in ("first", "second", "third")
    }
    assert takes == {"first": True, "second": False, "third": False}


def test_lessons_of_a_model_add_up_and_beside_what_the_file_says():
    learnt = Learnt("p")
    learnt.remember("m", {"temperature": False})
    learnt.remember("m", {"output_limit": OutputLimit.NONE, "context_window": 600})
    told = learnt.applied(replace(PROMPT, takes=Takes(stream_options=False)))
    assert told.takes == Takes(OutputLimit.NONE, temperature=False, stream_options=False)
    assert isinstance(told, Prompt)
    assert len(told.turns) == 2
    assert len(learnt.applied(replace(PROMPT, turns=PROMPT.turns * 9)).turns) < 18  # type: ignore[union-attr]
