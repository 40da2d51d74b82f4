"""docs/deployment.md, word for word, in a Debian root of its own under a booted systemd.

The ```sh blocks of sections 1 to 9 run in the document's order, in one bash session a boot: 1 and 2 with
this machine's network, the others with a loopback alone. Between them it is checked what the document
promises, one line each; ends with 1 where a check fails. As root, with systemd-container (and debootstrap,
where no --base is given), from the project's environment:

    python tools/rehearsal.py FOLDER [--base ROOT] [--share PATH ...]

FOLDER gets the root and what was said (*.log), and is left there. --base is a fresh root
to copy; --share a path of this machine that pip needs there too, such as a folder of wheels.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from machine import Machine, say
from promises import (
    ANSWER,
    CURL,
    SCHEDULER,
    SERVER_NAME,
    accidents,
    clients,
    confinement,
    secrets,
    serves,
)

from recsys import __version__
from recsys.demo.simulation import Shop, ShopSize

PROJECT = Path(__file__).parents[1]
CONFIGURATION = "4. Configuration, tables, a key, an account"
# Section of the document -> how many blocks of shell it has.
SECTIONS = {
    **{"1. Packages and a user": 1, "2. The program": 1, "3. The database": 1, CONFIGURATION: 1},
    **{"5. Data and a first model": 1, "6. Services": 1, "7. TLS": 1, "8. Backups": 1},
    "9. Upgrades": 4,
}
# All that is replaced: where it stands, what stands there, what is put in its place.
SERVER = ("deploy/nginx/recsys.conf", "recsys.example", SERVER_NAME)
BACKUP = ("8. Backups", "recsys-20250131-023000.zip", "(the newest backup)")
RELEASE = ("9. Upgrades", __version__, f"{__version__}.post1")  # a wheel of the same tree
# All that is set beside it, for whoever would say yes, and for ports that this machine's own servers hold.
BESIDE = {
    "etc/apt/apt.conf.d/rehearsal": 'APT::Get::Assume-Yes "true";\n',
    "usr/sbin/policy-rc.d": "#!/bin/sh\nexit 101\n",  # packages start nothing until the second boot
    "etc/hosts": f"127.0.0.1 localhost {SERVER_NAME}\n",
}
HASTE = [("training", "epochs", "2"), ("training", "threads", "1")]  # a first model sooner
PORT = "sed -i 's/^port = .*/port = 5432/' /etc/postgresql/*/main/postgresql.conf"
# The document names the folder; the certificate is one's own.
CERTIFICATE = f"""install -d -m 0700 /etc/ssl/recsys
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN={SERVER_NAME} \\
  -addext subjectAltName=DNS:{SERVER_NAME} -keyout /etc/ssl/recsys/privkey.pem \\
  -out /etc/ssl/recsys/fullchain.pem"""


def sections(document: str) -> dict[str, str]:
    """Heading -> text, of the second level."""
    return dict(re.findall(r"^## (.*)\n((?:(?!## ).*\n?)*)", document, re.M))


def shell_blocks(document: str) -> dict[str, list[str]]:
    """Section -> its blocks of shell; ValueError where the document is not as it is known here."""
    texts = sections(document)
    found = {
        name: re.findall(r"^```sh\n(.*?)^```$", texts.get(name, ""), re.M | re.S)
        for name in SECTIONS
    }
    for name, blocks in found.items():
        if len(blocks) != SECTIONS[name]:
            raise ValueError(f"{name}: {len(blocks)} blocks of shell, expected {SECTIONS[name]}")
    for where, what, _ in (SERVER, BACKUP, RELEASE):
        text = "".join(found[where]) if where in found else (PROJECT / where).read_text()
        if what not in text:
            raise ValueError(f"{where}: {what} does not stand there")
    return found


def settings(document: str) -> list[tuple[str, str, str]]:
    """Section, key and value of each setting that the document asks for."""
    text = sections(document)[CONFIGURATION]
    found = re.findall(r"set `(\w+)\.(\w+) = (\w+)`", text)
    ((section, lines),) = re.findall(r"^```toml\n\[(\w+)\]\n(.*?)^```$", text, re.M | re.S)
    pairs = [line.split(" = ", 1) for line in lines.splitlines()]
    return [*found, *((section, key, value) for key, value in pairs)]


def main() -> int:
    """Rehearse; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, help="folder that the root and the logs go to")
    parser.add_argument("--base", type=Path, help="fresh root to copy; else debootstrap makes one")
    parser.add_argument("--share", action="append", default=[], help="path that pip needs there")
    given = parser.parse_args()
    document = (PROJECT / "docs" / "deployment.md").read_text()
    blocks = shell_blocks(document)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the root is switched off all the same
    machine = Machine(given.folder.resolve(), given.share)
    prepare(machine, given.base)
    try:
        install(machine, blocks)
        set_up(machine, blocks, settings(document))
        confinement(machine)
        accidents(machine)
        operate(machine, blocks)
        machine.off()
        key = machine.inside[-1]
        machine.boot(True, {})
        machine.inside.append(key)
        say("the machine was switched off and on")
        serves(machine, 8000)
        secrets(machine)
    finally:
        machine.off()
    say(f"{machine.failed} checks failed" if machine.failed else "every check was passed")
    return 1 if machine.failed else 0


