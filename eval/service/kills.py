"""200 jobs are submitted while the service is killed at random moments: none is lost, none is run twice.

Run: python3 kills.py [BINARY]     (Python 3.11)

Concurrent clients submit jobs, each with a unique seed, until 200 have been answered with 202. Meanwhile and afterwards
the service repeatedly gets SIGKILL, also before it listens, and is restarted on the same store. A request whose
connection broke before the response may have been accepted or not; such requests are counted separately. At the end the
service runs until all jobs are done.

Checked: each job answered with 202 exists once and is done; each other job belongs to a broken request, once; each
logged step of each job appears once; no job was started after it was done, by the service's log and the times of its
files; checkpoints, samples and results of every tenth job are the bytes of `dcgan-train run`. Prints a Markdown table;
exits with 1 if a check fails."""

import argparse
import collections
import json
import random
import re
import socket
import struct
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path

from common import BINARY, Server, check_steps, compare, reference_run, table, tiny

CLIENTS = 8


def images(folder, count):
    """Few grey images of 8 x 8 pixels, so that jobs start quickly."""
    folder.mkdir(parents=True)
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    for i in range(count):
        rows = b"".join(b"\0" + bytes((i * 9 + row * 3 + column) % 256 for column in range(8)) for row in range(8))
        head = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)
        png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
        (folder / f"{i:03}.png").write_bytes(png)


class Clients:
    """Threads that submit until enough jobs have been accepted."""

    def __init__(self, address, jobs, seed):
        self.address, self.jobs, self.random = address, jobs, random.Random(seed)
        self.lock, self.next = threading.Lock(), 0
        self.accepted, self.broken, self.refused, self.others = {}, set(), 0, []
        self.threads = [threading.Thread(target=self.work, daemon=True) for _ in range(CLIENTS)]
        for thread in self.threads:
            thread.start()

    def work(self):
        while True:
            with self.lock:
                if len(self.accepted) >= self.jobs:
                    return
                seed, self.next = self.next, self.next + 1
                pause = self.random.uniform(0, 0.4)
            time.sleep(pause)
            self.submit(seed)

    def submit(self, seed):
        body = json.dumps(tiny(seed=seed, data="few")).encode()
        head = f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        try:
            connection = socket.create_connection(self.address, timeout=30)
        except OSError:
            with self.lock:
                self.refused += 1  # nothing was sent
            time.sleep(0.05)
            return
        response = b""
        try:
            connection.sendall(head.encode() + body)
            while part := connection.recv(65536):
                response += part
        except OSError:
            pass
        connection.close()
        head, _, body = response.partition(b"\r\n\r\n")
        with self.lock:
            try:
                job = json.loads(body)
            except ValueError:
                self.broken.add(seed)  # no response, or an incomplete one
                return
            if head.startswith(b"HTTP/1.1 202"):
                self.accepted[seed] = job["id"]
            else:
                self.others.append((head.split(b"\r\n")[0].decode(), job))


def finished(store):
    """Modification times of the results of jobs that are done according to the log.

    A result without such a log line may be written again: the kill came in between, and the job has nothing left to
    train."""
    done = re.findall(r"job ended job=([0-9a-f]{16}) state=done", Path(f"{store}.log").read_text())
    return {id: (store / "runs" / id / "result.json").stat().st_mtime_ns for id in done}


