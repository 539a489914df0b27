"""The certificate by which a process of the mesh shows who it is."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import grpc


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate chain, its private key, and the authority that peers must have."""

    chain: bytes
    key: bytes = field(repr=False)
    authority: bytes = field(repr=False)

    @classmethod
    def read(cls, chain: Path, key: Path, authority: Path) -> Self:
        """The certificate in three PEM files. Raises OSError."""
        return cls(chain.read_bytes(), key.read_bytes(), authority.read_bytes())

    def for_server(self) -> grpc.ServerCredentials:
        """Credentials of a server that lets in only peers of the same authority."""
        return grpc.ssl_server_credentials(
            [(self.key, self.chain)], self.authority, require_client_auth=True
        )