def prepare(machine: Machine, base: Path | None) -> None:
    """The root with what step 2 has copied there: two wheels, the lock and deploy/."""
    machine.folder.mkdir(parents=True, exist_ok=True)
    if machine.root.exists():
        raise SystemExit(f"{machine.root} is there already")
    if base:
        command = ["cp", "-a", f"{base}", f"{machine.root}"]
    else:
        with_systemd = "--include=systemd,systemd-sysv,dbus,ca-certificates"
        command = ["debootstrap", "--variant=minbase", with_systemd, "bookworm", f"{machine.root}"]
    said = (machine.folder / "prepared.log").open("w")
    subprocess.run(command, check=True, stdout=said, stderr=said)  # noqa: S603
    home = machine.root / "root"
    for release in (__version__, RELEASE[2]):
        tree = machine.folder / f"tree-{release}"
        for name in ("recsys", "jobs", "migrations"):
            shutil.copytree(PROJECT / name, tree / name)
        for name in ("pyproject.toml", "README.md", "LICENSE", "config.toml"):
            shutil.copy(PROJECT / name, tree)
        for name, key in (("pyproject.toml", "version"), ("recsys/__init__.py", "__version__")):
            text = (tree / name).read_text()
            own, new = f'{key} = "{__version__}"', f'{key} = "{release}"'
            (tree / name).write_text(text.replace(own, new))
        command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir"]
        subprocess.run([*command, home, tree], check=True, stdout=said, stderr=said)  # noqa: S603
        shutil.rmtree(tree)
    shutil.copy(PROJECT / "requirements.lock", home)
    shutil.copytree(PROJECT / "deploy", home / "deploy")
    site = machine.root / "root" / SERVER[0]
    site.write_text(site.read_text().replace(*SERVER[1:]))
    for name, text in BESIDE.items():
        (machine.root / name).write_text(text)
        (machine.root / name).chmod(0o755)
    clicks_of(home)
    (machine.root / "home/somebody").mkdir()
    say("a root, a wheel of this tree and a click log are made")


def clicks_of(folder: Path) -> None:
    """A simulated log as clicks.csv.gz, with the columns of the document."""
    end_us = int(time.time() * 1e6)
    shop = Shop(ShopSize(products=200, shoppers=600, events=9_000), seed=7, end_us=end_us)
    with gzip.open(folder / "clicks.csv.gz", "wt") as clicks:
        clicks.write("uid,sku,ts\n")
        for table in shop.events():
            for row in table.select(["user_id", "item_id", "timestamp_us"]).to_pylist():
                number = int(row["user_id"].removeprefix("shopper-"))
                clicks.write(f"u{number},{row['item_id']},{row['timestamp_us'] // 1_000_000}\n")


def install(machine: Machine, blocks: dict[str, list[str]]) -> None:
    """Steps 1 and 2, with the network; what pip needs for a second release is kept."""
    pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    machine.boot(False, pip)
    machine.do(blocks["1. Packages and a user"][0], "1. Packages and a user")
    machine.do(blocks["2. The program"][0], "2. The program")
    fetch = f"/opt/recsys-{__version__}/bin/pip download --quiet --dest wheels"
    wanted = " ".join(re.findall(r"torch==[\d.]*\d", blocks["2. The program"][0]))
    wheel = f"recsys-{__version__}-py3-none-any.whl"
    machine.do(f"{fetch} --constraint constraints.txt {wanted} {wheel}; rm /usr/sbin/policy-rc.d")
    machine.do(PORT)
    machine.off()


