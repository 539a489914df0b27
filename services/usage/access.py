"""Who may call what of usage: callers read their own, those who run models hold and record."""

from mesh.access import OPERATOR, Caller, Rule
from mesh.time_limits import EXPORT_S

_PUBLIC = "/khesht.usage.v1.UsageService"
_INTERNAL = "/khesht.usage.v1.UsageInternalService"
_RUNS_MODELS = frozenset({"chat", "worker"})

RULES = {
    f"{_PUBLIC}/ListUsage": Rule(Caller.ANY),
    f"{_PUBLIC}/GetUsageSummary": Rule(Caller.ANY),
    f"{_PUBLIC}/ExportUsage": Rule(Caller.ANY, limit=EXPORT_S),
    f"{_PUBLIC}/GetBudget": Rule(Caller.ANY),
    # Of accounts only an admin, as the servicer finds.
    f"{_PUBLIC}/GetUserBudget": Rule(Caller.PERSON),
    f"{_PUBLIC}/ReplaceUserBudget": Rule(Caller.PERSON),
    f"{_INTERNAL}/HoldBudget": Rule(Caller.PROCESS, _RUNS_MODELS),
    f"{_INTERNAL}/CheckHolds": Rule(Caller.PROCESS, _RUNS_MODELS),
    f"{_INTERNAL}/RenewHolds": Rule(Caller.PROCESS, _RUNS_MODELS),
    f"{_INTERNAL}/ReleaseHolds": Rule(Caller.PROCESS, _RUNS_MODELS),
    f"{_INTERNAL}/RecordUsage": Rule(Caller.PROCESS, _RUNS_MODELS),
    f"{_INTERNAL}/AdjustUsage": Rule(Caller.PROCESS, frozenset({OPERATOR})),
}
