"""What rules allow and deny, however it is written."""

from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from execbroker.config import OfferSettings
from execbroker.errors import StartupError
from execbroker.model.policies import SORTS, Policy
from execbroker.model.sessions import ExecutionRequest
from execbroker.offers.asking import understand
from execbroker.policies.images import Image, ImagePattern
from execbroker.policies.locations import Location, LocationPattern
from execbroker.policies.rules import Policies

CONTAINER = {"kind": "docker-container", "image": {"locations": ["a/b"]}}
DIGEST = f"sha256:{'0a' * 32}"


def against(request: dict[str, Any], **policy: Any) -> list[tuple[str, str]]:
    """The short names and the paths of what stands against a request."""
    plan = understand(ExecutionRequest.model_validate({"executable": CONTAINER, **request}), OfferSettings(), 0)
    rule = Policies("site", [Policy(**policy)]).rule([])
    assert rule
    reasons = list(rule.reasons_against(plan))
    return [((one.kind or "").rpartition(":")[2], (one.values or {})["path"]) for one in reasons]


def image(location: str, digest: str | None = None, **more: Any) -> dict[str, Any]:
    return {"executable": {"kind": "docker-container", "image": {"locations": [location], "digest": digest}, **more}}


def notebook(location: str) -> dict[str, Any]:
    return {"executable": {"kind": "jupyter-notebook", "location": location}}


def data(location: str) -> dict[str, Any]:
    return {"data": [{"kind": "simple-data-resource", "location": location}]}


def mounted(path: str) -> dict[str, Any]:
    volume = {"kind": "simple-volume-mount", "resource": "s", "path": path}
    storage = {"kind": "simple-storage-resource", "meta": {"name": "s"}, "size": {"min": 1}}
    return {"storage": [storage], "compute": {"kind": "simple-compute-resource", "volumes": [volume]}}


def s3(**block: Any) -> dict[str, Any]:
    return {"data": [{"kind": "S3-data-resource", "bucket": "b", "object": "o", **block}]}


def ivoa(ivoid: str | None, **more: Any) -> dict[str, Any]:
    found = {"obscore": {"access_url": "https://h.org/x", **more}, **({"ivoid": ivoid} if ivoid else {})}
    return {"data": [{"kind": "ivoa-data-resource", "ivoa": found}]}


def rucio(scope: str, name: str = "file", **more: Any) -> dict[str, Any]:
    return {"data": [{"kind": "rucio-data-resource", "rucio": {"scope": scope, "object": name, **more}}]}


def skao(namespace: str | None) -> dict[str, Any]:
    block = {"namespace": namespace, "replicas": [{"dataurl": "https://h.org/x"}]}
    return {"data": [{"kind": "skao-data-resource", "skao": block}]}


def ports(number: int, which: str = "internal") -> dict[str, Any]:
    return image("a/b", network={"ports": [{which: {"port": number}}]})


def program(location: str) -> dict[str, Any]:
    return {"executable": {"kind": "python-program", "location": location}}


SAME_IMAGE = [
    "python", "python:3.12", "docker.io/python", "docker.io/library/python", "index.docker.io/library/python:latest",
    "DOCKER.IO/library/python", "docker.io:443/library/python", "docker.io./library/python",
    "registry-1.docker.io/library/python", f"python@{DIGEST}", f"python:3@{DIGEST}", "docker://python", "DOCKER://python",
]  # fmt: skip


@pytest.mark.parametrize("location", SAME_IMAGE)
@pytest.mark.parametrize("pattern", ["python", "library/python", "docker.io/library/*", "docker.io/*", "*"])
def test_an_image_is_the_same_however_it_is_written(location: str, pattern: str) -> None:
    assert against(image(location), allow={"images": [pattern]}) == []
    assert against(image(location), deny={"images": [pattern]}) == [("denied", "executable.image.locations[0]")]


