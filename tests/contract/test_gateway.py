"""The edge's configuration against the contracts, as a real Envoy reads it."""

import asyncio
import base64
import json
import re
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import grpc
import pytest
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2

from cli.edge import scripts as edge_scripts
from cli.relief import ReliefFiles
from khesht.mesh.v1 import errors_pb2
from mesh import reflection, status, time_limits
from mesh.local import certificates, envoy
from tests.support import eventually

ROOT = Path(__file__).parents[2]
IMAGE = ROOT / "gen" / "khesht.binpb"
HEALTHY = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)
GRPC = {"content-type": "application/grpc"}
LISTENERS = ("rest", "grpc")
HEALTH = "/khesht.chat.v1.HealthService/GetHealth"

Method = descriptor_pb2.MethodDescriptorProto


def services(public: bool) -> dict[str, list[Method]]:
    """Methods by full name of service: those with HTTP rules, or those without any."""
    image = descriptor_pb2.FileDescriptorSet.FromString(IMAGE.read_bytes())
    found = {
        f"{file.package}.{service.name}": list(service.method)
        for file in image.file
        for service in file.service
    }
    return {
        name: methods
        for name, methods in found.items()
        if any(m.options.HasExtension(annotations_pb2.http) for m in methods) == public
    }


def rpcs(streaming: bool) -> list[str]:
    return [
        f"/{service}/{method.name}"
        for service, methods in services(public=True).items()
        for method in methods
        if method.server_streaming == streaming
    ]


def seconds(duration: str) -> float:
    return float(duration.removesuffix("s"))


def limit_of(path: str) -> float:
    """How long the service of a method lets it take."""
    rules = import_module(f"services.{path.split('.')[1]}.access")
    return (rules.rules(lambda _: None) if "chat" in path else rules.RULES)[path].limit


class Refusing(grpc.GenericRpcHandler):
    """Any service: healthy, and refusing each call with what it was told of the caller."""

    def service(self, handler_call_details: Any) -> Any:
        health = handler_call_details.method == "/grpc.health.v1.Health/Check"
        return grpc.unary_unary_rpc_method_handler(self._healthy if health else self._refuse)

    async def _healthy(self, request: bytes, context: Any) -> Any:
        return HEALTHY.SerializeToString()

    async def _refuse(self, request: bytes, context: Any) -> None:
        told = dict(context.invocation_metadata() or ())
        told["seconds-left"] = str(context.time_remaining())
        trailers: list[Any] = [("retry-after", "7"), ("grpc-status-details-bin", b"\x08\x08")]
        if "x-own-error" not in told:
            trailers.append(("khesht-error", json.dumps({"error": told})))
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "at 10.0.0.1", tuple(trailers))


@dataclass(frozen=True, slots=True)
class Edge:
    """A running edge before services that refuse: its file, its configuration as read, its listeners."""

    config: Path
    read: dict[str, Any]
    urls: dict[str, str]

    def listener(self, name: str) -> dict[str, Any]:
        (found,) = [one for one in self.read["listeners"] if one["name"] == name]
        return found["filter_chains"][0]["filters"][-1]["typed_config"]

    def route(self, listener: str, path: str) -> dict[str, Any] | None:
        """The action of the first route that takes `path` to a service, whatever its size."""
        for route in self.listener(listener)["route_config"]["virtual_hosts"][0]["routes"]:
            match, action = route["match"], route.get("route", {"cluster": "nowhere"})
            taken = match.get("path") == path or path.startswith(match.get("prefix", "\0"))
            large = any(one["name"] == "x-khesht-large" for one in match.get("headers", ()))
            if taken and not large and action["cluster"] != "nowhere":
                return action
        return None


@pytest.fixture(scope="module")
async def edge(certificates_folder: Path) -> AsyncIterator[Edge]:
    names = {name.split(".")[1] for name in services(public=True)}
    identities = certificates.issue(certificates_folder, ["edge", *names])
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((Refusing(),))
    endpoints = {name: _endpoint(server, identities[name]) for name in names} | {"usage": []}
    await server.start()
    # A socket's path is at most 107 bytes long, and pytest's own folders may be longer.
    with tempfile.TemporaryDirectory() as folder:
        try:
            async with _running(Path(folder), identities["edge"], endpoints) as edge:
                yield edge
        finally:
            await server.stop(None)


