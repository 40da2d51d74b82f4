"""The built wheel, alone: installed and used in a folder outside the checkout."""

import json
import os
import re
import signal
import site
import socket
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
import venv
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from recsys import __version__

ROOT = Path(__file__).parents[2]
HELP = "recsys/web/help/"
SMALL = {
    "RECSYS_MODEL__WIDTH": "16",
    "RECSYS_TRAINING__EPOCHS": "1",
    "RECSYS_TRAINING__BATCH_EVENTS": "128",
    "RECSYS_TRAINING__THREADS": "1",
    "RECSYS_EVALUATION__BOOTSTRAP_DRAWS": "100",
    "RECSYS_PROMOTION__MIN_POSITIONS": "50",
    "RECSYS_SERVING__WORKERS": "1",
    "OMP_NUM_THREADS": "1",
    "NUMBA_DISABLE_JIT": "1",  # a new place for the loops: compiling them takes longer than the test
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    (made,) = folder.iterdir()
    assert made.name == f"recsys-{__version__}-py3-none-any.whl"
    return made


class Installed:
    """A virtual environment with the wheel, and an empty folder to work in."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "shop"
        self.home.mkdir()
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("RECSYS_", "PYTHON"))},
            **SMALL,
        }

    def run(self, *arguments: object) -> dict:
        command = [self.folder / "venv" / "bin" / "recsys", *map(str, arguments), "--json"]
        done = subprocess.run(
            command,
            cwd=self.home,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def beside_what_it_needs(wheel, tmp_path) -> Installed:
    """The wheel alone; its dependencies are this environment's, without the checkout."""
    made = Installed(tmp_path)
    venv.create(tmp_path / "venv", with_pip=False)
    pip = [sys.executable, "-m", "pip", "--python", tmp_path / "venv"]
    command = [*pip, "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    (packages,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    # Paths that such a file names are not searched for further ones, so not for the checkout's.
    (packages / "needed.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return made


@pytest.fixture
def with_what_it_needs(wheel, tmp_path) -> Installed:
    """The wheel with the dependencies that it names, as docs/deployment.md installs it."""
    made = Installed(tmp_path)
    venv.create(tmp_path / "venv", with_pip=True)
    lock = (ROOT / "requirements.lock").read_text()
    constraints = tmp_path / "constraints.txt"
    plain = [line.rstrip(" \\") for line in lock.splitlines() if "--hash=" not in line]
    constraints.write_text("\n".join(plain) + "\n")
    install = [tmp_path / "venv" / "bin" / "pip", "install", "--quiet"]
    for wanted in (["torch==2.13.0"], ["--constraint", constraints, wheel]):
        subprocess.run([*install, *wanted], check=True, capture_output=True, timeout=1_200)
    return made


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fetch(address: str, key: str | None = None) -> tuple[int, str]:
    request = urllib.request.Request(address, headers={"X-API-Key": key} if key else {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except (urllib.error.URLError, ConnectionError):
        return 0, ""


def check_everything(installed: Installed, tiny_shop) -> None:
    """From an empty folder to answers, the dashboard and a restored backup."""
    log = installed.folder / "clicks.parquet"
    events = tiny_shop.events.slice(0, 1_200)
    pq.write_table(events, log)
    key = installed.run("init")["admin_key"]
    assert installed.run("events", "import", log)["accepted"] == events.num_rows
    version = installed.run("train")["version"]
    backup = installed.run("backup", installed.folder / "kept.zip")
    assert backup["release"] == __version__
    installed.environment["RECSYS_DATABASE__URL"] = "sqlite:///restored/recsys.db"
    installed.environment["RECSYS_REGISTRY__PATH"] = "restored/models"
    installed.run("restore", backup["path"])

    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with open(installed.folder / "served.log", "w") as said:
        command = [installed.folder / "venv" / "bin" / "recsys", "serve", "--port", str(port)]
        served = subprocess.Popen(
            command, cwd=installed.home, env=installed.environment, stderr=said
        )
    try:
        end = time.monotonic() + 120
        while fetch(f"{address}/health/ready")[0] != 200:
            assert served.poll() is None and time.monotonic() < end, (
                installed.folder / "served.log"
            ).read_text()
            time.sleep(0.2)
        asked = f"{address}/api/v1/users/shopper-000001/recommendations?k=3"
        answer = json.loads(fetch(asked, key)[1])
        assert answer["model_version"] == version
        assert len(answer["items"]) == 3
        assert json.loads(fetch(f"{address}/openapi.json")[1])["info"]["version"] == __version__
        for page, least in (("/admin/login", 4), ("/docs", 2)):
            status, text = fetch(address + page)
            assert status == 200
            assets = re.findall(r'(?:href|src)="(/[^"]+\.(?:css|js|svg|png)[^"]*)"', text)
            assert len(assets) >= least, text
            for asset in assets:
                assert fetch(address + asset)[0] == 200, asset
    finally:
        served.send_signal(signal.SIGTERM)
        served.wait(60)


def check_measurements(installed: Installed, tiny_shop) -> None:
    """`bench quality` ranks a log of one's own; the others say in a line that a checkout has them."""
    log = installed.folder / "quality.parquet"
    events = tiny_shop.events
    pq.write_table(events, log)
    cut = str(int(np.quantile(events["timestamp_us"].to_numpy(), 0.8)))
    found = installed.run("bench", "quality", "--log", log, "--cut", cut, "--unit", "us")
    assert found["positions"] > 50
    assert {"served", "lstm", "session_knn", "popular"} <= set(found["results"])
    for words in (["bench"], ["bench", "serve"], ["bench", "faults", "--only", "soak"]):
        command = [installed.folder / "venv" / "bin" / "recsys", *words]
        done = subprocess.run(
            command,
            cwd=installed.home,
            env=installed.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stdout) == (1, "")
        (line,) = done.stderr.splitlines()
        assert "recsys bench quality" in line and "bench/" in line


def test_it_works_outside_the_checkout(beside_what_it_needs, tiny_shop):
    where = subprocess.run(
        [
            beside_what_it_needs.folder / "venv" / "bin" / "python",
            *("-c", "import jobs, recsys; print(jobs.__file__, recsys.__file__)"),
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=beside_what_it_needs.home,
        env=beside_what_it_needs.environment,
    ).stdout.split()
    assert all(path.startswith(str(beside_what_it_needs.folder)) for path in where)
    check_measurements(beside_what_it_needs, tiny_shop)
    check_everything(beside_what_it_needs, tiny_shop)


@pytest.mark.slow  # the reference is built from scratch
@pytest.mark.timeout(1_800)
def test_what_make_build_makes_holds_the_help(tmp_path):
    tools = [f"BIN={Path(sys.executable).parent}", f"DIST={tmp_path}"]
    command = ["make", "--old-file=setup", *tools, "build"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=1_500)
    (made,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(made) as wheel:
        pages = {name.removeprefix(HELP) for name in wheel.namelist() if name.startswith(HELP)}
        front = wheel.read(f"{HELP}index.html").decode()
    assert {f"{path.stem}.html" for path in (ROOT / "docs").glob("*.md")} <= pages
    linked = re.findall(r'(?:href|src)="([^"#:?]+)', front)
    assert len(linked) > 20 and set(linked) <= pages
    (made,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(made) as sdist:
        assert any(name.endswith(f"/{HELP}index.html") for name in sdist.getnames())


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_it_names_all_that_it_needs(with_what_it_needs, tiny_shop):
    check_everything(with_what_it_needs, tiny_shop)
