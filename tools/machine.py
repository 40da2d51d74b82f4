"""A Debian root that is booted under systemd-nspawn, one bash session in it, and checks of what it does.

For tools/rehearsal.py. Commands run in all of the root's namespaces; /proc of this machine shows what
runs there.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def until(condition: Callable[[], bool], otherwise: str, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"FAIL {otherwise}")
        time.sleep(0.3)


class Machine:
    """The root in `folder`; `shared` are paths of this machine that it sees while it has its network."""

    def __init__(self, folder: Path, shared: list[str]) -> None:
        self.folder, self.root, self.shared = folder, folder / "root", shared
        self.failed = 0
        self.on = False
        self.seen: set[str] = set()  # arguments of all processes in the root

    def boot(self, private: bool, environment: dict[str, str]) -> None:
        """Boot, and begin a session of bash; `private` is a network of its own, a loopback alone."""
        command = ["systemd-nspawn", "-D", str(self.root), "--boot", "--register=no"]
        command += ["--keep-unit", f"--machine=rehearsal-{os.getpid()}", "--console=pipe"]
        command += ["--private-network"] if private else ["--resolv-conf=copy-host"]
        command += [] if private else [f"--bind-ro={path}" for path in self.shared]
        words = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
        words |= {"DEBIAN_FRONTEND": "noninteractive", **environment}
        null, log = subprocess.DEVNULL, (self.folder / "boot.log").open("ab")
        self.nspawn = subprocess.Popen(  # noqa: S603
            command, stdin=null, stdout=log, stderr=log, start_new_session=True
        )
        self.on = True
        children = Path(f"/proc/{self.nspawn.pid}/task/{self.nspawn.pid}/children")

        def inits() -> list[str]:
            own = Path("/proc/self/ns/pid").stat().st_ino
            found = children.read_text().split()
            return [one for one in found if Path(f"/proc/{one}/ns/pid").stat().st_ino != own]

        until(lambda: inits() != [], "no root was booted: see boot.log")
        (self.init,) = inits()
        self.space = Path(f"/proc/{self.init}/ns/pid").stat().st_ino
        self.inside = ["nsenter", "-t", self.init, "-a", "env", "-i"]
        self.inside += [f"{name}={value}" for name, value in words.items()]
        up = ("running", "degraded")
        until(lambda: self.ask("systemctl is-system-running") in up, "the root does not come up")
        self.bash = subprocess.Popen(  # noqa: S603
            [*self.inside, "bash"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.do("set -e; cd /root")

    def off(self) -> None:
        if self.on:
            self.on = False
            self.bash.kill()  # nsenter: it would wait for ever for a shell that the shutdown stops
            self.bash.wait()
            os.kill(int(self.init), signal.SIGRTMIN + 4)  # as systemd defines it: power off
            self.nspawn.wait(300)

    def do(self, script: str, step: str = "") -> str:
        """Run a script in the session, and end where it fails; what it said."""
        (self.root / "root/step.sh").write_text(script)
        started, said = time.monotonic(), []
        assert self.bash.stdin and self.bash.stdout
        self.bash.stdin.write(". /root/step.sh < /dev/null; echo; echo step-is-done\n")
        self.bash.stdin.flush()
        with (self.folder / "session.log").open("a") as log:
            log.write(f"\n--- {step or 'between'}\n{script}\n---\n")
            for line in self.bash.stdout:
                if line == "step-is-done\n":
                    break
                said.append(line)
                log.write(line)
                log.flush()
            else:
                raise SystemExit(f"FAIL {step}\n{script}\n{''.join(said[-30:])}")
        if step:
            say(f"step {step}: {time.monotonic() - started:.0f} s")
        return "".join(said)

    def ask(self, script: str) -> str:
        """What a command in the root prints, whatever its status."""
        command = [*self.inside, "bash", "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)  # noqa: S603
        return done.stdout.strip()

    def check(self, promise: str, kept: bool, found: object = "", quiet: bool = False) -> bool:
        """Say whether a promise is kept, or where `quiet` only that it is not."""
        self.failed += not kept
        if not kept or not quiet:
            say(f"  ok   {promise}" if kept else f"  FAIL {promise}: {found}")
        return kept

    def holds(
        self, promise: str, script: str, wanted: str, seconds: float = 0, quiet: bool = False
    ) -> bool:
        """Check that a command prints what is wanted, within so many seconds."""
        end = time.monotonic() + seconds
        while (found := self.ask(script)) != wanted and time.monotonic() < end:
            time.sleep(0.3)
        return self.check(promise, found == wanted, found, quiet)

    def main_process(self, unit: str) -> str:
        return self.ask(f"systemctl show --property MainPID --value {unit}")

    def processes(self, unit: str = "") -> list[Path]:
        """Folders in /proc here, of the processes in the root or of one of its units."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                within = (path / "ns/pid").stat().st_ino == self.space
                if within and (not unit or f"/{unit}.service" in (path / "cgroup").read_text()):
                    found.append(path)
        return found

    def watch(self) -> None:
        """Note the arguments of every process in the root, for as long as this process lives."""
        looks: dict[str, int] = {}
        while True:
            there = {path.name for path in Path("/proc").glob("[0-9]*")}
            looks = {name: looks.get(name, 0) + 1 for name in there}
            for name in there:
                with suppress(OSError):
                    # A few looks at each: a process begins with its parent's arguments.
                    if looks[name] < 5 and Path(f"/proc/{name}/ns/pid").stat().st_ino == self.space:
                        text = Path(f"/proc/{name}/cmdline").read_bytes().decode(errors="replace")
                        self.seen.add(text)
            time.sleep(0.05)
