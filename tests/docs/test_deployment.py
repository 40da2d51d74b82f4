"""The files in deploy/ are what their tools take, and docs/deployment.md names what exists."""

import importlib
import itertools
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import tomllib
from contextlib import ExitStack, closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
import yaml
from sqlalchemy import select

from recsys import __version__
from recsys.cli import TRAINING_ONLY
from recsys.config import Settings, get_section
from recsys.storage.engine.database import Database
from recsys.storage.entities import key_rows
from recsys.storage.schema import migrate
from recsys.storage.schema.tables import events

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCUMENT = (ROOT / "docs" / "deployment.md").read_text()
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


def test_one_release_is_named_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == __version__
    released = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert released[0] == __version__
    assert set(re.findall(r"recsys-(\d+\.\d+\.\d+)", DOCUMENT)) == {__version__}
    torch = next(one for one in project["dependencies"] if one.startswith("torch=="))
    for name in ("docs/deployment.md", "deploy/Containerfile", "Makefile"):
        assert set(re.findall(r"torch==[\d.]*\d", (ROOT / name).read_text())) == {torch}, name


def tool(name):
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/bin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_there_are_units_for_service_and_scheduler(commands):
    assert [unit.name for unit in UNITS] == [
        *("recsys-consume@.service", "recsys-scheduler.service", "recsys@.service"),
    ]
    for unit in UNITS:
        text = unit.read_text()
        command = re.search(r"^ExecStart=/opt/recsys/bin/recsys (.*)$", text, re.M)[1]
        assert command.removesuffix(" --port %i").partition(" $")[0] in commands
        for line in (
            "User=recsys",
            "NoNewPrivileges=yes",
            "ProtectSystem=strict",
            "PrivateTmp=yes",
        ):
            assert line in text.splitlines()


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_takes_the_units_and_finds_them_confined(unit, tmp_path):
    analyze = tool("systemd-analyze")
    there = tmp_path / unit.name.replace("@", "@8000")
    there.write_text(unit.read_text().replace("/opt/recsys/bin/recsys", "/bin/true"))
    verified = run(analyze, "verify", there)
    assert verified.returncode == 0, verified.stderr
    assert there.name not in verified.stderr
    rated = run(analyze, "security", "--offline=true", "--threshold=20", "--no-pager", there)
    assert rated.returncode == 0, rated.stdout[-2_000:]


@pytest.fixture
def proxy(tmp_path):
    """The proxy's file with a certificate and free ports: nginx's command and both addresses."""
    nginx, openssl = tool("nginx"), tool("openssl")
    run(
        *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *("-nodes", "-days", "1", "-subj", "/CN=recsys.example"),
        *("-keyout", tmp_path / "privkey.pem", "-out", tmp_path / "fullchain.pem"),
    )
    site = (DEPLOY / "nginx" / "recsys.conf").read_text().replace("/etc/ssl/recsys", str(tmp_path))
    secure, behind = free_port(), free_port()
    site = re.sub(r"listen \[::\]:.*\n", "", site).replace("listen 80;", f"listen {free_port()};")
    site = site.replace("listen 443", f"listen {secure}").replace(":8000;", f":{behind};")
    whole = tmp_path / "nginx.conf"
    whole.write_text(
        f"pid {tmp_path}/pid; error_log {tmp_path}/error.log;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{site}\n}}\n"
    )
    return [nginx, "-q", "-c", whole, "-p", tmp_path], whole, secure, behind


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_nginx_takes_the_proxy(proxy):
    nginx, *_ = proxy
    checked = run(*nginx, "-t")
    assert checked.returncode == 0, checked.stderr


