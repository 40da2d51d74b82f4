"""What docs/deployment.md promises of the services it sets up, as checks of a booted root.

For tools/rehearsal.py.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from machine import Machine, say

SERVER_NAME = "shop.test"
SCHEDULER = "recsys-scheduler"
CURL = f"""printf 'X-API-Key: %s' "$KEY" | curl -s --cacert /etc/ssl/recsys/fullchain.pem \\
  -w ' %{{http_code}}' -H @- https://{SERVER_NAME}"""
POST = '-H "Content-Type: application/json" -d \'{"user_id": "u1", "item_id": "i1", "event_id": "%s"}\''
# A post that hangs in the database for some seconds while the service is told to stop.
HELD = f"""su postgres -c "psql recsys -c 'LOCK TABLE events; SELECT pg_sleep(4)'" > /dev/null &
sleep 1; ({CURL}/api/v1/events {POST % "held"} > /root/held; touch /root/answered) &
sleep 1; touch /root/told; systemctl stop recsys@8000; sleep 0.5
[ /root/answered -nt /root/told ] && tail -c 3 /root/held"""
ANSWER = "'/api/v1/users/u123/recommendations?k=5'"
LEADS = """RECSYS_CONFIG=/etc/recsys/config.toml RECSYS_DATABASE__URL=file:/etc/recsys/database-url \\
  /opt/recsys/bin/recsys schedule --check && echo leads"""
CLIENTS = """
import itertools, json, os, ssl, sys, threading
from urllib.request import Request, urlopen
name, label = sys.argv[1:]
trusting = ssl.create_default_context(cafile="/etc/ssl/recsys/fullchain.pem")
acknowledged, refused, stop = [], [], threading.Event()
def post(poster):
    for number in itertools.count():
        event = f"{label}-{poster}-{number}"
        one = {"user_id": f"{label}-{poster}", "item_id": "i1", "event_id": event}
        headers = {"X-API-Key": os.environ["KEY"], "Content-Type": "application/json"}
        request = Request(f"https://{name}/api/v1/events", json.dumps(one).encode(), headers)
        try:
            with urlopen(request, context=trusting, timeout=30):
                acknowledged.append(event)
        except OSError as error:
            refused.append(f"{event}: {error}")
        if stop.wait(0.02):
            return
posters = [threading.Thread(target=post, args=(number,)) for number in range(4)]
for thread in posters: thread.start()
sys.stdin.read()
stop.set()
for thread in posters: thread.join()
print(json.dumps([acknowledged, refused]))
"""


def serves(machine: Machine, port: int) -> None:
    """Check that service and scheduler are there, and what is answered over TLS; one line."""
    units = f"recsys@{port} {SCHEDULER} nginx postgresql"
    ready = f"curl -s -o /dev/null -w '%{{http_code}}' http://127.0.0.1:{port}/health/ready"
    for script, wanted in (
        (f"systemctl is-active {units}", "active\n" * 3 + "active"),
        (ready, "200"),
        (f"{CURL}{ANSWER} | tail -c 3", "200"),
        (LEADS, "leads"),
    ):
        if not machine.holds(script, script, wanted, 90, quiet=True):
            return
    answer = json.loads(machine.ask(f"{CURL}{ANSWER}").rsplit(" ", 1)[0])
    sources = {item["source"] for item in answer["items"]}
    own = bool(sources and answer["model_version"]) and not sources & {"popular", "latest"}
    promise = f"{units}: active, ready; a user's own answer over TLS; a scheduler leads"
    machine.check(promise, own, answer)