@asynccontextmanager
async def _running(
    folder: Path, identity: certificates.Identity, endpoints: dict[str, list[Any]]
) -> AsyncIterator[Edge]:
    config, admin = folder / "envoy.yaml", folder / "admin"
    watched = ReliefFiles(folder / "pressure", folder / "crowded.json")
    watched.clear()
    values = {
        **{"GATEWAY_ADDRESS": "127.0.0.1", "GATEWAY_PORT": "0", "GATEWAY_TLS": "null"},
        **{"GRPC_ADDRESS": "127.0.0.1", "GRPC_PORT": "0", "GRPC_TLS": "null"},
        **{"ADMIN_SOCKET": str(admin), "ACCESS_LOG": str(folder / "access.log")},
        **{"PROXY_HOPS": "0", "UNTRUSTED_FORWARDED": "x-forwarded-for"},
        **{"MEMORY": str(1 << 30), "BODY_LIMIT": str(20 << 20)},
        **{"CONNECTIONS": "1000", "PRESSURE": str(watched.pressure)},
        "CROWDED": str(watched.crowded),
        **time_limits.of_edge(),
        **{"DESCRIPTOR": str(IMAGE), **edge_scripts("https://app.example")},
        **{"OPENAPI": str(ROOT / "gen" / "openapi.json"), "PAGES": str(ROOT / "gateway" / "pages")},
        **{"STATIC": str(ROOT / "gateway" / "static")},
        **{"EDGE_CERT": str(identity.cert), "EDGE_KEY": str(identity.key)},
        **{"CA_CERT": str(identity.ca), "CORS_ORIGINS": '[{"exact": "https://app.example"}]'},
        **{"CORS_CREDENTIALS": "true"},
        **{f"{name.upper()}_ENDPOINTS": json.dumps(at) for name, at in endpoints.items()},
    }
    await asyncio.to_thread(_write, config, values)
    process = await asyncio.create_subprocess_exec(*envoy.argv(config))
    try:
        yield await _started(config, admin)
    finally:
        process.terminate()
        await process.wait()


def _write(config: Path, values: dict[str, str]) -> None:
    config.write_text(envoy.render(ROOT / "gateway" / "envoy.yaml", values))
    envoy.validate(config)


def _endpoint(server: grpc.aio.Server, identity: certificates.Identity) -> list[dict[str, Any]]:
    pair = identity.key.read_bytes(), identity.cert.read_bytes()
    own = grpc.ssl_server_credentials([pair], identity.ca.read_bytes(), require_client_auth=True)
    address = {"address": "127.0.0.1", "port_value": server.add_secure_port("127.0.0.1:0", own)}
    return [{"endpoint": {"address": {"socket_address": address}}}]


async def _started(config: Path, admin: Path) -> Edge:
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(admin))) as session:

        async def asked(path: str) -> Any:
            try:
                async with session.get(f"http://admin{path}") as answer:
                    return await answer.json(content_type=None) if answer.ok else None
            except aiohttp.ClientConnectorError:
                return None

        listeners = await eventually(lambda: asked("/listeners?format=json"), within=20)
        dump = await asked("/config_dump?resource=&mask=")
        (bootstrap,) = [one["bootstrap"] for one in dump["configs"] if "bootstrap" in one]
    ports = {
        one["name"]: one["local_address"]["socket_address"]["port_value"]
        for one in listeners["listener_statuses"]
    }
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    async with aiohttp.ClientSession(urls["rest"]) as session:

        async def reached() -> bool:
            try:
                async with session.get("/items") as item, session.get("/chats") as chat:
                    return item.status == chat.status == 429
            except aiohttp.ClientConnectorError:  # listeners open after the first health checks
                return False

        await eventually(reached, within=20)
    return Edge(config, bootstrap["static_resources"], urls)


def test_exactly_the_services_with_http_rules_are_transcoded(edge: Edge) -> None:
    (transcoder,) = [
        one["typed_config"]
        for one in edge.listener("rest")["http_filters"]
        if one["name"] == "envoy.filters.http.grpc_json_transcoder"
    ]
    assert set(transcoder["services"]) == set(services(public=True))


