"""Models that do not take what others do: by the models file, and learnt from their refusals."""

import json
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from mesh import errors
from services.chat.domain.conversation import Turn
from services.chat.domain.models import OutputLimit, SystemRole, Takes
from services.chat.domain.provider import Prompt
from tests.fake_openai import FakeOpenAI, Script
from tests.integration.chat.routing import PROMPT, account, asked, model, relay, routing, text_of
from tests.odd_streams import event

TURNS = (Turn("system", "Be brief."), Turn("user", "Hello"), Turn("assistant", "Hi"))
FULL = replace(PROMPT, turns=(*TURNS, Turn("user", "Who?")), temperature=0.5)
ASKED_BY_DEVELOPER = replace(PROMPT, turns=(Turn("developer", "Be brief."), Turn("user", "Who?")))


def refusing(message: str, **more: Any) -> Script:
    """A provider's 400, as OpenAI words it."""
    error = {"message": message, "type": "invalid_request_error", **more}
    return Script(status=400, body=json.dumps({"error": error}))


async def bodies(
    provider: FakeOpenAI, prompt: Prompt, takes: Takes | None = None, times: int = 1
) -> list[dict[str, Any]]:
    """What the provider is sent, in order."""
    of = replace(model("p"), takes=takes) if takes else model("p")
    async with routing(account("p", provider), models=(of,)) as router:
        for _ in range(times):
            assert text_of(await asked(router, of, prompt)) == "Hello, world!"
    return [request.body for request in provider.requests]


@pytest.mark.parametrize(
    ("takes", "there", "gone"),
    [
        (Takes(), {"max_tokens": 100, "temperature": 0.5}, {"max_completion_tokens"}),
        (
            Takes(OutputLimit.MAX_COMPLETION_TOKENS),
            {"max_completion_tokens": 100},
            {"max_tokens"},
        ),
        (Takes(OutputLimit.NONE), {"temperature": 0.5}, {"max_tokens", "max_completion_tokens"}),
        (Takes(temperature=False), {"max_tokens": 100}, {"temperature"}),
        (Takes(stream_options=False), {"stream": True}, {"stream_options"}),
    ],
    ids=["all", "other limit", "no limit", "temperature", "stream_options"],
)
async def test_what_a_model_takes_is_what_it_is_sent(
    provider: FakeOpenAI, takes: Takes, there: dict[str, object], gone: set[str]
):
    (body,) = await bodies(provider, FULL, takes)
    assert {name: body[name] for name in there} == there
    assert not gone & set(body)


@pytest.mark.parametrize(
    ("role", "said"),
    [
        (None, ["system: Be brief.", "user: Hello", "assistant: Hi", "user: Who?"]),
        ("system", ["system: Be brief.", "user: Hello", "assistant: Hi", "user: Who?"]),
        ("developer", ["developer: Be brief.", "user: Hello", "assistant: Hi", "user: Who?"]),
        ("none", ["user: Be brief.\n\nHello", "assistant: Hi", "user: Who?"]),
    ],
)
async def test_what_a_model_is_told_first_has_the_role_that_it_takes(
    provider: FakeOpenAI, role: str | None, said: list[str]
):
    takes = Takes(system_role=SystemRole(role) if role else None)
    (body,) = await bodies(provider, FULL, takes)
    assert [f"{each['role']}: {each['content']}" for each in body["messages"]] == said