@contextmanager
def service(folder, port):
    """`recsys serve` at a port, ready to answer."""
    environment = {**os.environ, "RECSYS_DATABASE__URL": f"sqlite:///{folder}/recsys.db"}
    environment |= {"RECSYS_SERVING__WORKERS": "2", "RECSYS_REGISTRY__PATH": f"{folder}/models"}
    command = [sys.executable, "-m", "recsys", "serve", "--port", str(port)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        for _ in range(600):
            assert process.poll() is None
            with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/health/ready") as answer:
                assert answer.status == 200
                break
            time.sleep(0.1)
        yield
        process.terminate()
        assert process.wait(60) == 0


@pytest.mark.slow
def test_a_second_service_takes_over_and_nobody_is_refused(proxy, tmp_path):
    """The steps of an upgrade that is served throughout, in this order."""
    nginx, whole, secure, behind = proxy
    with closing(Database(f"sqlite:///{tmp_path}/recsys.db")) as database:
        migrate.upgrade(database)
        with database.begin() as connection:
            key = key_rows.create_key(connection, "shop", ["write"], 1)
    trusting = ssl._create_unverified_context()
    acknowledged, refused, stop = [], [], threading.Event()

    def post(poster):
        for number in itertools.count():
            one = {"user_id": "u1", "item_id": "i1", "event_id": f"{poster}-{number}"}
            headers = {"X-API-Key": key, "Content-Type": "application/json"}
            address = f"https://127.0.0.1:{secure}/api/v1/events"
            request = Request(address, json.dumps(one).encode(), headers)
            try:
                with urlopen(request, context=trusting, timeout=30) as answer:
                    acknowledged.append(one["event_id"])
                    assert answer.status == 200
            except OSError as error:
                refused.append(str(error))
            if stop.is_set():
                return

    posters = [threading.Thread(target=post, args=(number,)) for number in range(4)]
    after = free_port()
    with ExitStack() as old, ExitStack() as new:
        old.enter_context(service(tmp_path, behind))
        assert run(*nginx).returncode == 0
        new.callback(run, *nginx, "-s", "stop")
        for thread in posters:
            thread.start()
        try:
            time.sleep(1)
            new.enter_context(service(tmp_path, after))
            whole.write_text(whole.read_text().replace(f":{behind};", f":{after};"))
            assert run(*nginx, "-s", "reload").returncode == 0
            time.sleep(5)  # as the document says: nginx's own workers change over meanwhile
            old.close()
            seen = len(acknowledged)
            time.sleep(1)
        finally:
            stop.set()
            for thread in posters:
                thread.join()
    assert refused == [], (tmp_path / "error.log").read_text()
    assert len(acknowledged) > seen > 50
    with (
        closing(Database(f"sqlite:///{tmp_path}/recsys.db")) as database,
        database.connect() as connection,
    ):
        kept = set(connection.execute(select(events.c.event_id)).scalars())
    assert set(acknowledged) <= kept


def test_hadolint_takes_the_container_file():
    checked = run(tool("hadolint"), "--no-color", DEPLOY / "Containerfile")
    assert checked.returncode == 0, checked.stdout


def test_the_image_is_built_of_what_is_there_and_runs_as_nobody():
    text = (DEPLOY / "Containerfile").read_text()
    stages = [line for line in text.splitlines() if line.startswith("FROM ")]
    assert [stage.partition(" AS ")[2] for stage in stages[-3:]] == ["runtime", "serve", ""]
    for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.M):
        for name in line.split()[:-1]:
            assert (ROOT / name).exists(), name
            ignored = (ROOT / ".dockerignore").read_text().splitlines()
            assert f"!{name}" in ignored, name
    assert "USER 10001:10001" in text
    assert "torch==2.13.0" in text