def confinement(machine: Machine) -> None:
    """Check what each process of the units may do."""
    users = (machine.root / "etc/passwd").read_text()
    user = re.findall(r"^recsys:x:(\d+):", users, re.M)[0]
    wanted = {
        "Uid": user,
        "NoNewPrivs": "1",
        "CapEff": "0" * 16,
        "CapBnd": "0" * 16,
        "Seccomp": "2",
    }
    for unit in ("recsys@8000", SCHEDULER):
        processes = machine.processes(unit)
        states = [
            re.findall(r"^(\w+):\t(\w+)", (path / "status").read_text(), re.M) for path in processes
        ]
        odd = [own for one in states if not wanted.items() <= (own := dict(one)).items()]
        machine.check(
            f"{unit}: its {len(states)} processes are of recsys, without capabilities, with a filter",
            bool(states) and not odd,
            odd,
        )
        enter = f"nsenter -t {machine.main_process(unit)} -m"
        for folder in ("/etc", "/usr", "/opt"):
            script = f"{enter} touch {folder}/rehearsed 2>&1 | grep -o 'Read-only file system'"
            machine.holds(f"{unit}: {folder} cannot be written", script, "Read-only file system")
        machine.holds(f"{unit}: /home is empty", f"{enter} ls -A /home | wc -l", "0")
        group = f"$(systemctl show --property ControlGroup --value {unit})"
        most = machine.ask(f"cat /sys/fs/cgroup{group}/memory.max 2> /dev/null")
        files = machine.ask(f"grep 'open files' /proc/{machine.main_process(unit)}/limits").split()
        say(f"       {unit}: {files[3]} open files at most, of 65536 where the machine allows them")
        say(f"       {unit}: memory.max is {most or 'not to be had: no controller is delegated'}")


def accidents(machine: Machine) -> None:
    """Processes that are killed come back; a job is run by the scheduler; a stop waits."""
    for unit in ("recsys@8000", SCHEDULER):
        main = machine.main_process(unit)
        machine.ask(f"kill -9 {main}")
        shown = f"systemctl show --property MainPID --value {unit} | grep -vxE '0|{main}' | wc -l"
        machine.holds(f"{unit} is killed and started anew", shown, "1", 30)
        serves(machine, 8000)
    main = machine.main_process("recsys@8000")
    worker = machine.ask(f"cat /proc/{main}/task/{main}/children").split()[0]
    machine.ask(f"kill -9 {worker}")
    more = f"cat /proc/{main}/task/{main}/children | tr ' ' '\\n' | grep -cvxE '{worker}|'"
    machine.holds("a worker is killed and replaced by the same service", more, "2", 30)
    serves(machine, 8000)
    run = int(re.findall(r"\d+", machine.do("as_recsys jobs run refresh --json"))[0])
    state = f"SELECT state FROM job_runs WHERE id = {run}"  # noqa: S608
    machine.holds("the scheduler's unit carries out a refresh", query(state), "succeeded", 120)
    machine.holds("a post that hangs while the unit is stopped is answered", HELD, "200")
    kept = query("SELECT count(*) FROM events WHERE event_id = 'held'")
    machine.holds("and kept", kept, "1")
    machine.holds("the unit was stopped", "systemctl is-active recsys@8000", "inactive")
    machine.do("systemctl start recsys@8000")
    serves(machine, 8000)


def query(sql: str) -> str:
    return f'su postgres -c "psql -At recsys" <<< "{sql}"'


@contextmanager
def clients(machine: Machine, label: str) -> Iterator[None]:
    """Four clients that post through nginx meanwhile; check that none is refused and nothing is lost."""
    command = [*machine.inside, "python3", "-c", CLIENTS, SERVER_NAME, label]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:  # noqa: S603
        yield
        said, _ = process.communicate()
    acknowledged, refused = json.loads(said)
    machine.check(f"none of {len(acknowledged)} posts was refused", not refused, refused[:5])
    stored = f"SELECT event_id FROM events WHERE event_id LIKE '{label}-%'"  # noqa: S608
    kept = machine.ask(query(stored))
    lost = set(acknowledged) - set(kept.split())
    machine.check("none that was acknowledged is lost", not lost and len(acknowledged) > 50, lost)


def secrets(machine: Machine) -> None:
    """Check that the database's password is nowhere but in its file."""
    address = (machine.root / "etc/recsys/database-url").read_text()
    password = address.split(":")[2].split("@")[0]
    seen = [line for line in machine.seen if password in line]
    machine.check(f"the password is in none of {len(machine.seen)} lists of arguments", not seen)
    owners = [
        path for path in machine.processes() if password.encode() in (path / "environ").read_bytes()
    ]
    machine.check("nor in any environment", not owners, owners)
    machine.holds("nor in the journal", f"journalctl -o export | grep -ac {password}", "0")
    machine.holds("nor in a log", f"grep -rl {password} /var/log | wc -l", "0")
