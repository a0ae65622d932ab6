"""200 jobs submitted while the service is killed at random moments: none is lost, none is run twice.

Run: python3 kills.py [BINARY]     (Python 3.11)

Clients submit jobs of their own, each with a seed nobody else uses, until 200 have been answered with 202; meanwhile and afterwards the
service gets SIGKILL again and again, also before it listens, and is started again on the same store. A request whose connection broke
before the answer may have been accepted or not: such ones are counted apart. At the end the service is left alone until all is done.

Checked: every job that was answered with 202 is there once and done; every other job is one of a broken request, once; each logged step
of each job is written down once; no job began again after it was done, by the service's log and by the times of its files; checkpoints,
samples and results of every tenth job are the bytes of `dcgan-train run`. Prints a table in Markdown; ends with 1 where something does
not hold.
"""

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

from common import BINARY, Server, compare, steps_once, table, tiny, undisturbed

CLIENTS = 8


def images(folder, count):
    """Grey images of 8 x 8 pixels: few, so that a job begins at once."""
    folder.mkdir(parents=True)
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    for i in range(count):
        rows = b"".join(b"\0" + bytes((i * 9 + row * 3 + column) % 256 for column in range(8)) for row in range(8))
        head = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)
        png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
        (folder / f"{i:03}.png").write_bytes(png)


class Clients:
    """Threads that submit until enough has been accepted."""

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
        answer = b""
        try:
            connection.sendall(head.encode() + body)
            while part := connection.recv(65536):
                answer += part
        except OSError:
            pass
        connection.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        with self.lock:
            try:
                job = json.loads(body)
            except ValueError:
                self.broken.add(seed)  # none, or half of one
                return
            if head.startswith(b"HTTP/1.1 202"):
                self.accepted[seed] = job["id"]
            else:
                self.others.append((head.split(b"\r\n")[0].decode(), job))


def finished(store):
    """When the result of each job that the log says is done was written.

    A result without that line may be written again: the kill came between the two, and the job has nothing left to train.
    """
    done = re.findall(r"job ([0-9a-f]{16}) is done", Path(f"{store}.log").read_text())
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
    chance, faults, started = random.Random(arguments.seed), [], time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        images(folder / "data/few", 40)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = probe.getsockname()
        start = lambda wait: Server(
            arguments.binary, folder / "store", "--data-root", folder / "data", "--max-queued", 100_000, address=address, wait=wait
        )
        server, kills, deaf, done = start(True), 0, 0, {}
        clients = Clients(address, arguments.jobs, arguments.seed)
        # While jobs are submitted and a good while after it.
        while any(thread.is_alive() for thread in clients.threads) or kills < arguments.kills or len(done) < arguments.jobs // 2:
            time.sleep(chance.choice([0.01, 0.1, 0.3, 1.0]) * chance.random())
            listening = server.listens()
            server.kill()
            kills, deaf = kills + 1, deaf + (not listening)
            for id, written in finished(folder / "store").items():
                if done.setdefault(id, written) != written:
                    faults.append(f"the result of {id} was written again")
            server = start(False)
        server.kill()
        server = start(True)
        jobs = all_jobs(server)
        for job in jobs:
            ended = server.wait(job["id"], "at its end", lambda job: job["state"] in ("done", "failed", "cancelled"), 600)
            if ended["state"] != "done" or ended["step"] != 23:
                faults.append(f"{job['id']} ended as {ended['state']} at step {ended['step']}: {ended['error']}")
        seeds = collections.Counter(job["options"]["seed"] for job in jobs)
        by_seed = {job["options"]["seed"]: job["id"] for job in jobs}
        lost = [id for seed, id in clients.accepted.items() if by_seed.get(seed) != id]
        twice = [seed for seed, count in seeds.items() if count > 1]
        strange = [seed for seed in seeds if seed not in clients.accepted and seed not in clients.broken]
        faults += [f"accepted and not there: {lost}"] if lost else []
        faults += [f"there twice: seeds {twice}"] if twice else []
        faults += [f"submitted by nobody: seeds {strange}"] if strange else []
        faults += [f"answered with {other}" for other in clients.others]
        for id, written in finished(folder / "store").items():
            if done.setdefault(id, written) != written:
                faults.append(f"the result of {id} was written again")
        folders = {path.name for path in (folder / "store/runs").iterdir()}
        if folders != set(by_seed.values()):
            faults.append(f"run folders without a job, or jobs without one: {folders ^ set(by_seed.values())}")
        begun, over = collections.Counter(), set()
        for line in (folder / "store.log").read_text().splitlines():
            if found := re.search(r"job ([0-9a-f]{16}) (begins|is done)", line):
                id, what = found.groups()
                if what == "is done":
                    over.add(id)
                elif id in over:
                    faults.append(f"{id} began again after it was done")
                else:
                    begun[id] += 1
        if len(over) < len(jobs) / 2:
            faults.append("the log does not tell of the jobs' ends")  # and this check would check nothing
        compared = 0
        for seed, id in sorted(by_seed.items()):
            faults += [f"{id}: {fault}" for fault in steps_once(server.run_folder(id))]
            if seed % 10 == 0:
                whole = undisturbed(arguments.binary, folder, tiny(seed=seed, data=folder / "data/few"))
                faults += [f"{id}, seed {seed}: {fault}" for fault in compare(whole, server.run_folder(id))]
                compared += 1
        if server.stop() != 0:
            faults.append("the service did not end in peace")
    of_broken = sum(seed in clients.broken for seed in seeds)
    interrupted = sum(count > 1 for count in begun.values())
    table(
        ["what", "count"],
        [
            ["SIGKILLs; of these before the service listened", f"{kills}; {deaf}"],
            ["requests: answered with 202; broken off before an answer; never connected",
             f"{len(clients.accepted)}; {len(clients.broken)}; {clients.refused}"],
            ["jobs at the end; of these of requests that broke off", f"{len(jobs)}; {of_broken}"],
            ["accepted jobs lost", len(lost)],
            ["jobs there twice, or submitted by nobody", len(twice) + len(strange)],
            ["jobs interrupted by a kill and begun again; most often", f"{interrupted}; {max(begun.values())} times"],
            ["jobs begun again after they were done", sum("began again" in fault or "written again" in fault for fault in faults)],
            ["jobs compared with `run`; faults", f"{compared}; {len(faults)}"],
            ["seconds", f"{time.monotonic() - started:.0f}"],
        ],
    )
    for fault in faults:
        print(f"FAULT: {fault}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
