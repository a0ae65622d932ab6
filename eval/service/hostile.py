"""Helpers of attacks.py: service processes, raw HTTP, the table of responses, hostile data."""

import json
import os
import re
import select
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from pathlib import Path

from common import TINY

TOKEN = "correct-horse-battery-staple"
MIB = 1 << 20


class Service:
    """A service process. The OOM killer selects it first."""

    def __init__(self, binary, folder, name, *arguments):
        self.store = folder / name
        self.log = open(folder / f"{name}.log", "ab")
        command = [binary, "serve", "--store", self.store, "--listen", "127.0.0.1:0", *arguments]
        set_oom_score = lambda: Path("/proc/self/oom_score_adj").write_text("1000")
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self.log, stdin=subprocess.DEVNULL, preexec_fn=set_oom_score
        )
        line = self.process.stdout.readline().decode().strip()
        host, port = line.removeprefix("listening on http://").rsplit(":", 1)
        self.address = (host, int(port))
        self.headers = f"Host: {host}:{port}\r\n"
        if "--token-file" in arguments:
            self.headers += f"Authorization: Bearer {TOKEN}\r\n"

    def connect(self, timeout=20):
        return socket.create_connection(self.address, timeout=timeout)

    def request(self, method, path, body=b"", headers="", timeout=70):
        """Status and body of the response to a well-formed request; `body` is bytes or is sent as JSON."""
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\n{self.headers}{headers}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        return parse(self.raw(head.encode("latin-1") + body, timeout))

    def raw(self, data, timeout=20, half_close=False):
        """The response to these bytes until the service closes the connection; None if it does not close in time."""
        with self.connect(timeout) as stream:
            return exchange(stream, data, timeout, half_close)

    def json(self, method, path, body=b""):
        status, text = self.request(method, path, body)
        if status >= 300:
            raise SystemExit(f"{method} {path}: {status} {text.decode()}")
        return json.loads(text)

    def submit(self, **options):
        return self.json(
            "POST",
            "/v1/jobs",
            {"config": TINY, "log_every": 100, "checkpoint_every": 5000, "sample_every": 5000} | options,
        )["id"]

    def wait(self, id, states, seconds=60):
        deadline = time.monotonic() + seconds
        while True:
            job = self.json("GET", f"/v1/jobs/{id}")
            if job["state"] in states:
                return job
            if time.monotonic() > deadline:
                raise SystemExit(f"job {id} is not {states}: {job}")
            time.sleep(0.02)

    def health(self):
        """Response time of /healthz in seconds, or None."""
        started = time.monotonic()
        try:
            response = parse(self.raw(f"GET /healthz HTTP/1.1\r\n{self.headers}Connection: close\r\n\r\n".encode(), 2))
        except OSError:
            return None
        return time.monotonic() - started if response[0] == 204 else None

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def peak(self):
        """Peak memory in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s*(\d+)", status)[1]) // 1000

    def stop(self):
        self.process.terminate()
        code = self.process.wait(60)
        self.log.close()
        return code


def ready(stream, seconds, write=False):
    """Whether the stream is readable and writable, after waiting for either. Unlike select, poll accepts more than
    1,024 descriptors."""
    poll = select.poll()
    poll.register(stream, select.POLLIN | (select.POLLOUT if write else 0))
    events = sum(event for _, event in poll.poll(1000 * seconds))
    return bool(events & ~select.POLLOUT), bool(events & select.POLLOUT)


def exchange(stream, data, timeout, half_close=False):
    """Sends and receives until the service closes the connection; None if it does not close in time."""
    deadline, response, view = time.monotonic() + timeout, b"", memoryview(data)
    stream.setblocking(False)
    while (left := deadline - time.monotonic()) > 0:
        readable, writable = ready(stream, left, bool(view))
        try:
            if readable:
                block = stream.recv(1 << 16)
                if not block:
                    return response
                response += block
            if writable:
                view = view[stream.send(view[: 1 << 16]) :]
                if not view and half_close:
                    stream.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        except (ConnectionResetError, BrokenPipeError):
            # If the service did not read the body, the connection is reset after the response.
            return response
    return None


def parse(response):
    """Status and body of a raw response."""
    if response is None:
        return "not closed", b""
    match = re.match(rb"HTTP/1\.[01] (\d{3})", response)
    return (int(match[1]) if match else "closed"), response.partition(b"\r\n\r\n")[2]


def statuses(responses):
    """The statuses of all responses on a connection."""
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", responses or b"")]


class Table:
    """Responses to attacks, compared with the expected ones."""

    def __init__(self):
        self.rows, self.faults, self.slowest, self.lock = [], [], 0.0, threading.Lock()

    def add(self, service, group, attack, response, expected):
        """`expected`: a regular expression for the whole response."""
        health = service.health()
        with self.lock:
            self.rows.append((group, attack, response))
            self.slowest = max(self.slowest, health or 99)
            if not re.fullmatch(expected, str(response), re.DOTALL):
                self.fault(f"{group}: {attack}: {response}, expected {expected}")
            if health is None:
                self.fault(f"{group}: {attack}: /healthz does not respond any more")
            print(f"{group}: {attack}: {response}", file=sys.stderr, flush=True)

    def fault(self, text):
        self.faults.append(text)
        print(f"FAULT {text}", file=sys.stderr, flush=True)

    def print(self):
        """Prints Markdown; attacks of a group with the same response share a row."""
        rows = {}
        for group, attack, response in self.rows:
            rows.setdefault((group, str(response)), []).append(attack)
        print("| attack | response |\n|---|---|")
        for group in dict.fromkeys(group for group, _, _ in self.rows):
            for (row_group, response), attacks in rows.items():
                if row_group == group:
                    text = f"{group}: {'; '.join(attacks)}".replace("|", "\\|")
                    print(f"| {text} | {response.replace('|', chr(92) + '|')} |")


def summarize(response):
    """Status and fields of the faults, such as `422 steps, seed`."""
    status, body = response
    try:
        error = json.loads(body)["error"] or {"faults": []}
    except (ValueError, KeyError, TypeError):
        return str(status)
    if len(error["faults"]) > 9:
        return f"{status} with {len(error['faults'])} faults, {len(body):,} bytes"
    fields = ", ".join(dict.fromkeys(fault["field"] for fault in error["faults"]))
    return f"{status} {fields}".strip()


def png(side, value=0, claimed=None):
    """A grey PNG; `claimed`: another side length for its header."""
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", claimed or side, claimed or side, 8, 0, 0, 0, 0)
    rows = b"".join(b"\0" + bytes([value]) * side for _ in range(side))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def make_data(folder):
    data = folder / "data"
    for name in ("data/good", "data/leaky", "data/swapped", "data/claims", "data/pipes", "secret", "models"):
        (folder / name).mkdir(parents=True)
        for i in range(20):
            if name not in ("models", "data/claims"):
                (folder / name / f"{i:03}.png").write_bytes(png(8, i * 9))
    for i in range(20):
        (data / "claims" / f"{i:03}.png").write_bytes(png(8, i, claimed=30000))
    (data / "out").symlink_to(folder / "secret")
    (data / "leaky/100.png").symlink_to(folder / "secret/000.png")
    (folder / "models/out").symlink_to(folder / "secret")
    os.mkfifo(data / "pipes/pipe.png")
    (data / "noise.png").write_bytes(os.urandom(100000))
    evil = ["../escaped", "../../escaped", "/escaped-from-a-zip", "..\\escaped", "a/../../escaped", "C:\\escaped"]
    with zipfile.ZipFile(data / "slip.zip", "w") as archive:
        for i in range(20):
            archive.writestr(f"{evil[i % len(evil)]}/{i}.png", png(8, i))
    with zipfile.ZipFile(data / "slip-too.zip", "w") as archive:
        for i in range(20):
            archive.writestr(f"{evil[i % len(evil)]}/{i}.png", png(8, i))
            archive.writestr(f"{i}.png", png(8, i))
    (data / "cut.zip").write_bytes((data / "slip-too.zip").read_bytes()[:2000])
    with zipfile.ZipFile(data / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("0.png", "w", force_zip64=True) as entry:
            entry.write(png(8))
            for _ in range(2048):
                entry.write(bytes(MIB))
        for i in range(1, 20):
            archive.writestr(f"{i}.png", png(8, i))
    with zipfile.ZipFile(data / "bombs.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(18):
            archive.writestr(f"{i}.png", png(8, i))
        for i in range(2):
            archive.writestr(f"large-{i}.png", png(16000))


def descriptors_released(service, before, seconds=45):
    """Waits until the open file descriptors are back to `before`, with a margin for current requests; False on
    timeout."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if service.descriptors() <= before + 3:
            return True
        time.sleep(0.3)
    return False


def run_concurrently(functions):
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
