"""Who may call what of keys: an account manages, every service asks."""

from mesh.access import SERVICES, Caller, Rule

_PUBLIC = "/khesht.keys.v1.KeysService"
_INTERNAL = "/khesht.keys.v1.KeysInternalService"

RULES = {
    f"{_PUBLIC}/CreateApiKey": Rule(Caller.PERSON),
    f"{_PUBLIC}/GetApiKey": Rule(Caller.PERSON),
    f"{_PUBLIC}/ListApiKeys": Rule(Caller.PERSON),
    f"{_PUBLIC}/UpdateApiKey": Rule(Caller.PERSON),
    f"{_PUBLIC}/RevokeApiKey": Rule(Caller.PERSON),
    f"{_INTERNAL}/Authorize": Rule(Caller.PROCESS, SERVICES),
}
