"""Serves callers of usage: what they used, and what may be spent."""

import csv
import io
from collections.abc import AsyncIterator
from typing import TypeVar
from uuid import UUID

from google.api.httpbody_pb2 import HttpBody

from khesht.usage.v1 import usage_service_pb2 as pb
from khesht.usage.v1 import usage_service_pb2_grpc as pb_grpc
from mesh import errors
from mesh.calls import call
from mesh.fields import timestamp
from mesh.server import Context
from services.usage.commands.ledger import Ledger
from services.usage.commands.records import Usage
from services.usage.domain import records as domain
from services.usage.domain.ledger import Budget, Standing, nano_usd
from services.usage.domain.records import Record, Totals, Whose

# Messages that are a budget.
B = TypeVar("B", pb.GetBudgetResponse, pb.GetUserBudgetResponse, pb.ReplaceUserBudgetResponse)
# Messages that are sums.
M = TypeVar("M", pb.GetUsageSummaryResponse, pb.UsageGroup)

_CSV = [
    *("created_at", "generation_id", "request_id", "key_id", "model", "provider"),
    *("prompt_tokens", "completion_tokens", "cost_usd", "status", "basis", "latency_ms"),
    *(f"{kind}_tokens" for kind in domain.KINDS),
]


class UsageServicer(pb_grpc.UsageServiceServicer):
    """Serves `khesht.usage.v1.UsageService`."""

    def __init__(self, usage: Usage, ledger: Ledger) -> None:
        """Takes the commands."""
        self._usage = usage
        self._ledger = ledger

    async def ListUsage(
        self, request: pb.ListUsageRequest, context: Context
    ) -> pb.ListUsageResponse:
        """Lists the caller's records."""
        page, token = await self._usage.list(_whose(request), request.page_size, request.page_token)
        return pb.ListUsageResponse(records=map(_to_pb, page), next_page_token=token)

    async def GetUsageSummary(
        self, request: pb.GetUsageSummaryRequest, context: Context
    ) -> pb.GetUsageSummaryResponse:
        """Sums up the caller's records of some days."""
        summary = await self._usage.summarize(_whose(request), request.days, request.group_by)
        answer = _totals(pb.GetUsageSummaryResponse, summary.totals)
        answer.period_start.FromDatetime(summary.start)
        answer.period_end.FromDatetime(summary.end)
        for name, totals in summary.groups.items():
            group = _totals(pb.UsageGroup, totals)
            group.name = name
            answer.groups.append(group)
        return answer

    async def ExportUsage(
        self, request: pb.ExportUsageRequest, context: Context
    ) -> AsyncIterator[pb.ExportUsageResponse]:
        """Streams the caller's records of some days as CSV."""
        yield _csv([_CSV])
        async for portion in self._usage.export(_whose(request), request.days):
            yield _csv([[str(value) for value in _row(record)] for record in portion])

    async def GetBudget(
        self, request: pb.GetBudgetRequest, context: Context
    ) -> pb.GetBudgetResponse:
        """Gets what the caller's account may spend."""
        standing = await self._ledger.standing(call.current().caller.user_id)
        return _budget(pb.GetBudgetResponse, standing)

    async def GetUserBudget(
        self, request: pb.GetUserBudgetRequest, context: Context
    ) -> pb.GetUserBudgetResponse:
        """Gets what an account may spend, for an admin."""
        _check_admin()
        standing = await self._ledger.standing(UUID(request.user_id))
        return _budget(pb.GetUserBudgetResponse, standing)

    async def ReplaceUserBudget(
        self, request: pb.ReplaceUserBudgetRequest, context: Context
    ) -> pb.ReplaceUserBudgetResponse:
        """Replaces what an account may spend, for an admin."""
        _check_admin()
        budget = Budget(
            monthly=nano_usd(request.monthly_budget_usd)
            if request.HasField("monthly_budget_usd")
            else None,
            total=nano_usd(request.total_budget_usd)
            if request.HasField("total_budget_usd")
            else None,
            soft=nano_usd(request.soft_budget_usd) if request.HasField("soft_budget_usd") else None,
        )
        standing = await self._ledger.replace_budget(UUID(request.user_id), budget)
        return _budget(pb.ReplaceUserBudgetResponse, standing)


def _check_admin() -> None:
    if call.current().caller.role != "admin":
        raise errors.PermissionDenied("NOT_PERMITTED", "only an admin may see and set budgets")


def _budget(message: type[B], standing: Standing) -> B:
    budget, balance = standing.budget, standing.balance
    return message(
        monthly_budget_usd=None if budget.monthly is None else domain.usd(budget.monthly),
        total_budget_usd=None if budget.total is None else domain.usd(budget.total),
        soft_budget_usd=None if budget.soft is None else domain.usd(budget.soft),
        spent_usd=domain.usd(balance.spent),
        held_usd=domain.usd(balance.reserved),
        resets_at=timestamp(standing.resets_at) if standing.resets_at else None,
    )


def _totals(message: type[M], totals: Totals) -> M:
    cached_read, cached_write, reasoning, audio_prompt, audio_completion = totals.kinds
    return message(
        total_requests=totals.requests,
        total_tokens=totals.prompt_tokens + totals.completion_tokens,
        total_prompt_tokens=totals.prompt_tokens,
        total_completion_tokens=totals.completion_tokens,
        total_cost_usd=domain.usd(totals.cost),
        total_cached_read_tokens=cached_read,
        total_cached_write_tokens=cached_write,
        total_reasoning_tokens=reasoning,
        total_audio_prompt_tokens=audio_prompt,
        total_audio_completion_tokens=audio_completion,
    )


def _csv(rows: list[list[str]]) -> pb.ExportUsageResponse:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    body = HttpBody(content_type="text/csv; charset=utf-8", data=text.getvalue().encode())
    return pb.ExportUsageResponse(body=body)


def _row(record: Record) -> list[object]:
    """The values under `_CSV`. The cost keeps all its digits: a file is read by machines."""
    return [
        record.created_at.isoformat(),
        record.generation_id,
        record.request_id,
        record.key_id or "",
        record.model,
        record.provider,
        record.prompt_tokens,
        record.completion_tokens,
        f"{record.cost // 10**9}.{record.cost % 10**9:09d}",
        record.status,
        record.basis,
        record.latency_ms,
        *record.kinds,
    ]


def _whose(
    request: pb.ListUsageRequest | pb.GetUsageSummaryRequest | pb.ExportUsageRequest,
) -> Whose:
    key_id = UUID(request.key_id) if request.key_id else None
    return Whose(call.current().caller.user_id, key_id)


def _to_pb(record: Record) -> pb.UsageRecord:
    return pb.UsageRecord(
        generation_id=str(record.generation_id),
        request_id=record.request_id,
        key_id=str(record.key_id) if record.key_id else "",
        model=record.model,
        provider=record.provider,
        prompt_tokens=record.prompt_tokens,
        completion_tokens=record.completion_tokens,
        total_tokens=record.prompt_tokens + record.completion_tokens,
        cost_usd=domain.usd(record.cost),
        status=record.status,
        basis=record.basis,
        latency_ms=record.latency_ms,
        created_at=timestamp(record.created_at),
        cached_read_tokens=record.cached_read_tokens,
        cached_write_tokens=record.cached_write_tokens,
        reasoning_tokens=record.reasoning_tokens,
        audio_prompt_tokens=record.audio_prompt_tokens,
        audio_completion_tokens=record.audio_completion_tokens,
    )