@pytest.mark.parametrize(
    ("location", "pattern"),
    [
        ("evil.com/ghcr.io/org/x", "ghcr.io/org/*"),
        ("evil.com/x.example.org/y", "*.example.org/*"),
        ("evil/library/python", "python"),
        ("ghcr.io:8443/org/x", "ghcr.io/org/*"),
        ("ghcr.io/org2/x", "ghcr.io/org/*"),
        ("ghcr.io/org/../bad/x", "ghcr.io/org/*"),
        ("ghcr.io/org/%2e%2e/x", "ghcr.io/org/*"),
        ("ghcr.io/org//x", "ghcr.io/org/*"),
        ("ghcr.io@evil.com/org/x", "ghcr.io/*"),
        ("user@ghcr.io/org/x", "ghcr.io/org/*"),
        ("ghcr.io/org/x:2", "ghcr.io/org/x:1"),
        ("ghcr.io/org/x", "ghcr.io/org/x:1"),
        (f"ghcr.io/org/x:1@{DIGEST}", "ghcr.io/org/x:1"),  # the digest is what is fetched
        ("https://ghcr.io/org/x", "ghcr.io/org/*"),
        ("ghcr.io/org/x ", "ghcr.io/org/*"),
        ("ghcr.io/ORG/x\n", "*"),
        ("", "ghcr.io/*"),
    ],
)
def test_what_looks_like_an_image_that_is_allowed_is_not(location: str, pattern: str) -> None:
    assert against(image(location), allow={"images": [pattern]}) != []


def test_every_location_of_an_image_counts_and_its_digest() -> None:
    several = {"executable": {"kind": "docker-container", "image": {"locations": ["ghcr.io/org/x", "evil.com/x"]}}}
    assert against(several, allow={"images": ["ghcr.io/org/*"]}) == [("not-allowed", "executable.image.locations[1]")]
    assert against(image("ghcr.io/org/x:1", DIGEST), allow={"images": ["ghcr.io/org/x:1"]}) == [
        ("not-allowed", "executable.image.digest")
    ]
    assert against(image("ghcr.io/org/x:1", DIGEST), deny={"images": [f"ghcr.io/org/x@{DIGEST}"]}) != []
    assert against(image(f"ghcr.io/org/x:1@{DIGEST}"), deny={"images": ["ghcr.io/org/x:1"]}) != []
    assert against(image("ghcr.io/org/x"), allow={"images": ["ghcr.io/org/x:latest"]}) == []


@pytest.mark.parametrize(
    "location",
    [
        "https://h.org/public/a.ipynb",
        "HTTPS://H.ORG/public/a.ipynb",
        "https://h.org:443/public/a.ipynb",
        "https://h.org./public/a.ipynb",
        "https://h.org//public/./a.ipynb",
        "https://h.org/%70ublic/a.ipynb",
        "https://h.org/x/../public/a.ipynb",
        "https://h.org/x%2f..%2Fpublic/a.ipynb",
        "https://h.org/public/a.ipynb?raw=true#top",
    ],
)
@pytest.mark.parametrize(("sort", "asked"), [("notebooks", notebook), ("programs", program), ("data", data)])
def test_a_location_is_the_same_however_it_is_written(location: str, sort: str, asked: Any) -> None:
    for pattern in ("https://h.org/public/*", "https://H.org:443/public/*", "*://*.org/*", "*"):
        assert against(asked(location), allow={sort: [pattern]}) == []
        assert [name for name, _ in against(asked(location), deny={sort: [pattern]})] == ["denied"]
    for host in ("h.org", "*.ORG", "h.org."):
        assert against(asked(location), allow={"hosts": [host]}) == []
        assert [name for name, _ in against(asked(location), deny={"hosts": [host]})] == ["denied"]