@pytest.mark.parametrize("listener", LISTENERS)
def test_every_public_method_goes_to_its_service(edge: Edge, listener: str) -> None:
    routed = {path: edge.route(listener, path) for path in rpcs(False) + rpcs(True)}
    assert {path: action and action["cluster"] for path, action in routed.items()} == {
        path: "chat_unchecked" if path == HEALTH else path.split(".")[1] for path in routed
    }


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("path", rpcs(streaming=True))
def test_a_stream_is_cut_when_it_is_silent_or_its_service_had_time_to_end_it(
    edge: Edge, listener: str, path: str
) -> None:
    action, limit = edge.route(listener, path), limit_of(path)
    assert action is not None
    assert action["timeout"] == "0s"
    assert seconds(action["max_stream_duration"]["max_stream_duration"]) > limit
    assert seconds(action["max_stream_duration"]["grpc_timeout_header_max"]) > limit
    # OpenAI's answers may be no streams.
    silent = limit if "Completions" in path else 4 * time_limits.PING_INTERVAL_S
    assert seconds(action["idle_timeout"]) >= silent


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("path", rpcs(streaming=False))
def test_a_unary_call_has_the_time_of_a_model_where_one_is_called(
    edge: Edge, listener: str, path: str
) -> None:
    action, limit = edge.route(listener, path), limit_of(path)
    assert action is not None
    longest = seconds(action["max_stream_duration"]["max_stream_duration"])
    if limit == time_limits.MODEL_CALL_S:
        assert longest > limit
        assert seconds(action["idle_timeout"]) == longest  # It says nothing before it is whole.
    else:
        assert longest == time_limits.SHORT_CALL_AT_EDGE_S


@pytest.mark.parametrize("listener", LISTENERS)
def test_who_reads_no_answer_to_its_end_is_cut_however_long_the_model_thought(
    edge: Edge, listener: str
) -> None:
    listening = edge.listener(listener)
    assert seconds(listening["stream_flush_timeout"]) == time_limits.SILENT_STREAM_AT_EDGE_S
    assert seconds(listening["stream_idle_timeout"]) == time_limits.SILENT_STREAM_AT_EDGE_S


def test_each_limit_of_time_is_longer_than_the_one_inside_it() -> None:
    limits = (
        time_limits.LONGEST_ANSWER_S,
        time_limits.MODEL_CALL_S,
        time_limits.MODEL_CALL_AT_EDGE_S,
        time_limits.MODEL_CALL_OF_CLIENT_S,
        time_limits.CONNECTION_GRACE_S,
    )
    assert list(limits) == sorted(set(limits))
    assert time_limits.EXPORT_S < time_limits.EXPORT_AT_EDGE_S
    silences = (time_limits.EARLY_HEADERS_AFTER_S, time_limits.PING_INTERVAL_S)
    assert 2 * max(silences) < time_limits.SILENT_STREAM_AT_EDGE_S


def test_no_internal_service_is_named_or_routed(edge: Edge) -> None:
    text = edge.config.read_text()
    internal = services(public=False)
    assert internal
    for name in internal:
        assert name not in text
        assert all(edge.route(listener, f"/{name}/Any") is None for listener in LISTENERS)


def test_each_cluster_wants_its_own_service_and_no_other(edge: Edge) -> None:
    pinned = {
        one["name"]: one["transport_socket"]["typed_config"]["common_tls_context"][
            "validation_context"
        ]["match_typed_subject_alt_names"]
        for one in edge.read["clusters"]
        if one["name"] != "nowhere"
    }
    own = {service.split(".")[1] for service in services(public=True)}
    assert pinned == {
        name: [{"san_type": "URI", "matcher": {"exact": certificates.uri_name(service)}}]
        for name, service in [
            *((each, each) for each in own),
            *(("chat_unchecked", "chat"), ("chat_large", "chat")),
        ]
    }


def test_health_is_asked_of_a_chat_that_is_not_well_and_nothing_else_is(edge: Edge) -> None:
    unchecked = {one["name"] for one in edge.read["clusters"] if "health_checks" not in one}
    assert unchecked == {"nowhere", "chat_unchecked"}


