from datetime import timedelta
from importlib.metadata import entry_points
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, SerializeAsAny, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from execbroker.errors import StartupError
from execbroker.model.registration import RegistrySettings
from execbroker.model.times import Duration
from execbroker.places import data_folder, is_loopback, is_protected
from execbroker.platforms.base import Platform, PlatformSettings
from execbroker.staging.base import DataSettings


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AdminSettings(Section):
    """Who makes the accounts."""

    username: str = Field(pattern=r"^[^:\s]+$", description="The admin's name.")
    password: SecretStr = Field(min_length=8, description="The admin's password.")


class IntrospectionSettings(Section):
    """How an issuer is asked what it knows of a token (RFC 7662)."""

    client_id: str = Field(min_length=1, description="The broker's own client at the issuer.")
    client_secret: SecretStr = Field(min_length=1, description="The secret of that client.")
    cache: Duration = Field(timedelta(seconds=30), ge=timedelta(0), description="How long an answer counts.")


class IssuerSettings(Section):
    """An OpenID Connect issuer whose tokens are trusted."""

    issuer: str = Field(
        max_length=255, description="Its address, exactly as in the `iss` of its tokens: https, or http on this machine."
    )
    audience: list[str] = Field(min_length=1, description="What `aud` of a token for this broker names: one of these.")
    client_id: str | None = Field(None, description="The public client by which `execbroker login` logs people in.")
    scopes: list[str] = Field(["openid", "profile", "offline_access"], description="What `execbroker login` asks for.")
    groups: str = Field("groups", min_length=1, description="The claim with a person's groups; dots lead to what is inside one.")
    name: str = Field("preferred_username", min_length=1, description="The claim with a person's name; without it, `sub` counts.")
    introspection: IntrospectionSettings | None = Field(None, description="Ask it whether a token was revoked.")
    skew: Duration = Field(timedelta(seconds=30), ge=timedelta(0), description="How far its clock and ours may be apart.")
    keys: Duration = Field(timedelta(hours=1), gt=timedelta(0), description="After how long its keys are fetched again.")

    @field_validator("issuer")
    @classmethod
    def _protected(cls, issuer: str) -> str:
        if not is_protected(issuer) or "?" in issuer or "#" in issuer:
            raise ValueError(
                "an issuer is an https address without query, such as https://iam.example.org; http on loopback only"
            )
        return issuer


class AuthSettings(Section):
    """Who may ask."""

    mode: Literal["token", "none", "accounts"] = Field(
        "token",
        description="token: requests carry the token of the data folder; accounts: each has an account, here or at an issuer of "
        "`auth.issuers`; none: anyone, allowed on loopback only.",
    )
    admin: AdminSettings | None = Field(None, description="Who makes accounts, stops what is another's, and sees the metrics.")
    issuers: list[IssuerSettings] = Field([], description="Whose tokens are trusted.")
    public: bool = Field(
        default=False, description="Whether anyone who knows the uuid of an offerset or a session may see its face: no contents."
    )


class OfferSettings(Section):
    """What is offered."""

    extension: Duration = Field(timedelta(days=1), description="By how much a session can be made longer at a time, at most.")
    held_owner: int | None = Field(None, ge=0, description="How many core-hours one owner's offers may hold unaccepted.")
    held_all: int | None = Field(None, ge=0, description="How many core-hours all offers may hold unaccepted.")
    limit: int = Field(4, ge=1, le=100, description="How many offers a request gets at most.")
    expires: Duration = Field(timedelta(minutes=5), description="How long an offer is held for an answer.")
    horizon: Duration = Field(timedelta(days=1), description="How far ahead a session may start where the request is silent.")
    duration: Duration = Field(timedelta(minutes=30), description="How long a session is where the request is silent.")
    longest: Duration = Field(timedelta(days=1), description="How long a session is at most under the objective `longest`.")
    cores: int = Field(2, ge=1, description="How many cores where the request is silent.")
    memory: int = Field(2, ge=1, description="How much memory where the request is silent, in GiB.")
    storage: int = Field(1, ge=1, description="The size of a storage that names none, in GiB.")
    lifetime: Duration = Field(timedelta(days=1), description="How long storage is kept after the end, by default.")


class RetentionSettings(Section):
    """When what is old is deleted."""

    sessions: Duration = Field(timedelta(days=30), description="Ended sessions, with their home folders, output and messages.")
    offersets: Duration = Field(timedelta(days=1), description="Offers that nobody took.")
    replies: Duration = Field(timedelta(days=1), description="Replies that are kept under an Idempotency-Key.")


