"""Checks the files of the README's section "Operate the service" with the programs that read them, and the service
behind nginx and Caddy.

Run: python3 operations.py [BINARY]     (Python 3.11, Linux; uses nginx, caddy, systemd-analyze, promtool, sqlite3 and
rsync where they are installed)

Checked: each program accepts its file; the shell scripts have no syntax errors; below a sub-path of nginx and Caddy,
events arrive while the job trains, with gzip or without, and the URLs in responses resolve; a backup of a running
service is a store on which a service continues the jobs. Prints a Markdown table; exits with 1 if a check fails. A
program that is not installed is reported and fails no check."""

import argparse
import http.client
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from common import BINARY, Server, table, tiny

README = Path(__file__).parents[2] / "README.md"
# Seconds between two events at the client; the service sends a batch every half second.
MAX_GAP = 3


def blocks():
    """The code blocks of the section by language."""
    section = README.read_text().split("### Operate the service")[1].split("\n## ")[0]
    return re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL)


def block(language, part=""):
    return next(text for name, text in blocks() if name == language and part in text)


def run(*command, **more):
    return subprocess.run(command, capture_output=True, text=True, **more)


def check_files(folder, report):
    """Each file with the program that reads it."""

    def check(name, program, command, text, prepare=lambda text: text):
        path = folder / name
        path.write_text(prepare(text))
        if not shutil.which(program):
            report(f"{name}: {program}", "not installed", True)
            return
        result = run(*[str(path) if part == "FILE" else part for part in command])
        output = (result.stdout + result.stderr).strip().splitlines()
        report(
            f"{name}: {' '.join(command)}", "accepted" if result.returncode == 0 else output[-1], not result.returncode
        )

    binary = "/usr/local/bin/dcgan-train"
    unit = lambda text: text.replace(binary, shutil.which("true"))
    check("dcgan.service", "systemd-analyze", ["systemd-analyze", "verify", "FILE"], block("ini"), unit)
    check(
        "nginx.conf", "nginx", ["nginx", "-t", "-c", "FILE"], block("nginx"), lambda text: nginx(folder, text, 8421, 1)
    )
    check("Caddyfile", "caddy", ["caddy", "validate", "--adapter", "caddyfile", "--config", "FILE"], block("caddyfile"))
    token = folder / "token"
    token.write_text("k3jf92mv0axq81zr")
    local = lambda text: text.replace("/etc/prometheus/dcgan-token", str(token))
    check("prometheus.yml", "promtool", ["promtool", "check", "config", "FILE"], block("yaml"), local)
    check("backup.sh", "sh", ["sh", "-n", "FILE"], block("sh", "sqlite3"))
    check("slurm.sh", "sh", ["sh", "-n", "FILE"], block("sh", "SBATCH"))


def nginx(folder, location, service, port):
    """A configuration around the README's lines."""
    paths = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    location = location.replace("127.0.0.1:8421", f"127.0.0.1:{service}")
    return f"""pid {folder}/nginx.pid; error_log {folder}/error.log; events {{}}
http {{ access_log off; {paths} gzip on; gzip_types *; server {{ listen 127.0.0.1:{port};\n{location}}} }}"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(port, path, method="GET", body=None, headers=()):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, dict(headers))
    return connection, connection.getresponse()


def start_nginx(folder, service, port):
    config = folder / "proxy.conf"
    config.write_text(nginx(folder, block("nginx"), service, port))
    return subprocess.Popen(["nginx", "-c", config, "-g", "daemon off;"], stderr=subprocess.DEVNULL)


def start_caddy(folder, service, port):
    config = folder / "proxy.Caddyfile"
    lines = block("caddyfile").replace("lab.example {", f"http://127.0.0.1:{port} {{").replace(":8421", f":{service}")
    config.write_text("{\n\tadmin off\n}\n" + lines)
    command = ["caddy", "run", "--adapter", "caddyfile", "--config", config]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, env={"HOME": str(folder), "PATH": "/usr/bin:/bin"})


def wait_for_port(port):
    deadline = time.monotonic() + 30
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def check_proxy(binary, folder, report, program, start):
    """The service below /dcgan/ of a reverse proxy."""
    if not shutil.which(program):
        report(f"the service behind {program}", "not installed", True)
        return
    server, port = Server(binary, folder / program), free_port()
    proxy = start(folder, server.address[1], port)
    try:
        wait_for_port(port)
        base = f"http://127.0.0.1:{port}/dcgan/"
        headers = {"Origin": f"http://127.0.0.1:{port}"}
        options = json.dumps(tiny(100_000_000, log_every=50, checkpoint_every=100_000, sample_every=1_000))
        _, response = get(port, "/dcgan/v1/jobs", "POST", options, headers)
        location = urlsplit(urljoin(base + "v1/jobs", response.headers["location"])).path
        report(f"{program}: Location of a job", location, location.startswith("/dcgan/v1/jobs/0"))
        id = location.split("/")[-1]
        server.wait(id, "running", lambda job: job["step"] > 1_100, 600)
        samples = location + "/samples"
        url = urljoin(f"http://127.0.0.1:{port}{samples}", json.load(get(port, samples)[1])["samples"][0]["url"])
        status = get(port, urlsplit(url).path)[1].status
        report(f"{program}: URL of its first image grid", status, status == 200)
        for encoding in ("identity", "gzip"):
            connection, response = get(port, location + "/events", headers={"Accept-Encoding": encoding})
            started, gap, last = time.monotonic(), 0, time.monotonic()
            while time.monotonic() < started + 8:
                if not response.read1(1 << 16):
                    break
                gap, last = max(gap, time.monotonic() - last), time.monotonic()
            connection.close()
            gap = max(gap, time.monotonic() - last)
            report(f"{program}: events, {encoding}: longest gap", f"{gap:.1f} s", gap < MAX_GAP)
    finally:
        proxy.terminate()
        proxy.wait()
        server.stop()


def check_backup(binary, folder, report):
    missing = [program for program in ("sqlite3", "rsync") if not shutil.which(program)]
    if missing:
        report("backup", f"{', '.join(missing)} not installed", True)
        return
    server = Server(binary, folder / "store")
    done, running, queued = server.submit(tiny()), server.submit(tiny(900)), server.submit(tiny(5))
    server.wait(running, "running", lambda job: job["step"] > 100)
    backup = folder / "backup"
    backup.mkdir()
    script = block("sh", "sqlite3").replace("/var/lib/dcgan", str(server.store)).replace("/backup", str(backup))
    result = run("sh", "-ec", script)
    server.kill()
    copy = Server(binary, backup)
    try:
        for id in (done, running, queued):
            copy.wait_state(id, "done", 600)
        report("a service on the backup of a running one", "all jobs are done", not result.returncode)
    finally:
        copy.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", nargs="?", default=BINARY)
    binary = parser.parse_args().binary
    rows, faults = [], []

    def report(check, result, passed):
        rows.append([check, result])
        if not passed:
            faults.append(f"{check}: {result}")

    with tempfile.TemporaryDirectory() as folder:
        check_files(Path(folder), report)
        check_proxy(binary, Path(folder), report, "nginx", start_nginx)
        check_proxy(binary, Path(folder), report, "caddy", start_caddy)
        check_backup(binary, Path(folder), report)
    table(["check", "result"], rows)
    for fault in faults:
        print(f"FAULT: {fault}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
