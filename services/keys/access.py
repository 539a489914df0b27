"""Who may call what of keys: an account manages, every service asks."""

from mesh.access import SERVICES, Caller, Rule

_PUBLIC = "/khesht.keys.v1.KeysService"
_CREDENTIALS = "/khesht.keys.v1.ProviderCredentialsService"
_INTERNAL = "/khesht.keys.v1.KeysInternalService"

# Those who call providers.
_CALLERS = frozenset({"chat", "worker"})

RULES = {
    f"{_PUBLIC}/CreateApiKey": Rule(Caller.PERSON),
    f"{_PUBLIC}/GetApiKey": Rule(Caller.PERSON),
    f"{_PUBLIC}/ListApiKeys": Rule(Caller.PERSON),
    f"{_PUBLIC}/UpdateApiKey": Rule(Caller.PERSON),
    f"{_PUBLIC}/RevokeApiKey": Rule(Caller.PERSON),
    f"{_PUBLIC}/RotateApiKey": Rule(Caller.PERSON),
    f"{_CREDENTIALS}/StoreProviderCredential": Rule(Caller.PERSON),
    f"{_CREDENTIALS}/ListProviderCredentials": Rule(Caller.PERSON),
    f"{_CREDENTIALS}/DeleteProviderCredential": Rule(Caller.PERSON),
    f"{_INTERNAL}/Authorize": Rule(Caller.PROCESS, SERVICES),
    f"{_INTERNAL}/CheckKeys": Rule(Caller.PROCESS, _CALLERS),
    f"{_INTERNAL}/SpendTokens": Rule(Caller.PROCESS, _CALLERS),
    f"{_INTERNAL}/GetProviderCredential": Rule(Caller.PROCESS, _CALLERS),
}
