"""A call with too little time left is refused at once, and leaves nothing."""

import time
import uuid

import grpc
import pytest

from tests.contract.described import Method
from tests.harness import Mesh
from tests.integration.conftest import Person, new_person
from tests.integration.mesh.rows import rows, writing
from tests.integration.mesh.rpc import UNARY, call


@pytest.fixture(scope="module")
async def person(mesh: Mesh) -> Person:
    """One account for all tests here: to register costs more than they do."""
    return await new_person(mesh)


@pytest.mark.parametrize("method", UNARY, ids=lambda method: method.name)
async def test_a_call_with_50_ms_left_is_refused_and_leaves_no_row(
    mesh: Mesh, person: Person, admin_dsn: str, method: Method
):
    mark = f"late-{uuid.uuid4().hex}"
    request, where = writing(mark).get(method.name.rsplit("/", 1)[1], (None, ""))
    data = request.SerializeToString() if request else b""
    began = time.monotonic()
    ended = await call(mesh, person, method, data, 0.05)
    assert time.monotonic() - began < 0.5
    assert ended.code is grpc.StatusCode.DEADLINE_EXCEEDED
    if where:
        # A later call of the same kind leaves one: by then the late one would be there too.
        other, there = writing(f"in-time-{uuid.uuid4().hex}")[method.name.rsplit("/", 1)[1]]
        in_time = await call(mesh, person, method, other.SerializeToString(), 5)
        assert in_time.code is grpc.StatusCode.OK, in_time
        assert (rows(admin_dsn, there), rows(admin_dsn, where)) == (1, 0)


@pytest.mark.parametrize("method", UNARY, ids=lambda method: method.name)
async def test_it_is_the_service_that_refuses_while_the_caller_still_listens(
    mesh: Mesh, person: Person, method: Method
):
    reasons = set()
    for _ in range(10):  # A stall of this machine may let the caller's own time run out first.
        ended = await call(mesh, person, method, b"", 0.115)
        assert ended.code is grpc.StatusCode.DEADLINE_EXCEEDED
        reasons.add(ended.reason)
        if ended.reason:
            break
    assert "DEADLINE_EXCEEDED" in reasons


def test_every_rpc_that_adds_rows_was_tried():
    names = {method.name.rsplit("/", 1)[1] for method in UNARY}
    assert set(writing("x")) <= names
    # Login, IssueToken and RefreshToken add sessions, which no text of the request marks.
    assert {name for name in names if name.startswith(("Create", "Record"))} <= set(writing("x"))
