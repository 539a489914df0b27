"""Who may call what of chat."""

from collections.abc import Callable, Mapping
from typing import Any

from mesh.access import Caller, Model, Rule

_SERVICE = "/khesht.chat.v1.ChatService"


def rules(model_of: Callable[[Any], Model]) -> Mapping[str, Rule]:
    """The rules of chat's methods; `model_of` reads from a request which model it calls."""
    return {
        f"{_SERVICE}/CreateReply": Rule(Caller.ANY, model=model_of, limit=120),
        f"{_SERVICE}/StreamReply": Rule(Caller.ANY, model=model_of, limit=600),
        f"{_SERVICE}/CreateChat": Rule(Caller.ANY),
        f"{_SERVICE}/GetChat": Rule(Caller.ANY),
        f"{_SERVICE}/ListChats": Rule(Caller.ANY),
        f"{_SERVICE}/UpdateChat": Rule(Caller.ANY),
        f"{_SERVICE}/DeleteChat": Rule(Caller.ANY),
        f"{_SERVICE}/ListMessages": Rule(Caller.ANY),
        f"{_SERVICE}/ListModels": Rule(Caller.ANY),
        f"{_SERVICE}/GetModel": Rule(Caller.ANY),
    }