def test_nothing_but_what_never_reached_a_service_is_tried_again(edge: Edge) -> None:
    for listener in LISTENERS:
        (host,) = edge.listener(listener)["route_config"]["virtual_hosts"]
        policy = host["retry_policy"]
        assert policy["retry_on"] == "connect-failure,refused-stream,reset-before-request"
        assert not any("retry_policy" in route.get("route", {}) for route in host["routes"])


def test_pages_are_those_that_tell_their_methods(edge: Edge) -> None:
    (host,) = edge.listener("rest")["route_config"]["virtual_hosts"]
    pages = {one["match"]["path"] for one in host["routes"] if "path" in one["match"]}
    lua = (ROOT / "gateway" / "errors.lua").read_text()
    told = re.findall(r'\["(/[^"]*)"\] = true', lua.split("local PAGES", 1)[1].split("\n", 1)[0])
    (static,) = re.findall(r'\("([^"]*)"\):gmatch\("%S\+"\) do PAGES', lua)
    told += [f"/static/{name}" for name in static.split()]
    assert sorted(told) == sorted(path for path in pages if ".v1." not in path)


REFUSALS = [
    pytest.param("GET", "/nope", {}, b"", 404, "UNKNOWN_PATH", [], id="path"),
    pytest.param("PUT", "/items", {}, b"{}", 405, "WRONG_METHOD", [], id="verb"),
    pytest.param("BREW", "/items", {}, b"", 405, "WRONG_METHOD", [], id="unknown verb"),
    pytest.param("BREW", "/teapot", {}, b"", 404, "UNKNOWN_PATH", [], id="unknown verb and path"),
    pytest.param("POST", "/items", {}, b'{"<b>":', 400, "MALFORMED_REQUEST", [], id="json"),
    pytest.param(
        "POST", "/items", {}, b'{"price": "<b>"}', 400, "MALFORMED_REQUEST", ["price"], id="type"
    ),
    pytest.param(
        "POST",
        "/chat",
        {},
        b'{"messages": [{"content": {"<b>": 1}}]}',
        400,
        "MALFORMED_REQUEST",
        ["messages[0].content"],
        id="nested",
    ),
    pytest.param("GET", "/items?x=1", {}, b"", 400, "MALFORMED_REQUEST", ["x"], id="query"),
    pytest.param("GET", "/items?%3Cb%3E=1", {}, b"", 400, "MALFORMED_REQUEST", [], id="markup"),
    pytest.param("POST", "/items", {}, b"[" * 5000, 400, "MALFORMED_REQUEST", [], id="depth"),
    pytest.param("POST", "/items", {}, b"\xff", 400, "MALFORMED_REQUEST", [], id="utf8"),
    pytest.param("POST", "/items", {}, b" " * 262145, 413, "TOO_LARGE", [], id="body"),
    pytest.param("GET", "/items", {"x-a": "a" * 17000}, b"", 431, "TOO_LARGE", [], id="headers"),
    pytest.param("GET", "/items", {"x_a": "a"}, b"", 400, "MALFORMED_REQUEST", [], id="underscore"),
    pytest.param("POST", rpcs(False)[0], GRPC, b"\0" * 5, 415, "UNSUPPORTED", [], id="native"),
    pytest.param("GET", "/v1/usage", {}, b"", 503, "UNAVAILABLE", [], id="down"),
    pytest.param("GET", "/items", {"x-own-error": "1"}, b"", 429, "OVERLOADED", [], id="library"),
]


@pytest.mark.parametrize(("verb", "path", "headers", "body", "code", "reason", "fields"), REFUSALS)
async def test_a_refusal_of_the_edge_has_the_envelope_and_no_byte_of_the_request(
    edge: Edge,
    verb: str,
    path: str,
    headers: dict[str, str],
    body: bytes,
    code: int,
    reason: str,
    fields: list[str],
) -> None:
    async with (
        aiohttp.ClientSession(edge.urls["rest"]) as session,
        session.request(verb, path, data=body, headers=headers) as answer,
    ):
        text = await answer.text()
    assert answer.status == code
    assert answer.content_type == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert not [name for name in answer.headers if name.lower().startswith(("grpc-", "khesht-"))]
    assert "<b>" not in text
    assert "127.0.0.1" not in text
    assert "10.0.0.1" not in text
    error = json.loads(text)["error"]
    assert (error["code"], error["reason"]) == (code, reason)
    assert f"ERROR_REASON_{reason}" in errors_pb2.ErrorReason.DESCRIPTOR.values_by_name
    assert error["request_id"] == answer.headers["x-request-id"]
    assert UUID(error["request_id"])
    assert answer.headers.get("retry-after") == {"UNAVAILABLE": "1", "OVERLOADED": "7"}.get(reason)
    violations = [one for detail in error["details"] for one in detail["field_violations"]]
    assert [one["field"] for one in violations] == fields
    assert all(one in error["message"] for one in fields)


