"""`khesht audit`: whether the ledger adds up, at one moment, by the database itself."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import LiteralString

import psycopg
from psycopg import IsolationLevel, sql
from psycopg.rows import dict_row

from cli import topology
from mesh.local import postgres, provision
from mesh.local.errors import LocalError


@dataclass(frozen=True, slots=True)
class Check:
    """What has to be true, and a query for the rows in which it is not."""

    promise: str
    query: LiteralString


CHECKS = (
    Check(
        "each balance has spent what its records and their adjustments cost",
        """
        WITH charged AS (
          SELECT generation_id, cost FROM usage.usage_records
          UNION ALL SELECT generation_id, cost_delta FROM usage.usage_adjustments
        ), due AS (
          SELECT scope, scope_id, period, sum(charged.cost) AS due
          FROM charged JOIN usage.usage_records USING (generation_id)
          CROSS JOIN LATERAL (SELECT to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM')) AS began (month)
          CROSS JOIN LATERAL (
            VALUES ('key', key_id, month), ('key', key_id, 'total'),
              ('user', user_id, month), ('user', user_id, 'total')
          ) AS place (scope, scope_id, period)
          WHERE scope_id IS NOT NULL
          GROUP BY scope, scope_id, period
        )
        SELECT scope, scope_id, period, spent, due
        FROM usage.balances FULL JOIN due USING (scope, scope_id, period)
        WHERE coalesce(spent, 0) <> coalesce(due, 0)
        ORDER BY scope, scope_id, period
        """,
    ),
    Check(
        "each balance has reserved what its holds hold",
        """
        WITH due AS (
          SELECT scope, scope_id, period, sum(amount) AS due
          FROM usage.holds CROSS JOIN LATERAL (
            VALUES ('key', key_id, month), ('key', key_id, 'total'),
              ('user', user_id, month), ('user', user_id, 'total')
          ) AS place (scope, scope_id, period)
          WHERE scope_id IS NOT NULL
          GROUP BY scope, scope_id, period
        )
        SELECT scope, scope_id, period, reserved, due
        FROM usage.balances FULL JOIN due USING (scope, scope_id, period)
        WHERE coalesce(reserved, 0) <> coalesce(due, 0)
        ORDER BY scope, scope_id, period
        """,
    ),
    Check(
        "no generation that has its record has a hold",
        "SELECT generation_id, amount, expires_at FROM usage.holds"
        " JOIN usage.usage_records USING (generation_id) ORDER BY generation_id",
    ),
    Check(
        "no generation has two records",
        "SELECT generation_id, count(*) AS records FROM usage.usage_records"
        " GROUP BY generation_id HAVING count(*) > 1 ORDER BY generation_id",
    ),
    Check(
        "each generation that asked a provider has its record, or is about to",
        """
        SELECT g.id, g.status, g.ended_at, g.prompt_tokens, g.completion_tokens,
          r.status AS status_recorded, r.prompt_tokens AS prompt_recorded,
          r.completion_tokens AS completion_recorded
        FROM chat.generations g LEFT JOIN usage.usage_records r ON r.generation_id = g.id
        WHERE g.basis IS NOT NULL AND NOT g.owed
          AND (r.status, r.prompt_tokens, r.completion_tokens)
            IS DISTINCT FROM (g.status, g.prompt_tokens, g.completion_tokens)
        ORDER BY g.id
        """,
    ),
    Check(
        "each record costs what its tokens do at its prices",
        """
        SELECT generation_id, cost, due FROM usage.usage_records CROSS JOIN LATERAL (
          SELECT (prompt_tokens::numeric * prompt_price + completion_tokens::numeric * completion_price
            + cached_read_tokens * (coalesce(kind_prices[1], prompt_price) - prompt_price)::numeric
            + cached_write_tokens * (coalesce(kind_prices[2], prompt_price) - prompt_price)::numeric
            + reasoning_tokens * (coalesce(kind_prices[3], completion_price) - completion_price)::numeric
            + audio_prompt_tokens * (coalesce(kind_prices[4], prompt_price) - prompt_price)::numeric
            + audio_completion_tokens
              * (coalesce(kind_prices[5], completion_price) - completion_price)::numeric
          ) AS exact
        ) AS priced CROSS JOIN LATERAL (SELECT div(exact + 500000, 1000000) AS due) AS rounded
        WHERE cost <> due
        ORDER BY generation_id
        """,
    ),
    Check(
        "no generation runs in a process that has been dead for 90 seconds",
        """
        SELECT g.id, g.created_at, g.runner_id, r.seen_at
        FROM chat.generations g LEFT JOIN chat.runners r ON r.id = g.runner_id
        WHERE g.status = 'running' AND g.created_at < now() - interval '90 seconds'
          AND coalesce(r.seen_at, '-infinity') < now() - interval '90 seconds'
        ORDER BY g.id
        """,
    ),
)

# What is right in the books and still worth a look.
NOTICES = (
    Check(
        "providers counted more than requests and their limits allow, and that is charged",
        """
        SELECT generation_id, model, provider, prompt_tokens, completion_tokens, created_at
        FROM usage.usage_records
        WHERE basis = 'capped' AND created_at > now() - interval '30 days'
        ORDER BY created_at DESC LIMIT 20
        """,
    ),
    Check(
        "the text of these generations could not be stored; what they cost is",
        """
        SELECT id, user_id, ended_at FROM chat.generations WHERE warning = 'text-not-stored'
        ORDER BY ended_at DESC LIMIT 20
        """,
    ),
    Check(
        "these generations run for longer than providers may take, or their ending can't be stored",
        """
        SELECT id, runner_id, created_at FROM chat.generations
        WHERE status = 'running' AND created_at < now() - interval '15 minutes'
        ORDER BY created_at LIMIT 20
        """,
    ),
)


def audit(admin: str, checks: Sequence[Check] = CHECKS) -> Iterator[tuple[Check, list[str]]]:
    """Each check, and a line for each row that breaks it; none is what it should be.

    So with NOTICES, which break nothing. All look at the same moment, and nothing is written. `admin` is an
    administrator's URL. Raises LocalError when the database is not reached, or has
    not the tables.
    """
    provision.check_url(admin)
    try:
        with psycopg.connect(admin, connect_timeout=5) as connection:
            connection.isolation_level = IsolationLevel.REPEATABLE_READ
            _borrow_roles(connection)
            for check in checks:
                with connection.cursor(row_factory=dict_row) as cursor:
                    broken = cursor.execute(check.query).fetchall()
                yield check, [" ".join(f"{k}={v}" for k, v in row.items()) for row in broken]
            connection.rollback()
    except psycopg.Error as error:
        raise LocalError(f"the ledger can't be read: {str(error).strip()}") from None


def _borrow_roles(connection: psycopg.Connection) -> None:
    """Lets an administrator who is no superuser read all schemas, until the rollback."""
    superuser = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
    if connection.execute(superuser).fetchone() == (True,):
        return
    for service in topology.SERVICES:
        role = sql.Identifier(postgres.role(service))
        connection.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(role))
