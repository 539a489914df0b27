"""The items of an account over gRPC, by either credential."""

import grpc
import pytest

from khesht.items.v1 import items_service_pb2 as pb
from khesht.items.v1 import items_service_pb2_grpc as pb_grpc
from mesh import status
from tests import harness
from tests.integration.conftest import Metadata, Person

MISSING = 2**31 - 1


@pytest.fixture(scope="session")
async def items(mesh: harness.Mesh) -> pb_grpc.ItemsServiceStub:
    return pb_grpc.ItemsServiceStub(await mesh.channel("items"))


@pytest.fixture(params=["by_token", "by_key"])
def caller(request: pytest.FixtureRequest, person: Person) -> Metadata:
    """The same account, by each of its credentials."""
    return getattr(person, request.param)


def item_of(answer) -> pb.Item:
    """The item that an answer is: the fields are the same, by number and by name."""
    return pb.Item.FromString(answer.SerializeToString())


async def create(items, caller, name="Lamp", price=9.5):
    request = pb.CreateItemRequest(name=name, price=price)
    return item_of(await items.CreateItem(request, metadata=caller, timeout=5))


def refusal(error):
    """What a caller sees of an error, the id of the request aside."""
    return error.code(), status.reason_of(error), error.details()


async def test_an_item_is_created_read_replaced_and_deleted(items, caller):
    called = {"metadata": caller, "timeout": 5}
    request = pb.CreateItemRequest(name="Lamp", description="Bright", price=9.5)
    made = item_of(await items.CreateItem(request, **called))
    read = item_of(await items.GetItem(pb.GetItemRequest(item_id=made.id), **called))
    replacement = pb.ReplaceItemRequest(item_id=made.id, name="Torch", price=0, is_available=False)
    replaced = item_of(await items.ReplaceItem(replacement, **called))
    read_again = item_of(await items.GetItem(pb.GetItemRequest(item_id=made.id), **called))
    await items.DeleteItem(pb.DeleteItemRequest(item_id=made.id), **called)

    lamp = pb.Item(id=made.id, name="Lamp", description="Bright", price=9.5, is_available=True)
    torch = pb.Item(id=made.id, name="Torch", price=0, is_available=False)
    assert [made, read, replaced, read_again] == [lamp, lamp, torch, torch]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await items.GetItem(pb.GetItemRequest(item_id=made.id), **called)
    assert status.reason_of(refused.value) == "ITEM_NOT_FOUND"


async def test_what_a_token_created_a_key_of_the_account_reads(items, person):
    made = await create(items, person.by_token)

    request = pb.GetItemRequest(item_id=made.id)
    read = await items.GetItem(request, metadata=person.by_key, timeout=5)

    assert item_of(read) == made


async def test_pages_hold_every_item_of_the_caller_once_oldest_first(items, person, stranger):
    made = []
    for number in range(5):
        made.append(await create(items, person.by_token, name=f"item {number}"))
        await create(items, stranger.by_token)

    pages, token = [], ""
    while not pages or token:
        request = pb.ListItemsRequest(page_size=2, page_token=token)
        answer = await items.ListItems(request, metadata=person.by_token, timeout=5)
        pages.append(list(answer.items))
        token = answer.next_page_token

    assert pages == [made[:2], made[2:4], made[4:]]


async def test_a_page_token_of_another_account_is_refused(items, person, stranger):
    for who in (person, person, stranger, stranger):
        await create(items, who.by_token)
    request = pb.ListItemsRequest(page_size=1)
    foreign = await items.ListItems(request, metadata=stranger.by_token, timeout=5)
    request = pb.ListItemsRequest(page_size=1, page_token=foreign.next_page_token)

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await items.ListItems(request, metadata=person.by_token, timeout=5)

    assert status.reason_of(refused.value) == "INVALID_PAGE_TOKEN"


@pytest.mark.parametrize("method", ["GetItem", "ReplaceItem", "DeleteItem"])
async def test_a_foreign_item_looks_like_one_that_does_not_exist(items, caller, stranger, method):
    foreign = await create(items, stranger.by_token)
    values = {"name": "Mine now", "price": 1} if method == "ReplaceItem" else {}
    refusals = []
    for item_id in (foreign.id, MISSING):
        request = getattr(pb, f"{method}Request")(item_id=item_id, **values)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await getattr(items, method)(request, metadata=caller, timeout=5)
        code, reason, text = refusal(refused.value)
        refusals.append((code, reason, text.replace(str(item_id), "…")))

    assert refusals == [(grpc.StatusCode.NOT_FOUND, "ITEM_NOT_FOUND", "no item …")] * 2
    request = pb.GetItemRequest(item_id=foreign.id)
    untouched = await items.GetItem(request, metadata=stranger.by_token, timeout=5)
    assert item_of(untouched) == foreign


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (pb.CreateItemRequest(), ["name", "price"]),
        (pb.CreateItemRequest(name="x" * 201, price=1), ["name"]),
        (pb.CreateItemRequest(name="two\nlines", price=1), ["name"]),
        (pb.CreateItemRequest(name="Lamp", price=-1, description="\0"), ["description", "price"]),
        (pb.CreateItemRequest(name="Lamp", price=float("nan")), ["price"]),
        (pb.GetItemRequest(item_id=0), ["item_id"]),
        (pb.ListItemsRequest(page_size=-1), ["page_size"]),
        (pb.ListItemsRequest(page_token="made up"), ["page_token"]),
    ],
    ids=["empty", "long", "lines", "two", "not a number", "no id", "size", "token"],
)
async def test_wrong_fields_are_named(items, person, request_, fields):
    method = type(request_).__name__.removesuffix("Request")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await getattr(items, method)(request_, metadata=person.by_token, timeout=5)

    named = sorted(part.split(":")[0] for part in refused.value.details().split("; "))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert named == fields


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ((), "MISSING_CREDENTIALS"),
        (harness.bearer("neither one nor the other"), "INVALID_CREDENTIALS"),
        (harness.bearer("ai_" + "0" * 49), "INVALID_CREDENTIALS"),
    ],
    ids=["none", "no token", "no key"],
)
async def test_nobody_sees_items_without_a_credential(items, metadata, reason):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await items.ListItems(pb.ListItemsRequest(), metadata=metadata, timeout=5)

    assert (refused.value.code(), status.reason_of(refused.value)) == (
        grpc.StatusCode.UNAUTHENTICATED,
        reason,
    )