def all_jobs(server):
    jobs, before = [], ""
    while True:
        page = server.json("GET", f"/v1/jobs?limit=200{before}")
        jobs += page["jobs"]
        if not page["next"]:
            return jobs
        before = f"&before={page['next']}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", nargs="?", default=BINARY)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--kills", type=int, default=100, help="at least")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rng, faults, started = random.Random(arguments.seed), [], time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        images(folder / "data/few", 40)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = probe.getsockname()
        start = lambda wait: Server(
            arguments.binary,
            folder / "store",
            "--data-root",
            folder / "data",
            "--max-queued",
            100_000,
            address=address,
            wait=wait,
        )
        server, kills, early_kills, done = start(True), 0, 0, {}
        clients = Clients(address, arguments.jobs, arguments.seed)
        # While jobs are submitted, and afterwards until half of them are done.
        while (
            any(thread.is_alive() for thread in clients.threads)
            or kills < arguments.kills
            or len(done) < arguments.jobs // 2
        ):
            time.sleep(rng.choice([0.01, 0.1, 0.3, 1.0]) * rng.random())
            listening = server.is_listening()
            server.kill()
            kills, early_kills = kills + 1, early_kills + (not listening)
            for id, written in finished(folder / "store").items():
                if done.setdefault(id, written) != written:
                    faults.append(f"the result of {id} was written again")
            server = start(False)
        server.kill()
        server = start(True)
        jobs = all_jobs(server)
        for job in jobs:
            ended = server.wait(job["id"], "finished", lambda job: job["state"] in ("done", "failed", "cancelled"), 600)
            if ended["state"] != "done" or ended["step"] != 23:
                faults.append(f"{job['id']} ended as {ended['state']} at step {ended['step']}: {ended['error']}")
        seeds = collections.Counter(job["options"]["seed"] for job in jobs)
        by_seed = {job["options"]["seed"]: job["id"] for job in jobs}
        lost = [id for seed, id in clients.accepted.items() if by_seed.get(seed) != id]
        twice = [seed for seed, count in seeds.items() if count > 1]
        unknown = [seed for seed in seeds if seed not in clients.accepted and seed not in clients.broken]
        faults += [f"accepted jobs that are missing: {lost}"] if lost else []
        faults += [f"duplicate jobs: seeds {twice}"] if twice else []
        faults += [f"jobs that were not submitted: seeds {unknown}"] if unknown else []
        faults += [f"answered with {other}" for other in clients.others]
        for id, written in finished(folder / "store").items():
            if done.setdefault(id, written) != written:
                faults.append(f"the result of {id} was written again")
        folders = {path.name for path in (folder / "store/runs").iterdir()}
        if folders != set(by_seed.values()):
            faults.append(f"run folders without a job, or jobs without a run folder: {folders ^ set(by_seed.values())}")
        starts, finished_ids = collections.Counter(), set()
        for line in (folder / "store.log").read_text().splitlines():
            if found := re.search(r"job (started|ended) job=([0-9a-f]{16})(?: state=(\w+))?", line):
                event, id, state = found.groups()
                if event == "ended" and state != "done":
                    continue
                if event == "ended":
                    finished_ids.add(id)
                elif id in finished_ids:
                    faults.append(f"{id} was started again after it was done")
                else:
                    starts[id] += 1
        if len(finished_ids) < len(jobs) / 2:
            faults.append("the log has too few ends of jobs")  # the check above would be void
        compared = 0
        for seed, id in sorted(by_seed.items()):
            faults += [f"{id}: {fault}" for fault in check_steps(server.run_folder(id))]
            if seed % 10 == 0:
                reference = reference_run(arguments.binary, folder, tiny(seed=seed, data=folder / "data/few"))
                faults += [f"{id}, seed {seed}: {fault}" for fault in compare(reference, server.run_folder(id))]
                compared += 1
        if server.stop() != 0:
            faults.append("unclean shutdown")
    from_broken = sum(seed in clients.broken for seed in seeds)
    interrupted = sum(count > 1 for count in starts.values())
    table(
        ["what", "count"],
        [
            ["SIGKILLs; before the service listened", f"{kills}; {early_kills}"],
            [
                "requests: answered with 202; broken before a response; not connected",
                f"{len(clients.accepted)}; {len(clients.broken)}; {clients.refused}",
            ],
            ["jobs at the end; from broken requests", f"{len(jobs)}; {from_broken}"],
            ["accepted jobs lost", len(lost)],
            ["jobs duplicated or not submitted", len(twice) + len(unknown)],
            ["jobs interrupted by a kill and resumed; maximum", f"{interrupted}; {max(starts.values())} times"],
            [
                "jobs started again after they were done",
                sum("started again" in fault or "written again" in fault for fault in faults),
            ],
            ["jobs compared with `run`; faults", f"{compared}; {len(faults)}"],
            ["seconds", f"{time.monotonic() - started:.0f}"],
        ],
    )
    for fault in faults:
        print(f"FAULT: {fault}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
