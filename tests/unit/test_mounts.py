import os
import sys
from pathlib import Path, PurePosixPath

from hypothesis import given
from hypothesis import strategies as st

from execbroker.model.waist import Mount
from execbroker.platforms.mounts import reasons_against_mounts, target
from execbroker.platforms.sandbox import HOME, may_cover, python_folders

PART = st.sampled_from(["..", ".", "", "usr", "etc", "proc", "home", "session", "tmp", "data", "a b", sys.base_prefix.strip("/")])
PATH = st.builds(lambda lead, parts: lead + "/".join(parts), st.sampled_from(["", "/", "//", "///"]), st.lists(PART, max_size=5))
KEPT = [PurePosixPath(path) for path in ("/usr", "/etc", "/proc", "/dev", "/sys", "/bin", "/lib", *map(str, python_folders()))]


@given(PATH)
def test_what_may_be_mounted_covers_nothing_that_is_needed(path: str) -> None:
    if reasons_against_mounts([Mount(path, "storage/x", readonly=False)], None):
        return
    place = PurePosixPath(os.path.normpath(PurePosixPath(HOME) / target(Mount(path, "", readonly=False))))
    assert ".." not in place.parts
    assert place != PurePosixPath(HOME)
    for kept in KEPT:
        assert not place.is_relative_to(kept)
        assert not kept.is_relative_to(place)


@given(PATH)
def test_a_relative_mount_stays_in_the_home(path: str) -> None:
    mount = Mount(path, "storage/x", readonly=False)
    if not path.startswith("/") and not reasons_against_mounts([mount], None):
        assert not target(mount).startswith(("/", ".."))
        assert (Path("/h") / target(mount)).resolve().is_relative_to("/h/")


@given(st.lists(PATH, min_size=2, max_size=4, unique=True))
def test_no_mount_lies_in_another(paths: list[str]) -> None:
    mounts = [Mount(path, f"storage/{index}", readonly=False) for index, path in enumerate(paths)]
    if not reasons_against_mounts(mounts, None):
        places = [PurePosixPath(target(mount)) for mount in mounts]
        assert not any(one in other.parents for one in places for other in places)


def test_the_usual_places_are_free() -> None:
    assert all(may_cover(path) for path in ("/data", "/my-data", "/home/me/data", "/srv/x", "/opt/x/y", "/mnt", "/var/data"))
