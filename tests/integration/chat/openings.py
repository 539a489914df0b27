"""Generations as they begin, without a caller."""

import uuid
from datetime import UTC, datetime

from services.chat.domain.generation import Status
from services.chat.domain.rows import Opening
from tests.integration.chat.streams import MODEL


def opening_of(user_id: uuid.UUID) -> Opening:
    """A generation of a user that runs in a process that is dead."""
    return Opening(
        id=uuid.uuid4(),
        caller_id=user_id,
        user_id=user_id,
        key_id=None,
        request_id="test",
        chat_id=None,
        model=MODEL,
        provider="openai",
        prompt_price=0,
        completion_price=0,
        kind_prices=None,
        prompt_estimate=2,
        status=Status.RUNNING,
        runner_id=uuid.uuid4(),
        created_at=datetime.now(UTC),
    )
