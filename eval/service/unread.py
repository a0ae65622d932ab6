"""Resources held by clients that never read their responses, and for how long; a connection flood with few file
descriptors.

Run: python3 unread.py [BINARY]     (Python 3.11, Linux, the standard library; three minutes: the write timeout is one)

Checked while a job trains: the number of event streams and draw requests stays within the service's limits; other
requests are answered meanwhile; after the write timeout the permits are free again although no client has read or
disconnected; memory is bounded; with `ulimit -n 400` a flood of connections does not prevent checkpoints. Prints a
Markdown table; exits with 1 if a check fails."""

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
# The write timeout of a minute, and a margin for a busy machine.
TIMEOUT = 75


def connect_clients(server, count, method, path, body=""):
    """Sends a request from each of `count` clients with the smallest receive buffer; returns the statuses, the clients
    that were accepted, and the others."""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    clients = []
    for _ in range(count):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(120)
        client.connect(server.address)
        client.sendall(head.encode())
        clients.append(client)
    statuses = [client.recv(12)[9:].decode() for client in clients]
    split = {accepted: [] for accepted in (True, False)}
    for client, status in zip(clients, statuses):
        split[status == "200"].append(client)
    return collections.Counter(statuses), split[True], split[False]


def is_disconnected(client):
    """Whether the service has closed the connection: what is left in the buffers of the system ends soon."""
    client.settimeout(5)
    try:
        while client.recv(1 << 20):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def memory_mb(server):
    return int(Path(f"/proc/{server.pid}/status").read_text().split("VmRSS:")[1].split()[0]) // 1024


def poll_jobs(server):
    """Status and response time of /v1/jobs."""
    started = time.monotonic()
    status = server.request("GET", "/v1/jobs")[0]
    return status, time.monotonic() - started


def extend_history(run):
    """Extends the stats.jsonl of a finished job to 16 MB."""
    line = next(event for event in map(json.loads, stats_lines(run)) if event["event"] == "step")
    with open(run / "stats.jsonl", "a") as file:
        for step in range(100, 100 + (16 << 20) // len(json.dumps(line))):
            file.write(json.dumps(line | {"step": step}) + "\n")


def check_unread(binary, folder, rows, faults):
    server = Server(binary, folder / "store")
    done, large = server.submit(tiny()), server.submit(tiny(1, size=128))
    for id in (done, large):
        server.wait_state(id, "done", 300)
    extend_history(server.run_folder(done))
    training = server.submit(tiny(100_000_000) | QUIET)
    server.wait_state(training, "running")
    for description, count, request, limit, megabytes in [
        ("event streams of 16 MB", 600, ("GET", f"/v1/jobs/{done}/events"), 512, 512),
        # Each response has 64 MB; at most 16 at a time, and one thread renders them.
        (
            "draw requests for 64 MB of images",
            100,
            ("POST", f"/v1/models/{large}/samples", '{"format": "safetensors", "count": 1024}'),
            16,
            1536,
        ),
    ]:
        before, step = memory_mb(server), server.job(training)["step"]
        first, accepted, others = connect_clients(server, count, *request)
        (status, seconds), held = poll_jobs(server), memory_mb(server)
        time.sleep(TIMEOUT)
        again, more, refused = connect_clients(server, count, *request)
        disconnected = sum(is_disconnected(client) for client in accepted)
        for client in accepted + others + more + refused:
            client.close()
        summary = [", ".join(f"{status} x {n}" for status, n in sorted(counter.items())) for counter in (first, again)]
        rows.append([f"{count} {description}", summary[0], f"{before} → {held}", f"{seconds * 1e3:.0f}", summary[1]])
        numbers = [counter["200"] for counter in (first, again)]
        if (
            min(numbers) == 0
            or max(numbers) > limit
            or any(set(counter) - {"200", "503"} for counter in (first, again))
        ):
            faults.append(f"{description}: {summary}, expected at most {limit} x 200, and 503 for the others")
        # The first clients have not closed their connections: the service has, and released their permits.
        if disconnected < numbers[0]:
            faults.append(f"{description}: {numbers[0] - disconnected} of {numbers[0]} clients are still connected")
        if held - before > megabytes:
            faults.append(f"{description}: {held - before} MB, expected at most {megabytes}")
        if status != 200 or seconds > 5:
            faults.append(f"{description}: meanwhile /v1/jobs is answered with {status} after {seconds:.1f} s")
        if server.job(training)["step"] <= step:
            faults.append(f"{description}: the job makes no progress")
    if server.stop() != 0:
        faults.append("unclean shutdown")


def check_few_files(binary, folder, rows, faults):
    server = Server(binary, folder / "store", prefix=["sh", "-c", 'ulimit -n 400; exec "$@"', "sh"])
    id = server.submit(tiny(100_000_000) | QUIET | {"checkpoint_every": 20, "keep": 2})
    newest = lambda: max((path.name for path in (server.run_folder(id) / "checkpoints").glob("0*")), default="")
    server.wait(id, "running", lambda job: job["step"] > 20)
    flood = []
    for _ in range(250):
        flood.append(socket.create_connection(server.address))
    first = newest()
    time.sleep(5)
    last, state = newest(), server.job(id)["state"]
    status, seconds = poll_jobs(server)
    for connection in flood:
        connection.close()
    rows.append(
        ["`ulimit -n 400`, 250 connections: checkpoints", f"{int(first)} → {int(last)}", "", f"{seconds * 1e3:.0f}", ""]
    )
    if last <= first or state != "running" or status != 200:
        faults.append(
            f"few files: checkpoints {first} to {last}, the job is {state}, /v1/jobs is answered with {status}"
        )
    if server.stop() != 0:
        faults.append("unclean shutdown")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", nargs="?", default=BINARY)
    arguments = parser.parse_args()
    rows, faults = [], []
    for check in (check_unread, check_few_files):
        with tempfile.TemporaryDirectory() as folder:
            check(arguments.binary, Path(folder), rows, faults)
    table(
        [
            "clients that never read",
            "statuses",
            "MB before → during",
            "/v1/jobs, ms",
            f"statuses {TIMEOUT} s later, same clients connected",
        ],
        rows,
    )
    for fault in faults:
        print(f"FAULT: {fault}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
