"""What the broker says of itself to programs of the Virtual Observatory: VOSI 1.1, VOResource 1.1."""

from collections.abc import Iterator
from datetime import UTC, datetime
from xml.etree import ElementTree as ET
from xml.etree.ElementTree import Element, SubElement

from execbroker.config import AuthSettings, Config
from execbroker.errors import StartupError
from execbroker.model.registration import RegistrySettings
from execbroker.model.times import format_instant

BROKER = "ivo://ivoa.net/std/ExecutionBroker#v1.0"
"""The standard itself names none yet."""
STANDARDS = {
    "/capabilities": "ivo://ivoa.net/std/VOSI#capabilities",
    "/availability": "ivo://ivoa.net/std/VOSI#availability",
    "/examples": "ivo://ivoa.net/std/DALI#examples",
}
SSO = "ivo://ivoa.net/sso#"
_XSI = "http://www.w3.org/2001/XMLSchema-instance"
_VOSI = "http://www.ivoa.net/xml/VOSICapabilities/v1.0"
_AVAILABILITY = "http://www.ivoa.net/xml/VOSIAvailability/v1.0"
_VS = "http://www.ivoa.net/xml/VODataService/v1.1"
_VR = "http://www.ivoa.net/xml/VOResource/v1.0"
_RI = "http://www.ivoa.net/xml/RegistryInterface/v1.0"
_TYPE = f"{{{_XSI}}}type"
for _prefix, _namespace in {"xsi": _XSI, "vosi": _VOSI, "avail": _AVAILABILITY, "ri": _RI}.items():
    ET.register_namespace(_prefix, _namespace)


def security_methods(auth: AuthSettings) -> list[str]:
    """How people say who they are here, as IVOA SSO names it; none where nobody is asked."""
    if auth.mode == "accounts":
        return [f"{SSO}BasicAA"] + ([f"{SSO}OpenID"] if auth.issuers else [])
    return [f"{SSO}token"] if auth.mode == "token" else []


def capabilities(auth: AuthSettings, base: str) -> bytes:
    """The document of `GET /capabilities`."""
    root = Element(f"{{{_VOSI}}}capabilities", {"xmlns:vs": _VS})
    root.extend(_capabilities(auth, base))
    return _written(root)


def availability(since: datetime, trouble: str | None) -> bytes:
    """The document of `GET /availability`: up since then, or what the trouble is."""
    root = Element(f"{{{_AVAILABILITY}}}availability")
    _add(root, f"{{{_AVAILABILITY}}}available", "false" if trouble else "true")
    _add(root, f"{{{_AVAILABILITY}}}upSince", format_instant(since))
    if trouble:
        _add(root, f"{{{_AVAILABILITY}}}note", trouble)
    return _written(root)


def record(config: Config, now: datetime) -> bytes:
    """The VOResource record of the broker. Raises StartupError, naming every setting that is missing."""
    registry, missing = config.registry, config.registry.missing()
    if config.public_url is None:
        missing["public_url"] = Config.model_fields["public_url"].description or ""
    if missing:
        raise StartupError("\n".join(["The record needs in the configuration:", *(f"  {k}: {v}" for k, v in missing.items())]))
    assert registry.created
    times = {"created": format_instant(registry.created.astimezone(UTC)), "updated": format_instant(now), "status": "active"}
    root = Element(f"{{{_RI}}}Resource", {_TYPE: "vr:Service", "xmlns:vr": _VR, "xmlns:vs": _VS, **times})
    _add(root, "title", registry.title)
    if registry.short_name:
        _add(root, "shortName", registry.short_name)
    _add(root, "identifier", registry.identifier)
    _add_people(root, registry)
    root.extend(_capabilities(config.auth, (config.public_url or "").rstrip("/")))
    return _written(root)


def _add_people(root: Element, registry: RegistrySettings) -> None:
    """Who runs it, and what it is about."""
    curation = SubElement(root, "curation")
    _add(curation, "publisher", registry.publisher)
    contact = SubElement(curation, "contact")
    _add(contact, "name", registry.contact.name)
    _add(contact, "email", registry.contact.email)
    content = SubElement(root, "content")
    for subject in registry.subjects:
        _add(content, "subject", subject)
    _add(content, "description", registry.description)
    _add(content, "referenceURL", registry.reference_url)


def _capabilities(auth: AuthSettings, base: str) -> Iterator[Element]:
    for path, standard in STANDARDS.items():
        found = Element("capability", standardID=standard)
        _add_interface(found, f"{base}{path}", "full", "", "1.1")
        yield found
    found = Element("capability", standardID=BROKER)
    for method in security_methods(auth) or [""]:
        _add_interface(found, base, "base", method, "1.0")
    yield found


def _add_interface(capability: Element, url: str, use: str, method: str, version: str) -> None:
    """An interface has one way to log in at most (VOResource 1.1, erratum 1): one for each."""
    attributes = {_TYPE: "vs:ParamHTTP", "role": "std", "version": version}
    interface = SubElement(capability, "interface", attributes)
    _add(interface, "accessURL", url).set("use", use)
    if method:
        SubElement(interface, "securityMethod", standardID=method)


def _add(parent: Element, name: str, text: str | None) -> Element:
    found = SubElement(parent, name)
    found.text = text
    return found


def _written(root: Element) -> bytes:
    ET.indent(root)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"
