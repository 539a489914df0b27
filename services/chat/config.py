"""Settings of chat."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, PrivateAttr, SecretStr

from mesh.config import Address, CallLimits, ConfigError, ServiceSettings, setting
from mesh.time_limits import EARLY_HEADERS_AFTER_S, LONGEST_ANSWER_S, PING_INTERVAL_S
from services.chat.domain import addresses
from services.chat.domain.models import Catalog, Listing, ModelsFile
from services.chat.domain.provider import Account, Bounds, Timeouts

Url = Annotated[str, Field(pattern=r"^https?://[^\s?#]+$")]

# Providers that need not be listed: the settings of their address and key, and how keys begin.
_BUILT_IN = {
    "openai": ("openai_base_url", "openai_api_key", "sk-"),
    "groq": ("groq_base_url", "groq_api_key", "gsk_"),
    "huggingface": ("hf_base_url", "hf_token", "hf_"),
}
# What a message has beside the body in it.
_AROUND_A_BODY_BYTES = 64 << 10
_BOUNDS = ("concurrency", "retries", "breaker_failures", "breaker_pause")


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
    # How long a provider may take to connect, to begin, between two parts, and in all, unless
    # the models file says it.
    provider_connect_timeout: Annotated[float, Field(gt=0, le=50)] = 3.0
    provider_first_byte_timeout: Annotated[float, Field(gt=0, le=LONGEST_ANSWER_S)] = 30.0
    provider_idle_timeout: Annotated[float, Field(gt=0, le=LONGEST_ANSWER_S)] = 30.0
    provider_total_timeout: Annotated[float, Field(gt=0, le=LONGEST_ANSWER_S)] = 570.0
    # After how long the headers of a stream go out without a first event, and how long it says
    # nothing from then on. The edge cuts what is silent for 60.
    stream_headers_after: Annotated[float, Field(ge=0, le=30)] = EARLY_HEADERS_AFTER_S
    stream_ping_interval: Annotated[float, Field(ge=0.01, le=30)] = PING_INTERVAL_S
    _file: ModelsFile = PrivateAttr()
    _listed_keys: dict[str, SecretStr] = PrivateAttr(default_factory=dict)

    @classmethod
    def load(cls, environment: Mapping[str, str]) -> Self:
        """The settings, those of the models file too. Raises ConfigError."""
        config = super().load(environment)
        try:
            config._file = ModelsFile.read(config.models_file)
        except ValueError as wrong:
            raise config._wrong_file(wrong) from None
        for name, listing in config._file.providers.items():
            if listing.key_env and (key := setting(environment, listing.key_env)):
                config._listed_keys[name] = SecretStr(key)
        return config

    # Whether text is written down while it comes, so that it outlives this process.
    journal: bool = True
    generations_kept_days: Annotated[int, Field(ge=1, le=3650)] = 30
    # MiB of text, and of what is relayed for it, that one reply may have.
    reply_limit_mib: Annotated[int, Field(ge=1, le=1_024)] = 64
    # MiB of one request, which the edge limits before, and of all that are above 256 KiB at once.
    body_limit_mib: Annotated[int, Field(ge=1, le=64)] = 20
    large_bodies_mib: Annotated[int, Field(ge=16, le=4_096)] = 48
    # Tokens of a reply for which there has to be money, or its provider is not asked.
    budget_floor_tokens: Annotated[int, Field(ge=1, le=100_000)] = 16
    # Of one account: background tasks that wait for a worker, and chats.
    waiting_tasks_limit: Annotated[int, Field(ge=1, le=100_000)] = 1_000
    chats_limit: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    # How many background tasks a worker runs at once.
    worker_concurrency: Annotated[int, Field(ge=1, le=500)] = 20

    @property
    def call_limits(self) -> CallLimits:
        """As of all services, with room for pictures."""
        return replace(
            super().call_limits,
            request_bytes=(self.body_limit_mib << 20) + _AROUND_A_BODY_BYTES,
            large_requests_bytes=self.large_bodies_mib << 20,
        )

    @property
    def accounts(self) -> tuple[Account, ...]:
        """The providers that speak OpenAI's format, those without a key of ours too.

        Raises ConfigError for one whose address would not do.
        """
        listed = self._file.providers
        names = [*_BUILT_IN, *(name for name in listed if name not in _BUILT_IN)]
        try:
            return tuple(self._account(name, listed.get(name, Listing())) for name in names)
        except ValueError as wrong:
            raise self._wrong_file(wrong) from None

    @property
    def configured(self) -> frozenset[str]:
        """The providers that can be called here."""
        return frozenset({"echo", *(account.name for account in self.accounts if account.usable)})

    def catalog(self) -> Catalog:
        """The models in the file. Raises ConfigError."""
        known = frozenset({"echo", *(account.name for account in self.accounts)})
        try:
            return self._file.catalog(self.configured, known)
        except ValueError as wrong:
            raise self._wrong_file(wrong) from None

    def check(self) -> list[str]:
        """Compares what the models file says too. Raises ConfigError."""
        warnings = super().check()
        self.catalog()
        return [*warnings, *(f"MODELS_FILE: {text}" for text in self._file.warnings())]

    def _account(self, name: str, listing: Listing) -> Account:
        url, given, prefix = listing.url, True, ""
        key = self._listed_keys.get(name)
        if name in _BUILT_IN:
            of_url, of_key, prefix = _BUILT_IN[name]
            given = url is not None or of_url in self.model_fields_set
            if url is None or of_url in self.model_fields_set:
                url = getattr(self, of_url)
            key = key or getattr(self, of_key)
        if url is None:
            raise ValueError(f"providers.{name}: url is missing")
        host = urlsplit(url).hostname or ""
        private = listing.allow_private or (given and addresses.is_own(host))
        _check_address(name, url, host, private=private)
        bounds = {each: getattr(listing, each) for each in _BOUNDS}
        return Account(
            name,
            url,
            key.get_secret_value() if key else "",
            prefix if listing.key_prefix is None else listing.key_prefix,
            needs_key=name in _BUILT_IN or listing.key_env is not None,
            private=private,
            timeouts=Timeouts(
                listing.connect or self.provider_connect_timeout,
                listing.first_byte or self.provider_first_byte_timeout,
                listing.idle or self.provider_idle_timeout,
                listing.total or self.provider_total_timeout,
            ),
            bounds=Bounds(**{each: value for each, value in bounds.items() if value is not None}),
            key_header=listing.key_header or "",
            query=tuple(listing.query.items()),
        )

    def _wrong_file(self, wrong: ValueError) -> ConfigError:
        return ConfigError(f"MODELS_FILE: {self.models_file.name}: {wrong}")


def _check_address(name: str, url: str, host: str, *, private: bool) -> None:
    """Raises ValueError where a key would go out in the clear, or to no provider."""
    if not url.startswith("https:") and not private:
        raise ValueError(
            f"providers.{name}: {url} must be https,"
            " unless allow_private = true says there that it is in a network of your own"
        )
    if addresses.is_literal(host) and not addresses.permitted(host, private=private):
        raise ValueError(f"providers.{name}: {host} is no address of a provider")
