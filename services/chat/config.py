"""Settings of chat."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr

from mesh.config import Address, ConfigError, ServiceSettings
from services.chat.domain.models import Catalog


class Config(ServiceSettings):
    """What chat is told at start. Times are seconds, lengths are characters."""

    usage_address: Address
    models_file: Path = Path(__file__).with_name("models.toml")
    openai_api_key: SecretStr | None = None
    openai_base_url: Annotated[str, Field(pattern=r"^https?://[^\s?#]+$")] = (
        "https://api.openai.com/v1"
    )
    message_limit: Annotated[int, Field(ge=1, le=200_000)] = 10_000
    history_limit: Annotated[int, Field(ge=1, le=1_000)] = 50
    # How long a provider may take to connect, to send anything, and in all.
    provider_connect_timeout: Annotated[float, Field(gt=0, le=60)] = 3.0
    # Less than the 60 after which the edge cuts a silent stream: its reader has to be told.
    provider_idle_timeout: Annotated[float, Field(gt=0, le=50)] = 30.0
    provider_total_timeout: Annotated[float, Field(gt=0, le=600)] = 570.0

    @property
    def configured(self) -> frozenset[str]:
        """The providers that can be called here."""
        return frozenset({"echo"} | ({"openai"} if self.openai_api_key else set()))

    def catalog(self) -> Catalog:
        """The models in the file. Raises ConfigError."""
        try:
            return Catalog.read(self.models_file, self.configured)
        except ValueError as wrong:
            raise ConfigError(str(wrong)) from None

    def check(self) -> None:
        """Reads the models file. Raises ConfigError."""
        self.catalog()