def configure(machine: Machine, wanted: list[tuple[str, str, str]]) -> None:
    """Set what is wanted in the file that step 4 has copied, where it stands."""
    path = machine.root / "etc/recsys/config.toml"
    text = path.read_text()
    for section, key, value in wanted:
        pattern = rf"^(\[{section}\]\n(?:(?!\[).*\n)*?{key} = ).*$"
        text, count = re.subn(pattern, rf"\g<1>{value}", text, flags=re.M)
        machine.check(f"{section}.{key} stands in the file to be set", count == 1, count)
    path.write_text(text)


def set_up(
    machine: Machine, blocks: dict[str, list[str]], wanted: list[tuple[str, str, str]]
) -> None:
    """Steps 3 to 7."""
    machine.boot(True, {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/root/wheels"})
    failed = machine.ask("systemctl --failed --plain --no-legend")
    machine.check("nginx and PostgreSQL are up, and no unit has failed", not failed, failed)
    threading.Thread(target=machine.watch, daemon=True).start()
    machine.do(blocks["3. The database"][0], "3. The database")
    said = machine.do(blocks[CONFIGURATION][0], CONFIGURATION)
    machine.inside.append("KEY=" + re.findall(r"\b\w+_[0-9a-z]+_[\w-]{20,}", said)[0])
    configure(machine, wanted + HASTE)
    machine.do("mv clicks.csv.gz /var/lib/recsys/")
    said = machine.do(blocks["5. Data and a first model"][0], "5. Data and a first model")
    say("\n".join(f"       {line}" for line in said.splitlines()[-7:]))
    said = machine.do(blocks["6. Services"][0], "6. Services")
    machine.do(CERTIFICATE)
    machine.do(blocks["7. TLS"][0], "7. TLS")
    serves(machine, 8000)
    for closed in ("/metrics", "/health/ready"):
        found = machine.ask(f"{CURL}{closed}")
        machine.check(f"{closed} is closed outside", found.endswith(" 404"), found)


def operate(machine: Machine, blocks: dict[str, list[str]]) -> None:
    """Steps 8 and 9."""
    with clients(machine, "backup"):
        machine.do("as_recsys backup backups")
    newest = machine.ask("ls -t /var/lib/recsys/backups | head -n 1")
    machine.do(f"as_recsys backup --verify backups/{newest}", "8. Backups, made and verified")
    before = machine.ask(f"{CURL}{ANSWER}")
    machine.do(blocks[BACKUP[0]][0].replace(BACKUP[1], newest), BACKUP[0])
    serves(machine, 8000)
    same = (
        json.loads(machine.ask(f"{CURL}{ANSWER}")[:-4])["items"] == json.loads(before[:-4])["items"]
    )
    machine.check("the restored answer is what it was", same, before)

    install, over, stop, back = (text.replace(*RELEASE[1:]) for text in blocks[RELEASE[0]])
    with clients(machine, "upgrade"):
        machine.do(install, "9. Upgrades, installed beside")
        machine.do(over, "9. Upgrades, served throughout")
    serves(machine, 8001)
    running = "readlink /proc/{}/exe /proc/{}/cwd; tr '\\0' ' ' < /proc/{}/cmdline"
    say(f"       {machine.ask(running.replace('{}', machine.main_process('recsys@8001')))}")
    other = {"8000": "8001", "8001": "8000"}
    with clients(machine, "return"):
        swapped = re.sub("800[01]", lambda found: other[found[0]], over)
        machine.do(swapped, "9. Upgrades, served throughout, the other way")
    serves(machine, 8000)
    machine.do(f"systemctl stop 'recsys@*' {SCHEDULER}")
    machine.do(back, "9. Upgrades, back to an older schema")
    machine.do(stop, "9. Upgrades, with a stop")
    serves(machine, 8000)


if __name__ == "__main__":
    sys.exit(main())
