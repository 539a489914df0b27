"""What the edge says of itself and of the mesh: health, welcome, pages and the document."""

import json
import re
import signal
import tomllib
from collections.abc import AsyncIterator

import grpc
import psutil
import pytest

from khesht.chat.v1 import health_service_pb2 as health_pb
from khesht.chat.v1 import health_service_pb2_grpc as health_grpc
from mesh import status
from tests.mesh.running import JSON, ROOT, Up
from tests.support import eventually

SERVICES = ("auth", "chat", "items", "keys", "usage")
PAGES = ("/docs", "/redoc")
TYPES = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8"}


@pytest.fixture
async def frozen_items(up: Up) -> AsyncIterator[psutil.Process]:
    items = psutil.Process((await up.statuses())["items"]["pid"])
    items.suspend()
    try:
        yield items
    finally:
        items.send_signal(signal.SIGCONT)

        async def well() -> bool:
            return (await up.call("GET", "/items")).status == 401

        await eventually(well, within=20)


def links(text: str) -> list[str]:
    return re.findall(r'(?:src|href)="(?!data:)([^"]+)"', text)


async def test_a_mesh_that_is_well_says_so(up: Up):
    answer = await up.call("GET", "/health")
    assert answer.status == 200
    assert answer.body["status"] == "healthy"
    assert answer.body["services"] == dict.fromkeys(SERVICES, "healthy")
    assert answer.body["providers"].items() >= {"echo": "healthy", "openai": "configured"}.items()
    assert set(answer.body) == {"status", "services", "providers"}


async def test_a_mesh_that_is_not_well_says_what_is_wrong_until_it_is_again(
    up: Up, frozen_items: psutil.Process
):
    async def told(code: int) -> JSON | None:
        answer = await up.call("GET", "/health")
        assert answer.headers["Content-Type"] == "application/json"
        return answer.body if answer.status == code else None

    body = await eventually(lambda: told(503))
    assert body["status"] == "degraded"
    assert body["problems"] == ["items does not answer"]
    assert body["services"] == dict.fromkeys(SERVICES, "healthy") | {"items": "unhealthy"}
    assert body["providers"]["echo"] == "healthy"
    async with grpc.aio.insecure_channel(f"127.0.0.1:{up.grpc}") as channel:
        stub = health_grpc.HealthServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as degraded:
            await stub.GetHealth(health_pb.GetHealthRequest(), timeout=5)
    assert degraded.value.code() is grpc.StatusCode.UNAVAILABLE
    assert degraded.value.details() == "items does not answer"
    assert status.reason_of(degraded.value) == "UNAVAILABLE"
    frozen_items.resume()
    recovered = await eventually(lambda: told(200), within=20)
    assert recovered["services"]["items"] == "healthy"


async def test_the_edge_welcomes_with_links_that_answer(up: Up):
    answer = await up.call("GET", "/")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (answer.body["name"], answer.body["version"]) == ("khesht", project["version"])
    paths = [value for value in answer.body.values() if value.startswith("/")]
    assert set(paths) == {"/docs", "/redoc", "/openapi.json", "/health", "/.well-known/jwks.json"}
    for path in paths:
        assert (await up.call("GET", path)).status == 200, path


async def test_the_edge_itself_is_ok(up: Up):
    answer = await up.call("GET", "/api/health")
    assert (answer.status, answer.body) == (200, {"status": "ok"})
    assert (await up.call("HEAD", "/api/health")).status == 200


@pytest.mark.parametrize("path", ["/", "/docs", "/api/health", "/openapi.json"])
async def test_what_is_only_read_takes_no_other_verb(up: Up, path: str):
    answer = await up.call("POST", path, {})
    assert (answer.status, answer.reason) == (405, "WRONG_METHOD")


async def test_the_document_is_served_as_it_was_made(up: Up):
    answer = await up.call("GET", "/openapi.json")
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.body == json.loads((ROOT / "gen" / "openapi.json").read_text())


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_and_all_its_files_come_from_here(up: Up, path: str):
    page = await up.call("GET", path)
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'; script-src 'self'" in page.headers["Content-Security-Policy"]
    assert "unsafe" not in page.headers["Content-Security-Policy"]
    found = [link for link in links(page.text) if link.startswith("/static/")]
    assert len(found) >= 2
    for link in found:
        name = link.rsplit("/", 1)[1].partition("?")[0]
        (file,) = (ROOT / "gateway").rglob(name)
        answer = await up.call("GET", link)
        assert (answer.status, answer.text) == (200, file.read_text()), link
        assert answer.headers["Content-Type"] == TYPES[name.rsplit(".", 1)[1]]
        kept = "immutable" in answer.headers["Cache-Control"]
        assert kept == ("?v=" in link)


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_names_no_other_origin_and_has_no_script_of_its_own(up: Up, path: str):
    text = (await up.call("GET", path)).text
    for link in links(text):
        assert re.match(r"/\w", link), link
        if link.startswith("/static/") and "?v=" not in link:
            text += (await up.call("GET", link)).text
    assert not re.search(r"https?:|[\"'(]//", text)
    assert not re.search(r"<script(?![^>]* src=)|<style| on\w+=", text)


def test_the_versions_in_links_are_those_that_were_fetched():
    fetched = re.findall(r"(?m)^[A-Z_]+=([\d.]+)$", (ROOT / "scripts" / "vendor.sh").read_text())
    pages = [
        (ROOT / "gateway" / "pages" / f"{name}.html").read_text() for name in ("docs", "redoc")
    ]
    assert [set(re.findall(r"\?v=([\d.]+)", page)) for page in pages] == [{v} for v in fetched]