@pytest.mark.parametrize(
    "location",
    [
        "https://h.org/private/a",
        "https://h.org/public/../private/a",
        "https://h.org/public/%2e%2e/private/a",
        "https://h.org/public/..%2fprivate/a",
        "https://h.org/public/%252e%252e/private/a",
        "https://h.org/private//../public/a",  # asked for as /private/public/a
        "https://h.org/private/%2e/../public/a",
        "https://h.org/private/x/%2e%2e/../public/a",
        "https://h.org/private//%2e%2e/public/a",
        "https://h.org/public%2Fx/../private/a",
        "https://h.org/public%2Fx/../../private/a",
        "https://h.org/public%2Fx/%2e%2e/private/a",
        "https://h.org/private%2F/../public/a",
        "https://h.org/public/..;/private/a",
        "https://h.org/public\\..\\private/a",
        "https://h.org/public%5c..%5cprivate/a",
        "https://h.org@evil.com/public/a",
        "https://h.org:x@evil.com/public/a",
        "https://evil.com/h.org/public/a",
        "https://evil.com#@h.org/public/a",
        "https://evil.com\\@h.org/public/a",
        "https://evil.com?/h.org/public/a",
        "https://h.org.evil.com/public/a",
        "https://h.org:8443/public/a",
        "http://h.org/public/a",
        "https://h%2eorg/public/a",
        "https://h.org\t/public/a",
        "https://h.org/public\u200b/../private",
        "//h.org/public/a",
        "https:h.org/public/a",
        "https:///h.org/public/a",
        "h.org/public/a",
    ],
)
def test_what_looks_like_a_location_that_is_allowed_is_not(location: str) -> None:
    assert against(data(location), allow={"data": ["https://h.org/public/*"]}) != []
    assert against(notebook(location), allow={"notebooks": ["https://h.org/public/*"]}) != []


@pytest.mark.parametrize(
    ("location", "pattern"),
    [
        ("https://evil.com/.example.org/x", "https://*.example.org/*"),
        ("https://evil.com/?x.example.org/", "https://*.example.org/*"),
        ("https://h.org/secret?x=.fits", "https://h.org/*.fits"),
        ("https://h.org/get?file=secret", "https://h.org/get"),
        ("https://h.org/data", "https://h.org/data/*"),
    ],
)
def test_a_pattern_allows_no_more_than_it_says(location: str, pattern: str) -> None:
    assert against(data(location), allow={"data": [pattern]}) == [("not-allowed", "data[0].location")]


@pytest.mark.parametrize(
    ("location", "pattern"),
    [
        ("https://h.org/get?x", "https://h.org/get"),
        ("https://h.org:8443/private/x", "https://h.org/private/*"),
        ("https://h.org/private", "https://h.org/private/*"),
        ("https://h.org/%70rivate/x", "https://h.org/private/*"),
        ("https://h.org/a;b/../private/x", "https://h.org/private/*"),
        ("https://H.ORG./private//x", "https://h.org/private/*"),
        ("file://localhost/data/x", "file:///data/*"),
        ("s3://Bucket/x", "s3://bucket/*"),
        ("doi:10.5/%78", "doi:10.5/x"),
    ],
)
def test_what_is_denied_is_denied_in_disguise(location: str, pattern: str) -> None:
    assert [name for name, _ in against(data(location), deny={"data": [pattern]})] == ["denied"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "0x7f000001", "2130706433", "[::ffff:127.0.0.1]", "127.0.0.1."])
def test_an_address_is_the_same_however_it_is_written(host: str) -> None:
    assert [name for name, _ in against(data(f"http://{host}/x"), deny={"hosts": ["127.0.0.1"]})] == ["denied"]
    assert [name for name, _ in against(data(f"http://{host}/x"), deny={"hosts": ["127.*"]})] == ["denied"]