REFUSALS = {
    "OpenAI, limit": (
        FULL,
        refusing(
            "Unsupported parameter: 'max_tokens' is not supported with this model."
            " Use 'max_completion_tokens' instead.",
            param="max_tokens",
            code="unsupported_parameter",
        ),
        lambda body: "max_tokens" not in body and body["max_completion_tokens"] == 100,
        'output_limit = "max_completion_tokens"',
    ),
    "OpenAI, temperature": (
        FULL,
        refusing(
            "Unsupported value: 'temperature' does not support 0.5 with this model."
            " Only the default (1) value is supported.",
            param="temperature",
            code="unsupported_value",
        ),
        lambda body: "temperature" not in body,
        "temperature = false",
    ),
    "older server, stream_options": (
        FULL,
        refusing("Unrecognized request argument supplied: stream_options"),
        lambda body: "stream_options" not in body,
        "stream_options = false",
    ),
    "OpenAI, no system": (
        FULL,
        refusing(
            "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
            param="messages[0].role",
        ),
        lambda body: body["messages"][0] == {"role": "user", "content": "Be brief.\n\nHello"},
        'system_role = "none"',
    ),
    "template, no system": (
        FULL,
        refusing("System role not supported"),
        lambda body: body["messages"][0] == {"role": "user", "content": "Be brief.\n\nHello"},
        'system_role = "none"',
    ),
    "no developer": (
        ASKED_BY_DEVELOPER,
        refusing("'developer' is not one of ['system', 'assistant', 'user'] - 'messages.0.role'"),
        lambda body: body["messages"][0] == {"role": "system", "content": "Be brief."},
        'system_role = "system"',
    ),
    "no developer, by the field": (
        ASKED_BY_DEVELOPER,
        refusing(
            "Invalid value: 'developer'. Supported values are: 'system', 'assistant'.",
            param="messages[0].role",
        ),
        lambda body: body["messages"][0] == {"role": "system", "content": "Be brief."},
        'system_role = "system"',
    ),
    "no developer, in an enumeration": (
        ASKED_BY_DEVELOPER,
        refusing(
            "Invalid enum value. Expected 'system' | 'user', received 'developer'",
            param="messages[0].role",
        ),
        lambda body: body["messages"][0] == {"role": "system", "content": "Be brief."},
        'system_role = "system"',
    ),
    "no system, by the field": (
        FULL,
        refusing("Input should be 'user' or 'assistant'", param="messages.0.role"),
        lambda body: body["messages"][0] == {"role": "user", "content": "Be brief.\n\nHello"},
        'system_role = "none"',
    ),
    "no system, turns that alternate": (
        FULL,
        refusing("Please ensure that multiturn requests alternate between user and model."),
        lambda body: body["messages"][0] == {"role": "user", "content": "Be brief.\n\nHello"},
        'system_role = "none"',
    ),
    "developer instead": (
        FULL,
        refusing("The role 'system' is not supported; use 'developer' instead."),
        lambda body: body["messages"][0] == {"role": "developer", "content": "Be brief."},
        'system_role = "developer"',
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
async def test_a_refusal_is_learnt_once_and_told_how_to_spare(provider: FakeOpenAI, case: str):
    prompt, refusal, is_right, line = REFUSALS[case]
    provider.first[:] = [refusal]
    with capture_logs() as logs:
        refused, *rest = await bodies(provider, prompt, times=3)
    assert not is_right(refused)
    assert len(rest) == 3
    assert all(is_right(body) for body in rest)
    told = [each for each in logs if "write" in each]
    assert [(each["provider"], each["model"], each["write"]) for each in told] == [("p", "p", line)]


async def test_a_refusal_in_an_answer_of_status_200_is_learnt_too(provider: FakeOpenAI):
    error = {"message": "Unsupported parameter", "code": 400, "param": "max_tokens"}
    provider.first[:] = [Script(exact=(event({"error": error}),))]
    _, body, again = await bodies(provider, PROMPT, times=2)
    assert "max_tokens" not in body
    assert "max_tokens" not in again


async def test_several_things_are_learnt_by_one_call(provider: FakeOpenAI):
    provider.first[:] = [REFUSALS["OpenAI, limit"][1], REFUSALS["OpenAI, temperature"][1]]
    with capture_logs() as logs:
        *_, last = await bodies(provider, FULL)
    assert len(provider.requests) == 3
    assert last["max_completion_tokens"] == 100
    assert "temperature" not in last
    (line,) = [each["write"] for each in logs if "write" in each]
    assert line == 'output_limit = "max_completion_tokens", temperature = false'


@pytest.mark.parametrize(
    "message",
    [
        "temperature must be between 0 and 2",
        "max_tokens is too large: 100",
        "Your prompt is not allowed here",
        "The model `p` does not exist",
    ],
)
async def test_other_refusals_are_told_at_once(provider: FakeOpenAI, message: str):
    provider.script = refusing(message)
    async with routing(account("p", provider)) as router:
        with pytest.raises(errors.FailedPrecondition, match="p: "):
            await asked(router, "p", FULL)
    assert len(provider.requests) == 1


async def test_what_does_not_help_is_not_remembered(provider: FakeOpenAI):
    """A server that names a field and goes on refusing; the next call is sent as ever."""
    provider.script = refusing("Unsupported parameter: 'max_tokens'")
    async with routing(account("p", provider)) as router:
        with pytest.raises(errors.FailedPrecondition):
            await asked(router, "p", FULL)
        tried = len(provider.requests)
        assert tried <= 3
        provider.script = Script()
        await asked(router, "p", FULL)
    assert provider.requests[-1].body["max_tokens"] == 100


async def test_what_a_caller_wrote_in_openais_format_is_theirs(provider: FakeOpenAI):
    """Only what we add ourselves is left out: usage that is asked for, and a budget's limit."""
    provider.first[:] = [REFUSALS["older server, stream_options"][1]]
    async with routing(account("p", provider)) as router:
        await asked(router, "p", relay(stream=True))
        assert [("stream_options" in each.body) for each in provider.requests] == [True, False]
        provider.requests.clear()
        provider.first[:] = [REFUSALS["OpenAI, limit"][1]]
        await asked(router, "p", relay(stream=True).limited(50))
        limits = [("max_tokens", 50), ("max_completion_tokens", 50)]
        assert [each.body[name] for each, (name, _) in zip(provider.requests, limits, strict=True)]
        provider.requests.clear()
        provider.script = REFUSALS["OpenAI, temperature"][1]
        with pytest.raises(errors.FailedPrecondition):
            await asked(router, "p", relay(stream=True))
    assert len(provider.requests) == 1
