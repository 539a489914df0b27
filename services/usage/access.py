"""Who may call what of usage: callers read their own, those who run models record."""

from mesh.access import Caller, Rule

_PUBLIC = "/khesht.usage.v1.UsageService"
_INTERNAL = "/khesht.usage.v1.UsageInternalService"

RULES = {
    f"{_PUBLIC}/ListUsage": Rule(Caller.ANY),
    f"{_PUBLIC}/GetUsageSummary": Rule(Caller.ANY),
    f"{_PUBLIC}/ExportUsage": Rule(Caller.ANY, limit=120),
    f"{_INTERNAL}/RecordUsage": Rule(Caller.PROCESS, frozenset({"chat", "worker"})),
}
