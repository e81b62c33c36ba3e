import contextlib
import ctypes
import json
import os
import resource
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import network
from .folder import STATUS_SIZE, last_line, reserve_status, take_lock, write_whole
from .processes import MARKER, boottime, children, identity, kill_all
from .resources import Output, free_ports, is_taken, oom_kills, take_cpus

PORT_TRIES = 5
PORT_PATIENCE = 60  # seconds within which a program that cannot have its port gives up
LOOK = 5  # seconds; a sleeping machine stops the timers of poll(2), so the deadline is looked at from time to time

_CUT_OFF = "its network was lost before it ended: what it listened on was no longer reached, nor anything outside"

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


class Supervisor:
    """One program, from its start to its end, as `launch` says."""

    def __init__(self, run: Path, launch: dict[str, Any]) -> None:
        self.run, self.launch, self.pid = run, launch, os.getpid()
        self.outputs = [Output(run / name, launch["output_limit"]) for name in ("stdout", "stderr")]
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # orphans become ours, so that none gets away
        self.ended: int | None = None
        self.stop_at = launch["deadline"]
        self.on_time_limit = self.asked = False
        self.kill_at: float | None = None
        self.report = b""
        self.door: network.Door | None = None
        self.gateway: subprocess.Popen[bytes] | None = None
        self.listeners: list[socket.socket] = []
        self.network_fault: str | None = None
        self.warnings: list[str] = []
        self.cpus: list[int] = []
        self.selector = selectors.DefaultSelector()
        self._listen()

    def _listen(self) -> None:
        """Make every signal wake the loop. SIGHUP has a handler too, for an ignored signal would stay so in the program."""
        ears, mouth = socket.socketpair()
        ears.setblocking(False)
        mouth.setblocking(False)
        signal.set_wakeup_fd(mouth.fileno(), warn_on_full_buffer=False)
        self.selector.register(ears, selectors.EVENT_READ, lambda: ears.recv(4096))
        self._mouth = mouth
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)
        for number in (signal.SIGCHLD, signal.SIGHUP):
            signal.signal(number, lambda *_: None)

    def _ask(self, *_: object) -> None:
        self.asked = True

    def supervise(self) -> dict[str, Any]:
        """Run the program; what became of it."""
        for _ in range(PORT_TRIES):
            ports = self._ports()
            write_whole(self.run / "ports", json.dumps(ports))
            began = time.monotonic()
            try:
                self._run(ports)
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                return self._status(None, f"it could not be started: {error}")
            if not self._wants_other_ports(ports, time.monotonic() - began):
                break
        return self._conclude()

    def _ports(self) -> list[int]:
        """In a network of its own every port is free for the program; outside, those of its gateway are taken beforehand."""
        count = len(self.launch["ports"])
        if not self.launch["network"]:
            return free_ports(count)
        self.listeners = network.take_ports(count)
        return [each.getsockname()[1] for each in self.listeners]

    def _wants_other_ports(self, ports: list[int], took: float) -> bool:
        if self.launch["network"]:
            return False
        failed = bool(self.ended) and not self.kill_at and took < PORT_PATIENCE
        return failed and any(is_taken(port) for port in ports)

    def _run(self, ports: list[int]) -> None:
        self.ended, self.report = None, b""
        self.child = self._spawn(ports)
        while self.ended is None:
            self._step()
            if self.door:
                self._open_door()
        self.child.returncode = self.ended
        kill_all(self.launch["session"], self.launch["groups"], below=os.getpid())
        self._drain()

    def _spawn(self, ports: list[int]) -> subprocess.Popen[bytes]:
        environment = self.launch["environment"] | self._addresses(ports)
        command: list[str] = self.launch["command"]
        passed: list[int] = []
        if self.launch["sandbox"]:
            command, environment, passed = self._boxed(command, environment)
        stdout, stderr = (self._pipe(output.write) for output in self.outputs)
        try:
            return subprocess.Popen(  # noqa: S603 -- running what it is given is what it is for
                command,
                env=environment,
                cwd=self.launch["home"],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                pass_fds=passed,
                process_group=0,
                umask=0o022,
                preexec_fn=self._enter,  # noqa: PLW1509 -- there are no threads here
            )
        finally:
            for fd in (stdout, stderr, *passed):
                os.close(fd)

    def _addresses(self, ports: list[int]) -> dict[str, str]:
        found = {}
        for port, number in zip(self.launch["ports"], ports, strict=True):
            found[port["env"]] = str(number)
            if port["address_env"]:
                found[port["address_env"]] = "127.0.0.1"
        return found

    def _boxed(self, command: list[str], environment: dict[str, str]) -> tuple[list[str], dict[str, str], list[int]]:
        """The command within bubblewrap. Its options travel in a file, for other users can read a command line, and the
        program's environment among them, for bubblewrap must not be ruled by the client's variables itself."""
        tells = self._pipe(self._hear)
        passed = [tells]
        options = ["--json-status-fd", str(tells)]
        if self.launch["network"]:
            self.door = network.Door()
            passed += self.door.passed
            options += self.door.options
        settings = [word for name, value in environment.items() for word in ("--setenv", name, value)]
        words = [*self.launch["sandbox"][1:], *options, *settings]
        if any("\0" in word for word in words):
            raise ValueError("the environment has a NUL character in it")
        arguments = os.memfd_create("arguments")
        os.write(arguments, b"".join(os.fsencode(word) + b"\0" for word in words))
        os.lseek(arguments, 0, os.SEEK_SET)
        outer = {"PATH": os.defpath, MARKER: self.launch["session"]}
        return [self.launch["sandbox"][0], "--args", str(arguments), "--", *command], outer, [arguments, *passed]

    def _hear(self, data: bytes) -> None:
        self.report += data

    def _open_door(self) -> None:
        """Once bubblewrap waits at it; where there is no gateway the program is killed before it begins."""
        pid = next((facts["child-pid"] for facts in self._facts() if "child-pid" in facts), None)
        if not self.door or not pid:
            return
        try:
            self.gateway = network.connect(pid, self.launch["network"], self.listeners, self.launch["session"], self._enter)
        except OSError as error:
            self.network_fault = f"its network: {error}"
            kill_all(self.launch["session"], self.launch["groups"], below=self.child.pid)
        for listener in self.listeners:
            listener.close()
        self.door.open()
        self.door = None

    def _pipe(self, take: Callable[[bytes], None]) -> int:
        """The end to write to of a pipe whose every byte is given to `take`."""
        fd, end = os.pipe()
        os.set_blocking(fd, False)

        def pump() -> None:
            with contextlib.suppress(BlockingIOError):
                if data := os.read(fd, 65536):
                    take(data)
                else:
                    self.selector.unregister(fd)
                    os.close(fd)

        self.selector.register(fd, selectors.EVENT_READ, pump)
        return end

    def _enter(self) -> None:
        """In the child, before the program: into the control groups, or under limits of its own."""
        for group in self.launch["groups"]:
            Path(group, "cgroup.procs").write_text("0", encoding="ascii")
        if self.launch["memory_limit"]:
            resource.setrlimit(resource.RLIMIT_AS, (self.launch["memory_limit"],) * 2)
        if self.cpus:
            os.sched_setaffinity(0, self.cpus)
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
        self.libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != self.pid:
            os._exit(1)

    def _step(self) -> None:
        now = boottime()
        if now >= self.stop_at and not self.kill_at:
            with contextlib.suppress(FileNotFoundError):
                self.stop_at = json.loads((self.run / "deadline").read_text(encoding="utf-8"))  # it may be another by now
        if not self.kill_at and (self.asked or now >= self.stop_at):
            self.on_time_limit = not self.asked
            self.kill_at = now + self.launch["grace"]
            self._terminate()
        if self.kill_at and now >= self.kill_at:
            kill_all(self.launch["session"], self.launch["groups"], below=self.child.pid, patience=0)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.child.pid, signal.SIGKILL)
        self._wait(max(0.01, min(LOOK, (self.kill_at or self.stop_at) - now)))
        self._collect()

    def _wait(self, seconds: float) -> int:
        ready = self.selector.select(seconds)
        for key, _ in ready:
            key.data()
        return len(ready)

    def _collect(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == self.child.pid:
                    self.ended = os.waitstatus_to_exitcode(found[1])
                elif self.gateway and found[0] == self.gateway.pid and not self.kill_at:
                    self.warnings.append(_CUT_OFF)

    def _terminate(self) -> None:
        """SIGTERM for the program's process group: in bubblewrap for that of the program, as its death would be sudden."""
        boxed = [facts["child-pid"] for facts in self._facts() if "child-pid" in facts]
        inner = {os.getpgid(pid) for pid in children(boxed[0])} if boxed else set()
        for group in inner or {self.child.pid}:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGTERM)

    def _facts(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.report.splitlines() if line.endswith(b"}")]

    def _drain(self) -> None:
        """The last of the output: everyone who could write is dead, so the pipes end."""
        until = time.monotonic() + 1
        while len(self.selector.get_map()) > 1 and time.monotonic() < until:
            self._wait(0.1)

    def _conclude(self) -> dict[str, Any]:
        if self.network_fault:
            return self._status(None, f"it could not be started: {self.network_fault}")
        code = self.ended or 0
        code = 128 - code if code < 0 else code
        if oom_kills(self.launch["oom"]):
            told = f"a process was ended for want of memory: it has {self.launch['memory']} GiB"
            return self._status(code, told) if code else self._status(code, None, told)
        unboxed = self.launch["sandbox"] and code == 1 and not any("exit-code" in facts for facts in self._facts())
        if unboxed and not self.kill_at:
            return self._status(None, f"it could not be started: {last_line(self.run / 'stderr')}")
        return self._status(code, None)

    def _status(self, code: int | None, complaint: str | None, *warnings: str) -> dict[str, Any]:
        return {
            "exit_code": code,
            "complaint": complaint and complaint[:500],
            "on_time_limit": self.on_time_limit,
            "warnings": [*warnings, *self.warnings, *(text for output in self.outputs for text in output.warnings())],
        }


def serve(run: Path, ready: int) -> None:
    """The supervisor's life; closes `ready` once the program ran, or never will."""
    lock = take_lock(run)
    if lock is None or (run / "started").exists():
        return
    try:
        launch = json.loads((run / "launch.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    for group in launch["supervisors"]:
        with contextlib.suppress(OSError):
            Path(group, "cgroup.procs").write_text("0", encoding="ascii")
    status = reserve_status(run)
    supervisor = Supervisor(run, launch)
    supervisor.cpus, _locks = take_cpus(launch["cpus"], launch["cores"])
    write_whole(run / "started", json.dumps(identity(os.getpid())))
    os.close(ready)
    end = json.dumps(supervisor.supervise(), ensure_ascii=False).encode(errors="replace")
    os.pwrite(status, end[:STATUS_SIZE], 0)
    os.fsync(status)


def main(folder: str) -> None:
    """Leave a child to it, and go when the program is on its way: so nobody has to wait for that child's end."""
    os.umask(0o077)
    ready, told = os.pipe()
    if os.fork():
        os.close(told)
        os.read(ready, 1)
        os._exit(0)
    os.close(ready)
    os.setsid()
    serve(Path(folder, "run"), told)
