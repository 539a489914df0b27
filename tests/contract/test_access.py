"""Who may call what, against the contracts."""

from collections.abc import Mapping
from importlib import import_module

import pytest

from mesh.access import EDGE, OPERATOR, Caller, Model, Rule, check_complete
from mesh.access import SERVICES as PROCESSES
from tests.contract.described import SERVICES, methods

# Public methods that processes other than the edge may call, and which.
ALSO = {"/khesht.auth.v1.AuthService/GetJwks": PROCESSES}


def rules(service: str) -> Mapping[str, Rule]:
    access = import_module(f"services.{service}.access")
    if service == "chat":
        found: Mapping[str, Rule] = access.rules(lambda request: Model(request.model))
    else:
        found = access.RULES
    return found


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_a_rule_for_each_of_its_methods_and_no_other(service: str):
    own = [each.name for each in methods() if each.service == service]
    check_complete(rules(service), own)
    assert own


def test_a_method_without_a_rule_and_a_rule_without_a_method_are_refused():
    own = [each.name for each in methods() if each.service == "items"]
    with pytest.raises(ValueError, match=r"missing \['/x/Y'\]"):
        check_complete(rules("items"), [*own, "/x/Y"])
    with pytest.raises(ValueError, match="without a method"):
        check_complete(rules("items"), own[1:])


@pytest.mark.parametrize("service", SERVICES)
def test_public_methods_are_for_the_edge_and_internal_ones_never(service: str):
    for each in methods():
        if each.service == service:
            rule = rules(service)[each.name]
            if each.internal:
                assert rule.peers, each.name
                assert rule.peers <= PROCESSES | {OPERATOR}, each.name
                assert rule.caller is Caller.PROCESS, each.name
            else:
                assert rule.peers == {EDGE} | ALSO.get(each.name, frozenset()), each.name
                assert rule.caller is not Caller.PROCESS, each.name


def test_only_getting_in_and_being_well_is_open():
    found = {each.name.rsplit("/", 1)[1] for each in methods() if not each.internal}
    assert len(found) >= 30
    opened = {
        name.rsplit("/", 1)[1]
        for service in SERVICES
        for name, rule in rules(service).items()
        if rule.caller is Caller.OPEN
    }
    getting_in = {"Register", "Login", "IssueToken", "RefreshToken", "GetJwks"}
    assert opened - {"GetHealth"} == getting_in


def test_every_call_to_a_model_spends_the_limit_and_no_other():
    names = {name: name.rsplit("/", 1)[1] for name in rules("chat")}
    kept = ("Get", "List", "Update", "Delete", "CreateChat", "Cancel", "Follow")
    to_models = {
        name
        for name, short in names.items()
        if not short.startswith(kept) or short == "CreateChatCompletion"
    }
    assert {name for name, rule in rules("chat").items() if rule.model} == to_models
    assert {"CreateReply", "StreamReply"} <= {names[name] for name in to_models}
