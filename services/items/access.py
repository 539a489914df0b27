"""Who may call what of items: its owner, by token or by key."""

from mesh.access import Caller, Rule

_SERVICE = "/khesht.items.v1.ItemsService"

RULES = {
    f"{_SERVICE}/CreateItem": Rule(Caller.ANY),
    f"{_SERVICE}/GetItem": Rule(Caller.ANY),
    f"{_SERVICE}/ListItems": Rule(Caller.ANY),
    f"{_SERVICE}/ReplaceItem": Rule(Caller.ANY),
    f"{_SERVICE}/DeleteItem": Rule(Caller.ANY),
}
