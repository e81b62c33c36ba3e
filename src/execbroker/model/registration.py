"""What the registry of the Virtual Observatory is told of a broker."""

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field


class ContactSettings(BaseModel):
    """Who answers questions."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = Field(None, min_length=1, description="Who answers questions: a person, or a desk.")
    email: str | None = Field(None, pattern=r"^\S+@\S+$", description="Where they are sent.")


class RegistrySettings(BaseModel):
    """How the broker is described to people, and to the registry."""

    model_config = ConfigDict(extra="forbid")

    identifier: str | None = Field(
        None, pattern=r"^ivo://[\w.~*'()-]{3,}/[^\s?#]+$", description="The broker's IVOA identifier: ivo://authority/name."
    )
    title: str | None = Field(None, min_length=1, description="What the broker is called.")
    short_name: str | None = Field(None, min_length=1, max_length=16, description="The same in 16 characters.")
    description: str | None = Field(None, min_length=1, description="What may be run here, by whom, on what.")
    publisher: str | None = Field(None, min_length=1, description="The organisation that runs the broker.")
    contact: ContactSettings = Field(default_factory=ContactSettings, description="Who answers questions.")
    subjects: list[str] = Field(
        ["virtual-observatories"], min_length=1, description="What it is about, in words of the Unified Astronomy Thesaurus."
    )
    reference_url: str | None = Field(None, pattern=r"^https?://\S+$", description="A page for people on this broker.")
    created: AwareDatetime | None = Field(None, description="Since when it is registered, such as 2026-11-22T12:00:00Z.")
    example: str = Field(
        "https://example.org/analysis.ipynb", description="A notebook that everybody may run here, for the examples."
    )

    def missing(self) -> dict[str, str]:
        """The keys that a record needs and that are not there, with what they say."""
        needed = ("identifier", "title", "description", "publisher", "reference_url", "created")
        found = {f"registry.{key}": self._says(key) for key in needed if getattr(self, key) is None}
        contact = {key: ContactSettings.model_fields[key].description or "" for key in ("name", "email")}
        return found | {f"registry.contact.{key}": text for key, text in contact.items() if getattr(self.contact, key) is None}

    def _says(self, key: str) -> str:
        return type(self).model_fields[key].description or ""
