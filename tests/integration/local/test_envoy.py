"""Envoy's configuration and its arguments, by the real Envoy."""

from pathlib import Path

import pytest

from mesh.local.envoy import render, validate
from mesh.local.errors import LocalError

TEMPLATE = """
admin: {address: {socket_address: {address: 127.0.0.1, port_value: ${ADMIN_PORT}}}}
static_resources:
  clusters:
  - name: costs_$$5
    connect_timeout: ${TIMEOUT}
"""


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "envoy.yaml.template"
    path.write_text(TEMPLATE)
    return path


def test_a_rendered_template_is_accepted(template: Path) -> None:
    config = template.with_name("envoy.yaml")
    config.write_text(render(template, {"ADMIN_PORT": "0", "TIMEOUT": "1s"}))

    validate(config)

    assert "name: costs_$5\n" in config.read_text()


def test_a_refused_configuration_is_told_with_its_reason(template: Path) -> None:
    config = template.with_name("envoy.yaml")
    config.write_text(render(template, {"ADMIN_PORT": "0", "TIMEOUT": "soon"}))

    with pytest.raises(LocalError, match=rf"Envoy refuses {config}:[^§]*soon"):
        validate(config)


def test_a_missing_value_is_named(template: Path) -> None:
    with pytest.raises(LocalError, match=f"{template} wants TIMEOUT"):
        render(template, {"ADMIN_PORT": "0"})


def test_a_lone_dollar_sign_is_placed(template: Path) -> None:
    template.write_text("one\ntwo: ^[a-z]$\n")

    with pytest.raises(LocalError, match=f"{template}: .* line 2"):
        render(template, {})