@pytest.mark.parametrize(
    ("sort", "yes", "no", "pattern"),
    [
        ("endpoints", s3(endpoint="HTTPS://s3.org:443/"), s3(endpoint="https://evil.org"), "https://s3.org"),
        ("endpoints", s3(endpoint="s3.org"), s3(endpoint="http://s3.org"), "s3.org"),
        ("endpoints", s3(template="https://s3.org/{bucket}/{object}"), s3(template="https://{bucket}/s3.org"), "s3.org"),
        ("endpoints", s3(endpoint="https://s3.org"), s3(), "*.org"),
        ("hosts", s3(endpoint="s3.org"), s3(endpoint="s3.org", template="https://{bucket}.com/{object}"), "*.org"),
        ("data", s3(object="pub/x"), s3(object="pub/../x"), "s3://b/pub/*"),
        ("data", s3(object="pub/x"), s3(bucket="b/pub", object="x"), "s3://b/pub/*"),
        ("ivoids", ivoa("ivo://Org.Skao/DR1/x"), ivoa("ivo://org.skao/DR2"), "ivo://org.skao/dr1/*"),
        ("ivoids", ivoa("ivo://o/a"), ivoa(None), "ivo://o/*"),
        ("ivoids", ivoa("ivo://o/a"), ivoa("ivo://o/a", obs_publisher_did="ivo://evil/a"), "ivo://o/*"),
        ("rucio", rucio("skao"), rucio("skao2"), "skao"),
        ("rucio", rucio("skao", "a"), rucio("skao", "b"), "skao:a*"),
        ("rucio", rucio("skao"), rucio("evil", "x:skao"), "sk*"),
        ("hosts", rucio("s", endpoint="https://rucio.org/"), rucio("s", endpoint="https://evil.com/rucio.org"), "rucio.org"),
        ("skao", skao("sdc3"), skao("sdc30"), "sdc3"),
        ("skao", skao("sdc3"), skao(None), "*3"),
        ("skao", skao("sdc3"), skao(" sdc3"), "*sdc3"),
        ("ports", ports(8888), ports(22), "8[0-9][0-9][0-9]"),
        ("ports", ports(8888, "external"), ports(22, "external"), 8888),
        ("paths", mounted("/data/x"), mounted("/data2"), "/data/*"),
        ("paths", mounted("//data/./x"), mounted("/data"), "/data/*"),
        ("paths", mounted("volumes/x"), mounted("/volumes/x"), "volumes/*"),
    ],
)
def test_other_sorts(sort: str, yes: dict[str, Any], no: dict[str, Any], pattern: str) -> None:
    assert against(yes, allow={sort: [pattern]}) == []
    assert against(no, allow={sort: [pattern]}) != []
    assert [name for name, _ in against(yes, deny={sort: [pattern]})][:1] == ["denied"]


@pytest.mark.parametrize("path", ["/usr/lib/python", "/usr/lib", "/usr", "/usr//lib/", "/usr/./lib"])
def test_what_hides_a_denied_path_is_denied(path: str) -> None:
    assert [name for name, _ in against(mounted(path), deny={"paths": ["/usr/lib/*"]})] == ["denied"]
    assert against(mounted("/usr2"), deny={"paths": ["/usr/lib/*"]}) == []


def test_a_service_without_a_scheme_is_denied_by_all() -> None:
    for endpoint in ("s3.org", "https://s3.org", "http://s3.org", "http://s3.org:9000/"):
        assert [name for name, _ in against(s3(endpoint=endpoint), deny={"endpoints": ["s3.org"]})] == ["denied"]
    assert against(s3(endpoint="http://s3.org"), deny={"endpoints": ["https://s3.org"]}) == []


def test_deny_wins_and_what_is_not_named_is_allowed() -> None:
    both = {"allow": {"data": ["https://h.org/*"]}, "deny": {"data": ["https://h.org/x/*"]}}
    assert against(data("https://h.org/y"), **both) == []
    assert against(data("https://h.org/x/y"), **both) == [("denied", "data[0].location")]
    assert against(image("anything"), **both) == []
    assert against(data("https://h.org/y"), allow={"data": []}) == [("not-allowed", "data[0].location")]


