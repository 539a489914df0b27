"""Who may call what of auth: strangers to get in, an account for all else."""

from mesh.access import EDGE, SERVICES, Caller, Rule

_SERVICE = "/khesht.auth.v1.AuthService"
_INTERNAL = "/khesht.auth.v1.AuthInternalService"

RULES = {
    f"{_SERVICE}/Register": Rule(Caller.OPEN),
    f"{_SERVICE}/Login": Rule(Caller.OPEN),
    f"{_SERVICE}/IssueToken": Rule(Caller.OPEN),
    f"{_SERVICE}/RefreshToken": Rule(Caller.OPEN),
    f"{_SERVICE}/GetJwks": Rule(Caller.OPEN, SERVICES | {EDGE}),
    f"{_SERVICE}/Logout": Rule(Caller.PERSON),
    f"{_SERVICE}/GetMe": Rule(Caller.PERSON),
    f"{_SERVICE}/ChangePassword": Rule(Caller.PERSON),
    f"{_SERVICE}/ListSessions": Rule(Caller.PERSON),
    f"{_SERVICE}/RevokeSession": Rule(Caller.PERSON),
    f"{_INTERNAL}/CheckCallers": Rule(Caller.PROCESS, frozenset({"chat", "worker"})),
}
