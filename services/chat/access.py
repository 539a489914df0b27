"""Who may call what of chat."""

from collections.abc import Callable, Mapping
from typing import Any

from khesht.chat.v1.completions_service_pb2 import CreateChatCompletionRequest
from mesh import errors
from mesh.access import Caller, Model, Rule
from mesh.calls import call
from mesh.time_limits import MODEL_CALL_S
from services.chat.domain import completion

_SERVICE = "/khesht.chat.v1.ChatService"
_COMPLETIONS = "/khesht.chat.v1.CompletionsService"
_GENERATIONS = "/khesht.chat.v1.GenerationsService"
_TASKS = "/khesht.chat.v1.TasksService"
_HEALTH = "/khesht.chat.v1.HealthService"


def rules(named: Callable[[str], Model]) -> Mapping[str, Rule]:
    """The rules of chat's methods; `named` is the model of an id or alias."""

    def asked(name: str) -> Model:
        """The model of a name, which is told beside the provider's in the answer."""
        if name and name.isascii() and name.isprintable():
            call.current().headers.append(("x-khesht-model", name))
        return named(name)

    def model_of(request: Any) -> Model:  # noqa: ANN401 - requests share the field
        return asked(request.model)

    def model_in_body(request: CreateChatCompletionRequest) -> Model:
        try:
            read = completion.read(request.body.data)
        except errors.InvalidRequest:
            return named("")  # What is wrong is said where it is answered.
        call.current().parsed = read  # Pictures are megabytes: they are read once.
        return asked(read.model)

    return {
        f"{_SERVICE}/CreateReply": Rule(Caller.ANY, model=model_of, limit=MODEL_CALL_S),
        f"{_SERVICE}/StreamReply": Rule(Caller.ANY, model=model_of, limit=MODEL_CALL_S),
        f"{_COMPLETIONS}/CreateChatCompletion": Rule(
            Caller.ANY, model=model_in_body, limit=MODEL_CALL_S, openai=True
        ),
        f"{_SERVICE}/StreamText": Rule(Caller.OPTIONAL, model=model_of, limit=MODEL_CALL_S),
        f"{_SERVICE}/Summarize": Rule(Caller.ANY, model=model_of, limit=MODEL_CALL_S),
        f"{_SERVICE}/Translate": Rule(Caller.ANY, model=model_of, limit=MODEL_CALL_S),
        f"{_TASKS}/CreateTask": Rule(Caller.ANY, model=model_of),
        f"{_TASKS}/GetTask": Rule(Caller.ANY),
        f"{_TASKS}/CancelTask": Rule(Caller.ANY),
        f"{_GENERATIONS}/ListGenerations": Rule(Caller.ANY),
        f"{_GENERATIONS}/GetGeneration": Rule(Caller.ANY),
        f"{_GENERATIONS}/FollowGeneration": Rule(Caller.ANY, limit=MODEL_CALL_S),
        f"{_GENERATIONS}/CancelGeneration": Rule(Caller.ANY),
        f"{_SERVICE}/CreateChat": Rule(Caller.ANY),
        f"{_SERVICE}/GetChat": Rule(Caller.ANY),
        f"{_SERVICE}/ListChats": Rule(Caller.ANY),
        f"{_SERVICE}/UpdateChat": Rule(Caller.ANY),
        f"{_SERVICE}/DeleteChat": Rule(Caller.ANY),
        f"{_SERVICE}/ListMessages": Rule(Caller.ANY),
        f"{_SERVICE}/ListModels": Rule(Caller.ANY, openai=True),
        f"{_SERVICE}/GetModel": Rule(Caller.ANY, openai=True),
        f"{_HEALTH}/GetHealth": Rule(Caller.OPEN, limit=5),
    }