def test_an_image_that_is_a_file_has_patterns_of_addresses() -> None:
    sif = {"executable": {"kind": "singularity-container", "location": "https://h.org/images/x.sif"}}
    assert against(sif, allow={"images": ["https://h.org/images/*"], "hosts": ["h.org"]}) == []
    assert against(sif, allow={"images": ["h.org/images/*"]}) != []
    assert against(sif, deny={"hosts": ["h.org"]}) == [("denied", "executable.location")]
    oci = {"executable": {"kind": "singularity-container", "location": "docker://ghcr.io/org/x:1"}}
    assert against(oci, allow={"images": ["ghcr.io/org/*"]}) == []


@pytest.mark.parametrize(
    ("sort", "pattern"), [("data", "h.org/*"), ("images", ""), ("endpoints", "https://a b/"), ("data", "https://h_%.org/*")]
)
def test_a_pattern_that_is_none_stops_the_broker(sort: str, pattern: str) -> None:
    with pytest.raises(StartupError, match=f"platform site .*{sort}"):
        Policies("site", [Policy(allow={sort: [pattern]})])


@given(st.text(max_size=40), st.sampled_from(SORTS))
def test_nothing_that_is_asked_for_breaks_a_rule(text: str, sort: str) -> None:
    for asked in (
        image(text),
        notebook(text),
        data(text),
        s3(endpoint=text, object=text),
        rucio(text),
        skao(text),
        mounted(text),
    ):
        assert {name for name, _ in against(asked, allow={sort: []})} <= {"not-allowed", "unclear-name"}


HOSTS = st.from_regex(r"[a-z]{1,8}(\.[a-z]{1,8}){0,2}", fullmatch=True)
PARTS = st.lists(st.from_regex(r"[a-z0-9]{1,6}", fullmatch=True), min_size=1, max_size=4)


@given(HOSTS, PARTS, st.data())
def test_a_location_in_disguise_is_read_as_it_is(host: str, parts: list[str], draw: st.DataObject) -> None:
    plain = Location.read(f"https://{host}/{'/'.join(parts)}")
    slash = draw.draw(st.sampled_from(["/", "//", "%2f"]))
    dots = "x%2f..%2f" if slash == "%2f" else "x/../"  # of both kinds it could be one thing or another
    disguised = [draw.draw(st.sampled_from([part, f"./{part}", dots + part, f"%{ord(part[0]):02x}{part[1:]}"])) for part in parts]
    where = draw.draw(st.sampled_from([host, host.upper(), f"{host}.", f"{host}:443", f"{host}:"]))
    assert Location.read(f"https://{where}/{slash.join(disguised)}") == plain
    assert LocationPattern.read(f"https://{host}/{'/'.join(parts)}").allows(plain)


@example(["b", "", ".%2e", ".", "..", "%2e%2E"])
@given(st.lists(st.sampled_from(["a", "b", ".", "..", "", "%2e", "%2e%2E", ".%2e", "a%2fb", "%2F", ";"]), max_size=6))
def test_a_path_leads_where_it_is_asked_for(parts: list[str]) -> None:
    """httpx takes dots out before it asks."""
    text = f"https://h.org/{'/'.join(parts)}"
    try:
        found = Location.read(text)
    except ValueError:
        return
    assert Location.read(str(httpx.URL(text))) == found


@given(HOSTS.filter(lambda host: "." in host), PARTS)
def test_an_image_is_allowed_by_its_own_repository_alone(host: str, parts: list[str]) -> None:
    name = "/".join(parts)
    found = Image.read(f"{host}/{name}:tag")
    assert ImagePattern.read(f"{host}/{name}").allows(found)
    assert not ImagePattern.read(f"{host}/{name}x").allows(found)
    assert not ImagePattern.read(f"x{host}/{name}").allows(found)