RAW = {
    "headers too large": (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 20_000 + b"\r\n\r\n", 431),
    "path too long": (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
    "headers too many": (
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"a%d: 1\r\n" % n for n in range(80)) + b"\r\n",
        431,
    ),
    "NUL in path": (b"GET /chats%00x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "HTTP/1.0": (b"GET / HTTP/1.0\r\n\r\n", 426),
    "HTTP/0.9": (b"GET /\r\n\r\n", 426),
    "no host": (b"GET /items HTTP/1.1\r\n\r\n", 400),
    "two lengths": (
        b"POST /items HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
    ),
    "unknown encoding": (
        b"POST /items HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
        501,
    ),
    "no HTTP": (b"\x16\x03\x01\x00\xff\r\n\r\n", 400),
}


@pytest.mark.parametrize("case", RAW)
async def test_what_the_parser_refuses_has_an_id_of_its_own_each_time(edge: Edge, case: str):
    sent, code = RAW[case]
    ids = set()
    for _ in range(2):
        host, port = edge.urls["rest"].removeprefix("http://").rstrip("/").rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(sent)
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode()
        status, *lines = head.strip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        body = await asyncio.wait_for(reader.readexactly(int(headers["content-length"])), 10)
        writer.close()
        assert int(status.split()[1]) == code
        error = json.loads(body)["error"]
        assert (error["code"], error["request_id"]) == (code, headers["x-request-id"])
        assert UUID(error["request_id"])
        ids.add(error["request_id"])
    assert len(ids) == 2


async def test_browsers_of_listed_origins_alone_may_call(edge: Edge) -> None:
    async with aiohttp.ClientSession(edge.urls["rest"]) as session:
        for origin, allowed in (("https://app.example", True), ("https://evil.example", False)):
            headers = {"origin": origin, "access-control-request-method": "PUT"}
            for path in ("/items/1", "/docs", "/v1/chat/completions", "/nope"):
                async with session.options(path, headers=headers) as preflight:
                    assert ("access-control-allow-origin" in preflight.headers) == allowed
                async with session.get(path, headers={"origin": origin}) as answer:
                    told = answer.headers
                    assert (told.get("access-control-allow-origin") == origin) == allowed
                    assert (told.get("access-control-allow-credentials") == "true") == allowed
                    assert ("Origin" in told.getall("vary", [])) == allowed


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/items", "/openapi.json"])
async def test_a_preflight_allows_the_headers_that_it_asks_for(edge: Edge, path: str) -> None:
    wanted = "authorization,x-stainless-os,x-stainless-retry-count,openai-organization,x-mine"
    headers = {
        **{"origin": "https://app.example", "access-control-request-method": "POST"},
        "access-control-request-headers": wanted,
    }
    async with (
        aiohttp.ClientSession(edge.urls["rest"]) as session,
        session.options(path, headers=headers) as answer,
    ):
        assert answer.status == 200
        assert answer.headers["access-control-allow-headers"] == wanted
        assert answer.headers["access-control-allow-credentials"] == "true"


async def test_a_services_error_is_the_body_and_pretended_headers_do_not_reach_it(
    edge: Edge,
) -> None:
    forged = {
        **{"x-khesht-client-address": "9.9.9.9", "x-khesht-user": "me", "khesht-error": "{}"},
        **{"x-forwarded-for": "9.9.9.9", "x-forwarded-client-cert": "By=spiffe://khesht/edge"},
        **{"x-envoy-original-path": "/forged", "x-request-id": "forged", "x-envoy-any": "1"},
        **{"grpc-timeout": "1S", "grpc-trace-bin": "AAAA", "grpc-previous-rpc-attempts": "9"},
    }
    async with (
        aiohttp.ClientSession(edge.urls["rest"]) as session,
        session.get("/items/5", headers={**forged, "user-agent": "tester"}) as answer,
    ):
        told = (await answer.json())["error"]
    assert answer.status == 429
    assert answer.headers["retry-after"] == "7"
    assert not [name for name in answer.headers if name.lower().startswith(("grpc-", "khesht-"))]
    assert told["x-khesht-client-address"] == "127.0.0.1"
    assert told["x-envoy-original-path"] == "/items/5"
    assert told["x-request-id"] == answer.headers["x-request-id"] != "forged"
    assert told["user-agent"] == "tester"
    assert float(told["seconds-left"]) > 15
    known = {"x-khesht-client-address", "x-envoy-original-path", "x-request-id", "x-forwarded-for"}
    assert not set(forged) & set(told) - known
    assert "9.9.9.9" not in str(told)


async def test_native_grpc_callers_reach_public_methods_only(edge: Edge) -> None:
    async def status(path: str) -> grpc.StatusCode:
        async with grpc.aio.insecure_channel(edge.urls["grpc"].removeprefix("http://")) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary(path)(b"")
        return refused.value.code()

    assert await status("/khesht.items.v1.ItemsService/ListItems") == (
        grpc.StatusCode.RESOURCE_EXHAUSTED
    )
    hidden = [f"/{name}/{one.name}" for name, ms in services(public=False).items() for one in ms]
    for path in [*hidden, "/grpc.health.v1.Health/Watch", "/no.such.Service/Method"]:
        assert await status(path) == grpc.StatusCode.UNIMPLEMENTED


def test_reflection_tells_of_the_services_that_are_routed() -> None:
    assert sorted(reflection.PUBLIC) == sorted(services(public=True))


NATIVE_REFUSALS = {
    "unknown": ("/no.such.Service/Method", b"", grpc.StatusCode.UNIMPLEMENTED, "UNKNOWN_PATH"),
    "too large": (
        *("/khesht.items.v1.ItemsService/CreateItem", b"x" * 300_000),
        *(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_LARGE"),
    ),
    "down": (
        *("/khesht.usage.v1.UsageService/ListUsage", b""),
        *(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE"),
    ),
}


@pytest.mark.parametrize("case", NATIVE_REFUSALS)
async def test_refusals_of_native_calls_have_grpcs_code_and_details(edge: Edge, case: str) -> None:
    path, body, code, reason = NATIVE_REFUSALS[case]
    async with grpc.aio.insecure_channel(edge.urls["grpc"].removeprefix("http://")) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary(path)(body, timeout=10)
    error = refused.value
    assert (error.code(), status.reason_of(error)) == (code, reason)
    trailers = dict(error.trailing_metadata() or ())
    told = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    assert (told.code, told.message) == (code.value[0], error.details())
    retry = error_details_pb2.RetryInfo()
    retries = [each.Unpack(retry) for each in told.details]
    assert any(retries) == (code is grpc.StatusCode.UNAVAILABLE)
    assert retry.retry_delay.seconds == (1 if any(retries) else 0)


@pytest.mark.parametrize("case", ["too large", "down"])
async def test_refusals_of_grpc_web_are_what_its_clients_read(edge: Edge, case: str) -> None:
    path, body, code, reason = NATIVE_REFUSALS[case]
    kind = "application/grpc-web+proto"
    async with (
        aiohttp.ClientSession(edge.urls["rest"]) as session,
        session.post(path, data=body, headers={"content-type": kind}) as answer,
    ):
        text = await answer.read()
    assert (answer.status, answer.content_type) == (200, kind)
    told = answer.headers if "grpc-status" in answer.headers else _trailers(text)
    assert int(told["grpc-status"]) == code.value[0]
    details = base64.b64decode(told["grpc-status-details-bin"] + "==")
    info = error_details_pb2.ErrorInfo()
    assert status_pb2.Status.FromString(details).details[0].Unpack(info)
    assert (info.reason, info.domain) == (reason, "khesht")


def _trailers(frame: bytes) -> dict[str, str]:
    """The trailers in the last frame of a body of gRPC-Web."""
    lines = frame[5:].decode().strip().split("\r\n")
    return dict(line.split(":", 1) for line in lines)
