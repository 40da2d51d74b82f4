"""The files in deploy/ are what their tools take, and docs/deployment.md names what exists."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from recsys import __version__
from recsys.config import Settings, get_section

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
    assert [unit.name for unit in UNITS] == ["recsys-scheduler.service", "recsys@.service"]
    for unit in UNITS:
        text = unit.read_text()
        command = re.search(r"^ExecStart=/opt/recsys/bin/recsys (.*)$", text, re.M)[1]
        assert command.removesuffix(" --port %i") in commands
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


def test_nginx_takes_the_proxy(tmp_path):
    nginx, openssl = tool("nginx"), tool("openssl")
    run(
        *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *("-nodes", "-days", "1", "-subj", "/CN=recsys.example"),
        *("-keyout", tmp_path / "privkey.pem", "-out", tmp_path / "fullchain.pem"),
    )
    site = (DEPLOY / "nginx" / "recsys.conf").read_text().replace("/etc/ssl/recsys", str(tmp_path))
    whole = tmp_path / "nginx.conf"
    whole.write_text(
        f"pid {tmp_path}/pid; error_log {tmp_path}/error.log;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{site}\n}}\n"
    )
    checked = run(nginx, "-t", "-q", "-c", whole, "-p", tmp_path)
    assert checked.returncode == 0, checked.stderr


def test_hadolint_takes_the_container_file():
    checked = run(tool("hadolint"), "--no-color", DEPLOY / "Containerfile")
    assert checked.returncode == 0, checked.stdout


def test_the_image_is_built_of_what_is_there_and_runs_as_nobody():
    text = (DEPLOY / "Containerfile").read_text()
    stages = [line for line in text.splitlines() if line.startswith("FROM ")]
    assert len(stages) == 2
    for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.M):
        for name in line.split()[:-1]:
            assert (ROOT / name).exists(), name
            ignored = (ROOT / ".dockerignore").read_text().splitlines()
            assert f"!{name}" in ignored, name
    assert "USER 10001:10001" in text
    assert "HEALTHCHECK" in text
    assert "torch==2.13.0" in text


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
    assert set(services) == {"database", "migrate", "serve", "schedule"}
    for name in ("migrate", "serve", "schedule"):
        service = services[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert " ".join(service["command"]) in commands
        assert set(service["secrets"]) <= set(composed["secrets"])
        assert {volume.split(":")[0] for volume in service["volumes"]} <= set(composed["volumes"])
        for needed in service["depends_on"]:
            assert needed in services
        assert "password" not in str(service["environment"]).lower()
        assert service["environment"]["RECSYS_DATABASE__URL"].startswith("file:")
    for name in ("serve", "schedule"):
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


def test_every_file_in_the_document_exists():
    for name in re.findall(r"\b(?:deploy|tests)/[\w./@-]+\w", DOCUMENT):
        assert (ROOT / name).exists(), name
