"""Settings of chat."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr

from mesh.config import Address, ConfigError, ServiceSettings
from services.chat.domain.models import Catalog
from services.chat.domain.provider import Account

Url = Annotated[str, Field(pattern=r"^https?://[^\s?#]+$")]


class Config(ServiceSettings):
    """What chat is told at start. Times are seconds, lengths are characters."""

    usage_address: Address
    items_address: Address
    models_file: Path = Path(__file__).with_name("models.toml")
    openai_api_key: SecretStr | None = None
    openai_base_url: Url = "https://api.openai.com/v1"
    groq_api_key: SecretStr | None = None
    groq_base_url: Url = "https://api.groq.com/openai/v1"
    hf_token: SecretStr | None = None
    hf_base_url: Url = "https://router.huggingface.co/v1"
    message_limit: Annotated[int, Field(ge=1, le=200_000)] = 10_000
    history_limit: Annotated[int, Field(ge=1, le=1_000)] = 50
    text_limit: Annotated[int, Field(ge=1, le=250_000)] = 100_000
    # Whether those who bring a provider's key may call without an account.
    anonymous_byok: bool = True
    # How long a provider may take to connect, to send anything, and in all.
    provider_connect_timeout: Annotated[float, Field(gt=0, le=60)] = 3.0
    # Less than the 60 after which the edge cuts a silent stream: its reader has to be told.
    provider_idle_timeout: Annotated[float, Field(gt=0, le=50)] = 30.0
    provider_total_timeout: Annotated[float, Field(gt=0, le=600)] = 570.0

    # Whether text is written down while it comes, so that it outlives this process.
    journal: bool = True
    generations_kept_days: Annotated[int, Field(ge=1, le=3650)] = 30
    # How many background tasks a worker runs at once.
    worker_concurrency: Annotated[int, Field(ge=1, le=500)] = 20

    @property
    def accounts(self) -> tuple[Account, ...]:
        """The providers that speak OpenAI's format, those without a key of ours too."""
        given = (
            ("openai", self.openai_base_url, self.openai_api_key, "sk-"),
            ("groq", self.groq_base_url, self.groq_api_key, "gsk_"),
            ("huggingface", self.hf_base_url, self.hf_token, "hf_"),
        )
        return tuple(
            Account(name, url, key.get_secret_value() if key else "", prefix)
            for name, url, key, prefix in given
        )

    @property
    def configured(self) -> frozenset[str]:
        """The providers that can be called here."""
        return frozenset({"echo", *(account.name for account in self.accounts if account.key)})

    def catalog(self) -> Catalog:
        """The models in the file. Raises ConfigError."""
        try:
            return Catalog.read(self.models_file, self.configured)
        except ValueError as wrong:
            raise ConfigError(str(wrong)) from None

    def check(self) -> None:
        """Reads the models file too. Raises ConfigError."""
        super().check()
        self.catalog()
