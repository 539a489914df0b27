"""Whether the process of this container serves: `python -m mesh.local.probe` exits with 0 if so.

It reads the same LISTEN and TLS_…_FILE as the process, and asks by its certificate.
"""

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from cryptography import x509

from mesh.local.certificates import Identity, uri_name
from mesh.local.ready import grpc_ready


async def serves(environment: Mapping[str, str]) -> bool:
    """Whether the process that was told `environment` says SERVING; raises if it does not answer."""
    cert, key, ca = (Path(environment[f"TLS_{each}_FILE"]) for each in ("CERT", "KEY", "CA"))
    port = int(environment["LISTEN"].rpartition(":")[2])
    return await grpc_ready(_name(cert), port, Identity(cert, key, ca))()


def _name(file: Path) -> str:
    certificate = x509.load_pem_x509_certificate(file.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
    return uri.removeprefix(uri_name(""))


if __name__ == "__main__":
    try:
        sys.exit(not asyncio.run(serves(os.environ)))
    except Exception as error:
        sys.exit(f"no answer: {error}")  # `docker inspect` shows it.