class RateSettings(Section):
    """How often one may ask. What is left out is generous in the modes with several identities, and unlimited in the others."""

    requests: float | None = Field(None, gt=0, description="Requests a second of one identity, in the long run.")
    burst: int = Field(2000, ge=1, description="How many of them may come at once.")
    asks: float | None = Field(None, gt=0, description="Of these, a second, POST /requests and /direct, which cost more.")
    ask_burst: int = Field(200, ge=1, description="How many of them may come at once.")
    anonymous: float | None = Field(None, gt=0, description="Requests a second, from one address, of who does not say who it is.")
    failures: int | None = Field(
        None, ge=1, description="How many logins may fail, by address and by username, before one waits."
    )


class ConnectionSettings(Section):
    """What one connection may cost."""

    all: int = Field(8192, ge=16, description="How many there may be; fewer where the system gives the broker fewer files.")
    address: int = Field(
        512, ge=1, description="How many from one address; this machine, and `proxies`, may have as many as there are."
    )
    head: Duration = Field(timedelta(seconds=15), description="How long the head of a request may take, and a TLS handshake.")
    pause: Duration = Field(timedelta(seconds=15), description="How long nothing may come of a body that is not yet complete.")
    body: Duration = Field(timedelta(minutes=2), description="How long a body may take in all.")
    reply: Duration = Field(timedelta(minutes=1), description="How long a client may take to read what was buffered for it.")


class CallbackSettings(Section):
    """Whom requests may have told of events."""

    allow: bool = Field(default=True, description="Whether requests may name addresses that are told of events.")
    allow_http: bool = Field(default=False, description="Whether these may be http, not only https.")
    allow_private: list[str] = Field(
        default_factory=list,
        description="Hosts, addresses or networks (10.0.0.0/8) that may be told although they are private.",
    )
    timeout: Duration = Field(timedelta(seconds=10), description="How long one of them may take to answer.")
    longest_wait: Duration = Field(timedelta(hours=1), description="How long lies between two tries at most.")
    at_once: int = Field(64, ge=1, le=100, description="How many of them are told something at the same time.")


class LimitSettings(Section):
    """What one request may cost."""

    body: int = Field(1 << 20, ge=1024, description="The largest body of a request, in bytes.")
    depth: int = Field(64, ge=8, description="How deep a document may be nested.")
    output: int = Field(10 << 20, ge=0, description="How much of a session's stdout, and of its stderr, is kept, in bytes.")
    rate: RateSettings = Field(default_factory=RateSettings, description="How often one may ask.")
    connections: ConnectionSettings = Field(default_factory=ConnectionSettings, description="What one connection may cost.")


class TlsSettings(Section):
    """With which certificate the broker speaks HTTPS."""

    certificate: Path | None = Field(None, description="A PEM file: the broker's certificate, and those between it and the root.")
    key: Path | None = Field(None, description="A PEM file: the certificate's private key, without a passphrase.")

    @model_validator(mode="after")
    def _both(self) -> "TlsSettings":
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a certificate and its key are needed, or neither")
        return self


class AuditSettings(Section):
    """The log of who did what."""

    log: Path | Literal["off"] | None = Field(None, description="A file; in the folder, audit.jsonl, where left out; or off.")
    size: int = Field(10 << 20, ge=4096, description="How large a file gets, in bytes, before the next is begun.")
    files: int = Field(10, ge=1, description="How many of them are kept.")

    @field_validator("log", mode="before")
    @classmethod
    def _off(cls, value: Any) -> Any:
        return "off" if value is False else value  # which is what YAML makes of it


