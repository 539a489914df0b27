"""Options of channels and certificates that faults would need to show."""

import json
from dataclasses import fields
from pathlib import Path

import pytest

from mesh import client, server
from mesh.tls import Certificate


def options(*repeatable: str) -> dict[str, str | int]:
    return dict(client._options("keys", repeatable))


def test_only_what_is_named_is_tried_again():
    plain = json.loads(str(options()["grpc.service_config"]))
    told = json.loads(str(options("a.b.C/D", "a.b.C/E")["grpc.service_config"]))
    assert plain["methodConfig"] == []
    (config,) = told["methodConfig"]
    assert config["name"] == [
        {"service": "a.b.C", "method": "D"},
        {"service": "a.b.C", "method": "E"},
    ]
    assert config["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]


def test_a_name_without_a_method_is_refused():
    with pytest.raises(ValueError, match="zip"):
        options("a.b.C")


def test_replicas_that_are_not_healthy_are_passed_over():
    config = json.loads(str(options()["grpc.service_config"]))
    assert config["loadBalancingConfig"] == [{"round_robin": {}}]  # pick_first asks no health.
    assert config["healthCheckConfig"] == {"serviceName": ""}


def test_a_frozen_peer_is_given_up_in_seconds():
    assert int(options()["grpc.keepalive_time_ms"]) <= 10_000
    assert int(options()["grpc.http2.ping_timeout_ms"]) <= 3_000


def test_servers_take_the_pings_of_our_own_clients():
    theirs = dict(server._OPTIONS)
    every = int(options()["grpc.keepalive_time_ms"])
    assert theirs["grpc.http2.min_ping_interval_without_data_ms"] <= every
    assert theirs["grpc.keepalive_permit_without_calls"] == 1
    assert theirs["grpc.so_reuseport"] == 0


def test_a_connection_that_grew_old_lasts_longer_than_any_stream():
    longest = 600_000  # What the contract of StreamReply is given.
    assert dict(server._OPTIONS)["grpc.max_connection_age_grace_ms"] > longest


def test_certificates_name_services_and_not_machines():
    assert options()["grpc.ssl_target_name_override"] == "keys.khesht.internal"


def test_a_certificate_does_not_show_its_key(tmp_path: Path):
    for name in ("chain", "key", "ca"):
        (tmp_path / name).write_bytes(f"content of {name}".encode())
    read = Certificate.read(tmp_path / "chain", tmp_path / "key", tmp_path / "ca")
    assert {field.name for field in fields(read)} == {"chain", "key", "authority"}
    assert read.key == b"content of key"
    assert "content of key" not in repr(read)
    with pytest.raises(FileNotFoundError):
        Certificate.read(tmp_path / "missing", tmp_path / "key", tmp_path / "ca")
