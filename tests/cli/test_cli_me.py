"""Who one is, and what is left."""

from pathlib import Path

from processsite import Site

POLICY = {"limits": {"cores": 4, "duration": "PT2H"}, "quotas": {"owner": {"cores": 6, "monthly": 100}}}
PLATFORMS = [
    {"name": "site", "type": "fake", "nodes": [{"cores": 8, "memory": 16}], "policies": [POLICY]},
    {"name": "closed", "type": "fake", "nodes": [{"cores": 8, "memory": 16}], "policies": [{"groups": ["staff"]}]},
]


def test_me_says_what_is_left(tmp_path: Path) -> None:
    site = Site(tmp_path, {"platforms": PLATFORMS}).start()
    try:
        site("ask", "--notebook", "https://example.org/a.ipynb", "--batch", "--cores", "2-2", "--duration", "1h")
        lines = [" ".join(line.split()) for line in site("me").out.splitlines()]
        assert lines[:2] == ["owner, an admin", "site: a session has at most 4 cores, 2 h"]
        assert "site you cores at a time 6 2 4" in lines
        assert not any("closed" in line for line in lines)
        assert site("me", "--json").document["platforms"][0]["quotas"][0]["left"]["cores"] == 4
        assert "closed" not in site("platforms").out
    finally:
        site.stop()