class Config(BaseSettings):
    """Everything that can be set: in the YAML file, or as EXECBROKER_<KEY> (EXECBROKER_AUTH__MODE for `auth.mode`)."""

    model_config = SettingsConfigDict(env_prefix="EXECBROKER_", env_nested_delimiter="__", extra="forbid")

    host: str = Field("127.0.0.1", description="The address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="The port to listen on; 0 for any that is free.")
    folder: Path = Field(default_factory=data_folder, description="Where the broker keeps its database, token and sessions.")
    database: SecretStr | None = Field(
        None, description="The address of a PostgreSQL database, for several brokers; else the ledger is a file in the folder."
    )
    public_url: str | None = Field(None, description="The address under which clients reach the broker, where it is another one.")
    proxies: list[IPv4Network | IPv6Network] = Field(
        default_factory=list, description="Addresses, or networks, of proxies that tell truly on whose behalf they come."
    )
    tls: TlsSettings = Field(default_factory=TlsSettings, description="With which certificate the broker speaks HTTPS.")
    audit: AuditSettings = Field(default_factory=AuditSettings, description="The log of who did what.")
    reply: Literal["body", "redirect"] = Field("body", description="Answer POST /requests and /direct with 200, or with 303.")
    media_type: Literal["json", "yaml", "xml"] = Field(
        "json", description="What is spoken to clients that do not say what they read."
    )
    auth: AuthSettings = Field(default_factory=AuthSettings, description="Who may ask.")
    offers: OfferSettings = Field(default_factory=OfferSettings, description="What is offered.")
    data: DataSettings = Field(default_factory=DataSettings, description="What may be fetched.")
    callbacks: CallbackSettings = Field(default_factory=CallbackSettings, description="Whom requests may have told of events.")
    retention: RetentionSettings = Field(default_factory=RetentionSettings, description="When what is old is deleted.")
    limits: LimitSettings = Field(default_factory=LimitSettings, description="What one request may cost.")
    registry: RegistrySettings = Field(default_factory=RegistrySettings, description="How the broker describes itself.")
    platforms: list[SerializeAsAny[PlatformSettings]] = Field(
        default_factory=lambda: [platform_settings({"name": "local", "type": "local"})],
        min_length=1,
        description="Where sessions can run; without any, this machine, as `local`.",
    )

    @field_validator("platforms", mode="before")
    @classmethod
    def _by_type(cls, documents: Any) -> Any:
        return [platform_settings(document) for document in documents] if isinstance(documents, list) else documents

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        names = [platform.name for platform in self.platforms]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"platforms: the name {', '.join(sorted(twice))} is used twice")
        whole = [platform.name for platform in self.platforms if platform.type == "local" and not platform.nodes]
        if len(whole) > 1:
            raise ValueError(f"platforms: {', '.join(whole)} would each offer all of this machine; give them `nodes`")
        if self.auth.mode == "none" and not is_loopback(self.host):
            raise ValueError(f"auth.mode: none is allowed on loopback only, not on {self.host}")
        if self.auth.mode == "accounts" and not self.auth.admin:
            raise ValueError("auth.mode: accounts needs `auth.admin`, who makes them: a username and a password of 8 characters")
        if self.auth.mode != "accounts" and (self.auth.admin or self.auth.issuers):
            key = "admin" if self.auth.admin else "issuers"
            raise ValueError(f"auth.{key} means nothing where auth.mode is {self.auth.mode}: it needs accounts")
        issuers = [one.issuer for one in self.auth.issuers]
        if twice := {issuer for issuer in issuers if issuers.count(issuer) > 1}:
            raise ValueError(f"auth.issuers: {', '.join(sorted(twice))} is there twice")
        return self


def platform_class(type_: str) -> type[Platform]:
    """The platform of this entry point. Raises ValueError, with the names there are."""
    points = {point.name: point for point in entry_points(group="execbroker.platforms")}
    if type_ not in points:
        raise ValueError(f"there is no platform type {type_!r}; installed are {', '.join(sorted(points))}")
    found: type[Platform] = points[type_].load()
    return found


def platform_settings(document: Any) -> PlatformSettings:
    """One entry of `platforms`, read by the settings class of its type."""
    if isinstance(document, PlatformSettings):
        return document
    if not isinstance(document, dict) or not isinstance(document.get("type"), str):
        raise ValueError("each platform needs a `name` and a `type`")
    return platform_class(document["type"]).Settings.model_validate(document)


def load(path: Path | None = None, **flags: Any) -> Config:
    """The configuration: command-line flags before environment variables before the file before the defaults.

    Raises StartupError, naming every key that is wrong and why.
    """
    document = _read(path) if path else {}
    given = {name: value for name, value in flags.items() if value is not None}

    class Loaded(Config):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, InitSettingsSource(settings_cls, document)

    try:
        return Loaded(**given)
    except SettingsError as error:  # it quotes the key
        name = "EXECBROKER_" + str(error).split('"')[1].upper()
        raise StartupError(f"{name} must be JSON; one key of it alone is set by {name}__<KEY>") from None
    except ValidationError as error:
        faults = [f"  {'.'.join(map(str, fault['loc'])) or 'file'}: {fault['msg']}" for fault in error.errors()]
        raise StartupError("\n".join([f"The configuration{f' in {path}' if path else ''} is wrong:", *faults])) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise StartupError(f"The configuration file {path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StartupError(f"The configuration file {path} is not YAML: {error}") from None
    if not isinstance(document, dict | None):
        raise StartupError(f"The configuration file {path} must be a map of settings")
    return document or {}