def test_the_image_that_serves_lacks_what_only_trainings_need(tmp_path):
    """The lists of packages, by the Containerfile's own commands."""
    text = (DEPLOY / "Containerfile").read_text()
    lists = re.findall(r"&& ((?:sed|grep) [^\\]*(?:\\[^\n][^\\]*)* > \w+\.txt)", text)
    assert len(lists) == 3
    for name in ("pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    subprocess.run("\n".join(lists), shell=True, check=True, cwd=tmp_path)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (tmp_path / "all.txt").read_text().splitlines() == project["dependencies"]
    served = set((tmp_path / "serve.txt").read_text().splitlines())
    left_out = [re.split("[=><]", one)[0] for one in project["dependencies"] if one not in served]
    assert sorted(left_out) == sorted(TRAINING_ONLY)
    assert "numpy==" in (tmp_path / "constraints.txt").read_text()


def test_the_secrets_are_kept_out_of_the_repository_and_the_image():
    assert "deploy/secrets/" in (ROOT / ".gitignore").read_text().splitlines()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    assert not any("deploy" in line for line in ignored)


@pytest.fixture
def probe():
    """The words with which the compose file asks whether the service answers."""
    composed = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    words = composed["services"]["serve"]["healthcheck"]["test"]
    assert words[:3] == ["CMD", "python", "-c"]
    return words[3]


def test_the_health_check_tells_a_service_that_answers_from_one_that_does_not(probe):
    class Live(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/health/live" else 404)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Live) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        there = probe.replace(":8000/", f":{server.server_port}/")
        assert there != probe
        assert run(sys.executable, "-c", there).returncode == 0
        assert run(sys.executable, "-c", there.replace("live", "gone")).returncode != 0
        server.shutdown()
    assert run(sys.executable, "-c", there).returncode != 0


def settings_keys(text):
    return re.findall(r"RECSYS_([A-Z]+)__([A-Z_]+)", text)


def test_every_setting_that_is_named_exists():
    files = [path.read_text() for path in DEPLOY.rglob("*") if path.is_file()]
    named = settings_keys("\n".join([*files, DOCUMENT]))
    assert len(named) > 5
    for section, key in named:
        assert section.lower() in Settings.model_fields, section
        assert key.lower() in get_section(section.lower()).model_fields, key


def test_compose_starts_everything_confined_and_in_order(commands):
    composed = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    services = composed["services"]
    assert set(services) == {"database", "migrate", "serve", "schedule", "consume"}
    assert services["consume"]["profiles"] == ["consume"]  # only where asked for
    assert services["consume"]["command"][0] in commands
    for service in services.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    # The project's own image names its user itself.
    assert services["database"]["user"] == "999:999"
    assert any(one.startswith("/run/postgresql:") for one in services["database"]["tmpfs"])
    for service in services.values():
        for one in service["tmpfs"]:
            assert not re.search(r"[ug]id=", one), "podman knows size and mode only"
    # An image in OCI's format carries no health check, so each stands in the compose file.
    for name in ("database", "serve", "schedule"):
        words = services[name]["healthcheck"]["test"]
        assert words[0] == "CMD"
        assert not re.search(r"\s", "".join(words)), "some engines split words at blanks"
    # Over TCP, which PostgreSQL does not listen to while its first start prepares the database.
    assert "--host" in services["database"]["healthcheck"]["test"]
    assert services["schedule"]["healthcheck"]["test"] == ["CMD", "recsys", "schedule", "--check"]
    for name in ("migrate", "serve", "schedule", "consume"):
        service = services[name]
        assert name == "consume" or " ".join(service["command"]) in commands
        assert set(service["secrets"]) <= set(composed["secrets"])
        assert {volume.split(":")[0] for volume in service["volumes"]} <= set(composed["volumes"])
        for needed in service["depends_on"]:
            assert needed in services
        assert "password" not in str(service["environment"]).lower()
        assert service["environment"]["RECSYS_DATABASE__URL"].startswith("file:")
    for name in ("serve", "schedule", "consume"):
        assert services[name]["depends_on"] == {
            "migrate": {"condition": "service_completed_successfully"}
        }


def test_every_command_in_the_document_exists(commands):
    known = commands
    lines = re.findall(r"^(?:as_recsys|recsys) (.*)$", DOCUMENT, re.M)
    lines += re.findall(r"`recsys ([^`]*)`", DOCUMENT)
    assert len(lines) > 12
    for line in lines:
        words = line.split()
        name = next((n for n in (" ".join(words[:2]), words[0]) if n in known), None)
        assert name, line
        options = {option for one in known[name].params for option in one.opts}
        for word in words:
            assert not word.startswith("--") or word in options, line


def test_the_rehearsal_knows_the_documents_steps(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    rehearsal = importlib.import_module("rehearsal")
    steps = [name for name in rehearsal.sections(DOCUMENT) if name[0].isdigit()]
    assert steps == list(rehearsal.SECTIONS)
    blocks = rehearsal.shell_blocks(DOCUMENT)
    before = DOCUMENT.partition("\n## Containers")[0]
    assert sum(len(found) for found in blocks.values()) == before.count("```sh\n")
    with pytest.raises(ValueError, match=r"6\. Services: 0 blocks"):
        rehearsal.shell_blocks(DOCUMENT.replace("## 6. Services", "## 6. Units"))
    wanted = rehearsal.settings(DOCUMENT)
    assert ("serving", "trusted_proxies", "1") in wanted and len(wanted) == 3
    for section, key, _ in wanted:
        assert key in get_section(section).model_fields


def test_every_file_in_the_document_exists():
    for name in re.findall(r"\b(?:deploy|tests)/[\w./@-]+\w", DOCUMENT):
        assert (ROOT / name).exists(), name
