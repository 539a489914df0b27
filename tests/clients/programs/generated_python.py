"""What users of a client that openapi-python-client made do: its functions, by the calls in a file.

Given the folder of the generated package `khesht_client` and a file of calls, it prints of each the
status and the type of what was read, as JSON.
"""

import importlib
import json
import os
import pkgutil
import sys
import typing
from pathlib import Path
from uuid import UUID

folder, calls = sys.argv[1:]
sys.path.insert(0, folder)
import khesht_client  # noqa: E402 - made a moment ago
from khesht_client import api  # noqa: E402

# Functions by the name of the operation, without the case and the joints that differ.
FUNCTIONS = {
    name.rsplit(".", 1)[1].replace("_", ""): importlib.import_module(name)
    for _, name, is_package in pkgutil.walk_packages(api.__path__, f"{api.__name__}.")
    if not is_package
}


def made(annotation, value):
    """`value` as the first of the annotation's types that takes the whole of it."""
    for kind in typing.get_args(annotation) or (annotation,):
        if hasattr(kind, "from_dict"):
            try:
                body = kind.from_dict(value)
            except KeyError:  # The other form.
                continue
            assert body.to_dict() == value, (body.to_dict(), value)
            return body
        if kind in (UUID, int, str):
            return kind(value)
    raise TypeError(f"{value} is none of {annotation}")


def call(told):
    module = FUNCTIONS[told["operation"].replace("_", "").lower()]
    wants = typing.get_type_hints(module.sync_detailed)
    given = dict(told["names"])
    if told["body"] is not None:
        given["body"] = told["body"]
    arguments = {name: made(wants[name], value) for name, value in given.items()}
    url = os.environ["KHESHT_URL"]
    client = khesht_client.AuthenticatedClient(
        base_url=url, token=told["token"], raise_on_unexpected_status=True, timeout=30
    )
    with client:
        answer = module.sync_detailed(client=client, **arguments)
    return {
        "status": int(answer.status_code),
        "type": type(answer.parsed).__name__,
        "text": answer.parsed if isinstance(answer.parsed, str) else None,
        # Of a model, what was there and has no field.
        "more": sorted(getattr(answer.parsed, "additional_properties", ())),
    }


print(json.dumps([call(told) for told in json.loads(Path(calls).read_text())]))
