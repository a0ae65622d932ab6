"""What clients that ask and never read hold of the training service, and for how long; and floods where few files may be open.

Run: python3 unread.py [BINARY]     (Python 3.11, Linux, the standard library; three minutes: the service gives them up after one)

Checked while a job trains: no more events, images and downloads are on their way at a time than the service's limits say; others are
answered meanwhile; after a minute the places are free again although no client has read anything or gone; memory stays bounded; and with
`ulimit -n 400` a flood of connections keeps no checkpoint from being written. Prints a table in Markdown; ends with 1 where something
does not hold.
"""

import argparse
import collections
import json
import socket
import sys
import tempfile
import time
from pathlib import Path

from common import BINARY, Server, stats_lines, table, tiny

QUIET = {"log_every": 1_000_000, "checkpoint_every": 1_000_000, "sample_every": 1_000_000}
# A minute until a reader is given up, and what a busy machine takes.
GIVEN_UP = 75


def ask(server, count, method, path, body=""):
    """As many clients, each with the smallest buffer there is; the statuses they see, and the clients."""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    clients = []
    for _ in range(count):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(120)
        client.connect(server.address)
        client.sendall(head.encode())
        clients.append(client)
    statuses = collections.Counter(client.recv(12)[9:].decode() for client in clients)
    return statuses, clients


def memory(server):
    return int(Path(f"/proc/{server.pid}/status").read_text().split("VmRSS:")[1].split()[0]) // 1024


def answers(server):
    """How long /v1/jobs takes."""
    started = time.monotonic()
    status = server.ask("GET", "/v1/jobs")[0]
    return status, time.monotonic() - started


def long_history(run):
    """Makes a finished job's history 16 MB long."""
    line = next(event for event in map(json.loads, stats_lines(run)) if event["event"] == "step")
    with open(run / "stats.jsonl", "a") as file:
        for step in range(100, 100 + (16 << 20) // len(json.dumps(line))):
            file.write(json.dumps(line | {"step": step}) + "\n")


def unread(binary, folder, rows, faults):
    server = Server(binary, folder / "store")
    done, big = server.submit(tiny()), server.submit(tiny(1, size=256))
    for id in (done, big):
        server.wait_state(id, "done", 300)
    long_history(server.run_folder(done))
    trains = server.submit(tiny(100_000_000) | QUIET)
    server.wait_state(trains, "running")
    for what, count, request, most, megabytes in [
        ("readers of 16 MB of events", 600, ("GET", f"/v1/jobs/{done}/events"), 512, 512),
        # Each answer is 64 MB; 16 at a time, of which the thread that draws takes its time.
        ("requests for 64 MB of images", 100, ("POST", f"/v1/models/{big}/samples", '{"format": "safetensors", "count": 256}'), 16, 1536),
    ]:
        before, step = memory(server), server.job(trains)["step"]
        first, clients = ask(server, count, *request)
        (status, seconds), held = answers(server), memory(server)
        time.sleep(GIVEN_UP)
        again, more = ask(server, count, *request)
        for client in clients + more:
            client.close()
        seen = [", ".join(f"{status} x {n}" for status, n in sorted(counter.items())) for counter in (first, again)]
        rows.append([f"{count} {what}", seen[0], f"{before} → {held}", f"{seconds * 1e3:.0f}", seen[1]])
        taken = [counter["200"] for counter in (first, again)]
        if min(taken) == 0 or max(taken) > most or any(set(counter) - {"200", "503"} for counter in (first, again)):
            faults.append(f"{what}: {seen}, expected at most {most} with 200, and the others with 503")
        # Those of before still hold their connections: without their places there are too few.
        if sum(taken) <= most:
            faults.append(f"{what}: the places are not given back: {seen}")
        if held - before > megabytes:
            faults.append(f"{what}: {held - before} MB")
        if status != 200 or seconds > 5:
            faults.append(f"{what}: meanwhile /v1/jobs is answered with {status} after {seconds:.1f} s")
        if server.job(trains)["step"] <= step:
            faults.append(f"{what}: the job does not go on")
    if server.stop() != 0:
        faults.append("the service did not end in peace")


def few_files(binary, folder, rows, faults):
    server = Server(binary, folder / "store", prefix=["sh", "-c", 'ulimit -n 400; exec "$@"', "sh"])
    id = server.submit(tiny(100_000_000) | QUIET | {"checkpoint_every": 20, "keep": 2})
    newest = lambda: max((path.name for path in (server.run_folder(id) / "checkpoints").glob("0*")), default="")
    server.wait(id, "under way", lambda job: job["step"] > 20)
    flood = []
    for _ in range(250):
        flood.append(socket.create_connection(server.address))
    first = newest()
    time.sleep(5)
    last, state = newest(), server.job(id)["state"]
    (status, seconds) = answers(server)
    for connection in flood:
        connection.close()
    rows.append(["`ulimit -n 400`, 250 connections: checkpoints", f"{int(first)} → {int(last)}", "", f"{seconds * 1e3:.0f}", ""])
    if last <= first or state != "running" or status != 200:
        faults.append(f"few files: checkpoints {first} to {last}, the job is {state}, /v1/jobs is answered with {status}")
    if server.stop() != 0:
        faults.append("the service did not end in peace")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", nargs="?", default=BINARY)
    arguments = parser.parse_args()
    rows, faults = [], []
    for check in (unread, few_files):
        with tempfile.TemporaryDirectory() as folder:
            check(arguments.binary, Path(folder), rows, faults)
    table(["never read", "answers", "MB before → held", "others wait, ms", f"answers {GIVEN_UP} s later, nobody gone"], rows)
    for fault in faults:
        print(f"FAULT: {fault}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
