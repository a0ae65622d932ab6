"""What attacks.py needs: services that may be attacked, bytes as they are on the wire, the table of answers, hostile data."""

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
    """A service in a process of its own. The system takes it before others where memory runs out."""

    def __init__(self, binary, folder, name, *arguments):
        self.store = folder / name
        self.log = open(folder / f"{name}.log", "ab")
        command = [binary, "serve", "--store", self.store, "--listen", "127.0.0.1:0", *arguments]
        first = lambda: Path("/proc/self/oom_score_adj").write_text("1000")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, stdin=subprocess.DEVNULL, preexec_fn=first)
        line = self.process.stdout.readline().decode().strip()
        host, port = line.removeprefix("listening on http://").rsplit(":", 1)
        self.address = (host, int(port))
        self.headers = f"Host: {host}:{port}\r\n"
        if "--token-file" in arguments:
            self.headers += f"Authorization: Bearer {TOKEN}\r\n"

    def connect(self, timeout=20):
        return socket.create_connection(self.address, timeout=timeout)

    def ask(self, method, path, body=b"", headers="", timeout=70):
        """Status and body of a well-formed request; body may be bytes or anything that JSON can say."""
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\n{self.headers}{headers}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        return parse(self.raw(head.encode("latin-1") + body, timeout))

    def raw(self, data, timeout=20, half_close=False):
        """What comes back for these bytes until the service closes; None where it does not close in time."""
        with self.connect(timeout) as stream:
            return talk(stream, data, timeout, half_close)

    def json(self, method, path, body=b""):
        status, text = self.ask(method, path, body)
        if status >= 300:
            raise SystemExit(f"{method} {path}: {status} {text.decode()}")
        return json.loads(text)

    def submit(self, **options):
        return self.json("POST", "/v1/jobs", {"config": TINY, "log_every": 100, "checkpoint_every": 5000, "sample_every": 5000} | options)[
            "id"
        ]

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
        """Seconds until /healthz answers, or None."""
        started = time.monotonic()
        try:
            answer = parse(self.raw(f"GET /healthz HTTP/1.1\r\n{self.headers}Connection: close\r\n\r\n".encode(), 2))
        except OSError:
            return None
        return time.monotonic() - started if answer[0] == 204 else None

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def peak(self):
        """Largest memory so far, in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s*(\d+)", status)[1]) // 1000

    def stop(self):
        self.process.terminate()
        code = self.process.wait(60)
        self.log.close()
        return code


def ready(stream, seconds, write=False):
    """Whether it can be read and written, waiting for either; other than select, poll takes more than 1,024 descriptors."""
    poll = select.poll()
    poll.register(stream, select.POLLIN | (select.POLLOUT if write else 0))
    found = sum(event for _, event in poll.poll(1000 * seconds))
    return bool(found & ~select.POLLOUT), bool(found & select.POLLOUT)


def talk(stream, data, timeout, half_close=False):
    """Sends, while it reads what comes, until the other side closes; None where it does not in time."""
    deadline, answer, view = time.monotonic() + timeout, b"", memoryview(data)
    stream.setblocking(False)
    while (left := deadline - time.monotonic()) > 0:
        readable, writable = ready(stream, left, bool(view))
        try:
            if readable:
                block = stream.recv(1 << 16)
                if not block:
                    return answer
                answer += block
            if writable:
                view = view[stream.send(view[: 1 << 16]) :]
                if not view and half_close:
                    stream.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        except (ConnectionResetError, BrokenPipeError):
            # What the service did not read makes the connection end by a reset, after the answer.
            return answer
    return None


def parse(answer):
    """Status and body."""
    if answer is None:
        return "no end", b""
    match = re.match(rb"HTTP/1\.[01] (\d{3})", answer)
    return (int(match[1]) if match else "closed"), answer.partition(b"\r\n\r\n")[2]


def statuses(answer):
    """The statuses of all answers on a connection."""
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer or b"")]


class Table:
    """Answers, and whether they were expected."""

    def __init__(self):
        self.rows, self.faults, self.slowest, self.lock = [], [], 0.0, threading.Lock()

    def add(self, service, group, attack, answer, expected):
        """`expected`: a regular expression for the whole answer."""
        health = service.health()
        with self.lock:
            self.rows.append((group, attack, answer))
            self.slowest = max(self.slowest, health or 99)
            if not re.fullmatch(expected, str(answer), re.DOTALL):
                self.fault(f"{group}: {attack}: {answer}, expected {expected}")
            if health is None:
                self.fault(f"{group}: {attack}: /healthz does not answer any more")
            print(f"{group}: {attack}: {answer}", file=sys.stderr, flush=True)

    def fault(self, text):
        self.faults.append(text)
        print(f"FAULT {text}", file=sys.stderr, flush=True)

    def print(self):
        """Attacks of a group with the same answer share a row."""
        rows = {}
        for group, attack, answer in self.rows:
            rows.setdefault((group, str(answer)), []).append(attack)
        print("| attack | answer |\n|---|---|")
        for group in dict.fromkeys(group for group, _, _ in self.rows):
            for (of, answer), attacks in rows.items():
                if of == group:
                    text = f"{group}: {'; '.join(attacks)}".replace("|", "\\|")
                    print(f"| {text} | {answer.replace('|', chr(92) + '|')} |")


def said(answer):
    """`422 field: message` of an answer in JSON."""
    status, body = answer
    try:
        error = json.loads(body)["error"] or {"faults": []}
    except (ValueError, KeyError, TypeError):
        return str(status)
    if len(error["faults"]) > 9:
        return f"{status} with {len(error['faults'])} faults, {len(body):,} bytes"
    fields = ", ".join(dict.fromkeys(fault["field"] for fault in error["faults"]))
    return f"{status} {fields}".strip()


def png(side, value=0, claimed=None):
    """A grey image; `claimed`: another side in its header."""
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


def settled(service, before, seconds=45):
    """Whether no more descriptors are open than before, but for a handful that requests of the moment hold."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if service.descriptors() <= before + 3:
            return True
        time.sleep(0.3)
    return False


def together(works):
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
