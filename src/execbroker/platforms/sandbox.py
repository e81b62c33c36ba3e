import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from execbroker.platforms.network import Network

HOME = "/home/session"

_SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_RESOLVING = ("gai.conf", "host.conf", "hosts", "nsswitch.conf", "protocols", "resolv.conf", "services")
_ETC = (
    *("alternatives", "ca-certificates", "fonts", "localtime", "mime.types", "pki", "ssl", "timezone"),
    *("ld.so.cache", "ld.so.conf", "ld.so.conf.d"),
    *_RESOLVING,
)
_NAMESPACES = ("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")
_CAREFUL = ("--die-with-parent", "--new-session", "--cap-drop", "ALL")
_OF_ALL = ("kcore", "keys", "latency_stats", "sched_debug", "timer_list")  # below /proc; root's processes might read them
_UNCOVERABLE = ("/usr", "/etc", "/proc", "/dev", "/sys", *_SYSTEM)


def base_python() -> Path:
    """The interpreter that a virtual environment's rests on, where this is one."""
    return Path(getattr(sys, "_base_executable", None) or sys.executable)


def python_folders() -> tuple[Path, ...]:
    """Where that interpreter and its library live, outermost folders only."""
    real = base_python().resolve().parent.parent
    folders = {Path(sys.base_prefix), Path(sys.base_exec_prefix), real} - {Path("/")}
    return tuple(sorted(one for one in folders if not any(one.is_relative_to(other) for other in folders - {one})))


def may_cover(path: str) -> bool:
    """Whether something else may be put at this absolute path without hiding what a program needs to run."""
    wanted = Path(os.path.normpath(path))
    kept = [Path(name) for name in _UNCOVERABLE] + list(python_folders())
    above = any(one.is_relative_to(wanted) for one in (*kept, Path(HOME), Path("/tmp")))  # noqa: S108 -- only compared
    return not above and not any(wanted.is_relative_to(one) for one in kept)


@dataclass(frozen=True, slots=True)
class Bubblewrap:
    """bubblewrap (https://github.com/containers/bubblewrap) as it works on this machine.

    A program in it sees the system's programs and libraries, the Python it runs on and its own session, and nothing else
    of the disk; no process but its own; the network as it is, or one of its own. `user` says whether it also gets a user
    namespace, in which it is nobody special even where the broker is root.
    """

    program: str
    user: bool
    hidden: tuple[Path, ...] = ()
    network: Network | None = None

    def session(self, run: Path, home: Path, environment: Path, mounts: Iterable[tuple[Path, str, bool]]) -> list[str]:
        """The command, up to its settings and the program's, that runs in `home`; of each mount what, where, and if read-only."""
        words = [*self._base(run / "tmp"), *self._users(run), *self._names(run), "--ro-bind", str(environment), str(environment)]
        words += ["--bind", str(home), HOME]
        for source, path, readonly in mounts:
            target = path if path.startswith("/") else f"{HOME}/{path}"
            words += ["--ro-bind" if readonly else "--bind", str(source), target]
        return [*words, "--remount-ro", "/", "--chdir", HOME]

    def workshop(self, folders: Iterable[Path], tmp: Path, readable: Iterable[str]) -> list[str]:
        """The command that runs an installer, which may write to `folders` alone."""
        words = [*self._base(tmp), *self._names(tmp)]
        for path in readable:
            words += ["--ro-bind-try", path, path]
        for folder in folders:
            words += ["--bind", str(folder), str(folder)]
        return [*words, "--"]

    def running(self, words: list[str]) -> list[str]:
        """The whole command, of `session` or `workshop` and a program, where nobody else sees to its network."""
        return self.network.around(words) if self.network else words

    def _base(self, tmp: Path) -> list[str]:
        namespaces = (*(("--unshare-user", "--uid", "1000", "--gid", "1000") if self.user else ()), *_NAMESPACES)
        apart = ("--unshare-net",) if self.network else ()
        words = [self.program, *namespaces, *apart, *_CAREFUL, *_system(), "--dev", "/dev", "--bind", str(tmp), "/tmp"]  # noqa: S108
        words += ["--symlink", "/tmp", "/var/tmp", "--dir", "/run"]  # noqa: S108 -- the session's own
        for folder in python_folders():
            words += ["--ro-bind", str(folder), str(folder)]
        for folder, secret in product((Path("/usr"), *python_folders()), self.hidden):
            if secret.is_dir() and secret.resolve().is_relative_to(folder.resolve()):
                words += ["--tmpfs", str(folder / secret.resolve().relative_to(folder.resolve()))]
        return words

    def _users(self, run: Path) -> list[str]:
        """A passwd and a group file with one name in them, that of the session."""
        uid, gid = (1000, 1000) if self.user else (os.getuid(), os.getgid())
        words = []
        for name, text in {"passwd": f"session:x:{uid}:{gid}::{HOME}:/bin/sh\n", "group": f"session:x:{gid}:\n"}.items():
            (run / name).write_text(text, encoding="ascii")
            words += ["--ro-bind", str(run / name), f"/etc/{name}"]
        return words

    def _names(self, folder: Path) -> list[str]:
        """Where names are resolved; the link that /etc/resolv.conf often is may lead to where nothing is seen."""
        return ["--ro-bind", str(self.network.resolver(folder)), "/etc/resolv.conf"] if self.network else []


def _system() -> list[str]:
    """The system's own files. /proc/sys is bound, for what root owns there root may write, without any capability."""
    words = ["--ro-bind", "/usr", "/usr"]
    for name in _SYSTEM:
        if Path(name).is_symlink():
            words += ["--symlink", str(Path(name).readlink()), name]
        elif Path(name).is_dir():
            words += ["--ro-bind", name, name]
    for name in _ETC:
        words += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    words += ["--proc", "/proc"]
    for name in ("/proc/sys", "/proc/sysrq-trigger"):
        words += ["--ro-bind-try", name, name]
    for name in _OF_ALL:
        if Path("/proc", name).exists():
            words += ["--ro-bind", "/dev/null", f"/proc/{name}"]
    return words


def find_bubblewrap(
    trial: Path, hidden: tuple[Path, ...], networks: Iterable[Network | None] = (None,)
) -> tuple[Bubblewrap | None, str]:
    """What bubblewrap can do here, by running this Python in it, with the first of these networks that works; and why it cannot,
    where that fails."""
    program = shutil.which("bwrap")
    if not program:
        return None, "the program bwrap is not installed; install bubblewrap"
    why = ""
    for user, network in product((True, False), networks):
        found = Bubblewrap(program, user, hidden, network)
        why = _try(found, trial)
        if not why:
            return found, ""
    return None, f"it does not work here ({why})"


def _try(found: Bubblewrap, trial: Path) -> str:
    for name in ("run/tmp", "home", "environment"):
        (trial / name).mkdir(parents=True, exist_ok=True)
    words = [*found.session(trial / "run", trial / "home", trial / "environment", ()), "--", str(base_python()), "-c", "1"]
    try:
        done = subprocess.run(found.running(words), capture_output=True, env=dict[str, str](), timeout=30, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return done.stderr.decode(errors="replace").strip()[-300:] or "it says nothing" if done.returncode else ""


def installer_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Of the broker's own variables those that say how to reach the package index, not those that say where to install."""
    elsewhere = {f"PIP_{name}" for name in ("USER", "TARGET", "PREFIX", "ROOT", "PYTHON", "REQUIRE_VIRTUALENV", "LOG")}
    names = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"}
    names |= {"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"}
    useful = (name for name in variables if name.upper() in names or name.startswith("PIP_"))
    return {name: variables[name] for name in useful if name not in elsewhere}
