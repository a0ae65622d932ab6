"""Cost of 200 polling clients and 200 event streams for a training job on the same machine.

Run: python3 load.py [BINARY]     (Python 3.11, Linux, the standard library; nothing else should run)

One job trains throughout. Phases without and with load alternate; the speed of a phase is the median images/s of its
step lines. The load generator is one process with plain sockets, epoll and keep-alive connections, at nice 19; it
stores responses and checks them after the phase. It runs on the training cores, unlike real clients: the total slowdown
therefore includes its CPU time. Reported separately: the CPU time of the generator and of the service's HTTP threads,
as fractions of the machine, and the slowdown less the generator's share.

Checked: each poll is answered with 200; each event stream has exactly the lines of stats.jsonl, in order; the total
slowdown at the first rate, and the slowdown less the generator's share at any rate, are below 5 %; the service's memory
and threads do not grow from the first phase to the last; clients that never read hold little memory and do not block
other requests. Prints Markdown tables; exits with 1 if a check fails.
"""

import argparse
import json
import os
import select
import socket
import statistics
import sys
import tempfile
import time

from common import BINARY, TINY, Server, stats_lines, table

# Warm-up seconds at the start of a phase.
WARM_UP = 2
TICK = 0.5


class Poller:
    """Polls a job over one connection."""

    def __init__(self, address, request):
        self.socket, self.request = connect(address), request
        self.sent = None
        self.response = b""

    def send(self, now):
        self.socket.send(self.request)
        self.sent = now

    def read(self, load):
        part = self.socket.recv(65536)
        self.response += part
        head = self.response.find(b"\r\n\r\n")
        length = self.response.find(b"content-length: ")
        if not part or (head >= 0 and length < 0):
            load.errors.append(f"unexpected response to a poll: {self.response[:80]!r}")
            self.response, self.sent = b"", None
            return
        if head < 0 or len(self.response) < head + 4 + int(
            self.response[length + 16 : self.response.find(b"\r", length)]
        ):
            return
        load.latencies.append(time.monotonic() - self.sent)
        status = self.response[9:12]
        load.statuses[status] = load.statuses.get(status, 0) + 1
        self.response, self.sent = b"", None


class EventClient:
    """Reads the event stream of a job."""

    def __init__(self, address, path, after=None):
        self.socket, self.chunks = connect(address), []
        self.ended = False
        last = f"Last-Event-ID: {after}\r\n" if after else ""
        self.socket.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{last}\r\n".encode())

    def read(self, load):
        part = self.socket.recv(1 << 18)
        self.ended |= not part
        if part:
            self.chunks.append(part)
        else:
            load.epoll.unregister(self.socket)
            load.errors.append("an event stream was closed")

    def lines(self):
        """The data of the complete events."""
        raw = b"".join(self.chunks)
        head, _, chunks = raw.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"unexpected response to a stream: {head[:80]!r}")
        body, at = bytearray(), 0
        while (end := chunks.find(b"\r\n", at)) >= 0:
            size = int(chunks[at:end], 16)
            body += chunks[end + 2 : end + 2 + size]
            at = end + 2 + size + 2
        body = body[: body.rfind(b"\n\n") + 2].decode()
        return [line.removeprefix("data: ") for line in body.split("\n") if line.startswith("data: ")]


def connect(address, receive_buffer=None):
    connection = socket.socket()
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.connect(address)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class Load:
    """The pollers and event clients of one phase."""

    def __init__(self, server, id, pollers, rate, streams, after):
        self.epoll = select.epoll()
        self.errors, self.latencies, self.statuses = [], [], {}
        request = f"GET /v1/jobs/{id} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        path = f"/v1/jobs/{id}/events"
        self.streams = [EventClient(server.address, path, after) for _ in range(streams)]
        self.pollers = [Poller(server.address, request) for _ in range(pollers)]
        self.by_file = {client.socket.fileno(): client for client in self.streams + self.pollers}
        for file in self.by_file:
            self.epoll.register(file, select.EPOLLIN)
        # Pollers take turns: one sends a request every `gap` seconds.
        self.gap = 1 / (pollers * rate) if pollers else float("inf")
        self.turn, self.next = 0, time.monotonic() if pollers else float("inf")
        self.skipped = 0

    def run(self, until):
        while (now := time.monotonic()) < until:
            # Sent in batches: a wake-up for each request would cost more than the request.
            while self.next <= now:
                poller = self.pollers[self.turn % len(self.pollers)]
                if poller.sent is None:
                    poller.send(now)
                else:
                    self.skipped += 1
                self.turn += 1
                self.next += self.gap
            for file, _ in self.epoll.poll(min(max(self.next - now, 0.005), until - now)):
                self.by_file[file].read(self)

    def finish(self):
        """Waits for pending responses, and closes the connections."""
        self.gap, self.next = float("inf"), float("inf")
        deadline = time.monotonic() + 5
        while any(poller.sent for poller in self.pollers) and time.monotonic() < deadline:
            self.run(time.monotonic() + 0.05)
        if waiting := sum(poller.sent is not None for poller in self.pollers):
            self.errors.append(f"{waiting} polls were not answered within 5 s")
        for client in self.streams + self.pollers:
            client.socket.close()
        self.epoll.close()


class Meter:
    """Memory, threads and CPU time of a process."""

    def __init__(self, pid):
        self.pid, self.threads, self.memory = pid, 0, 0
        self.cpu = {}

    def sample(self):
        status = open(f"/proc/{self.pid}/status").read()
        field = lambda name: int(status.split(f"{name}:")[1].split()[0])
        self.memory, self.threads = max(self.memory, field("VmRSS") / 1024), max(self.threads, field("Threads"))
        for task in os.listdir(f"/proc/{self.pid}/task"):
            try:
                name, fields = open(f"/proc/{self.pid}/task/{task}/stat").read().rsplit(")", 1)
            except OSError:
                continue  # it has ended
            if "(dcgan-http" in name:
                fields = fields.split()
                self.cpu[task] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def http_seconds(self):
        """CPU time of the HTTP threads so far, including ended ones."""
        return sum(self.cpu.values())


def phase(server, id, meter, seconds, pollers=0, rate=1, streams=0):
    """Measures some seconds of training under a load."""
    run = server.run_folder(id)
    lines = stats_lines(run)
    load = Load(server, id, pollers, rate, streams, last_id(lines))
    load.run(time.monotonic() + WARM_UP)
    meter.memory = meter.threads = 0
    meter.sample()
    first, http, own = len(stats_lines(run)), meter.http_seconds(), time.process_time()
    load.latencies.clear()
    started, latest = time.monotonic(), []
    while (left := started + seconds - time.monotonic()) > 0:
        load.run(time.monotonic() + min(TICK, left))
        meter.sample()
        latest.append((time.monotonic(), os.path.getsize(run / "stats.jsonl")))
    wall = time.monotonic() - started
    own, http = time.process_time() - own, meter.http_seconds() - http
    text = (run / "stats.jsonl").read_bytes()
    load.finish()
    after = text[: text.rfind(b"\n") + 1].decode().splitlines()
    # Events written two seconds before the end must have been received.
    due = max([size for at, size in latest if at < latest[-1][0] - 2], default=0)
    due = text[:due].count(b"\n")
    received = check_streams(load, lines, stats_lines(run), due)
    steps = [json.loads(line) for line in after[first:]]
    speeds = [line["images_per_s"] for line in steps if line["event"] == "step"][
        1:
    ]  # the first interval began before the phase
    cores = os.cpu_count()
    return {
        "speed": statistics.median(speeds),
        "polls": sum(load.statuses.values()),
        "rate": len(load.latencies) / wall,
        "not_200": sum(load.statuses.values()) - load.statuses.get(b"200", 0),
        "latencies": sorted(load.latencies),
        "skipped": load.skipped,
        "events": received,
        "memory": meter.memory,
        "threads": meter.threads,
        "own": own / wall / cores,
        "http": http / wall / cores,
        "errors": load.errors,
    }


def last_id(lines):
    """The id of the last event: its step, and which of the step's lines it is."""
    if not lines:
        return None
    steps = [json.loads(line)["step"] for line in lines[-50:]]
    return f"{steps[-1]}-{steps.count(steps[-1]) - 1}"


def check_streams(load, before, after, due):
    """Counts received events; each stream must have the lines after `before`, in order, and all but the latest."""
    expected, total = after[len(before) :], 0
    for stream in load.streams:
        lines = stream.lines()
        total += len(lines)
        if lines != expected[: len(lines)]:
            load.errors.append("the events of a stream differ from stats.jsonl")
        if len(before) + len(lines) < due:
            load.errors.append(f"a stream received {len(lines)} events, expected {due - len(before)}")
    return total


def percentile(values, share):
    return values[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


def loads(server, id, meter, arguments):
    """Alternates phases without and with load, and prints a table."""
    kinds = [("none", 0, 1)] + [(f"{rate}/s", arguments.clients, rate) for rate in arguments.rates]
    seen = {name: [] for name, _, _ in kinds}
    slowdowns = {name: [] for name, _, _ in kinds[1:]}
    phase(server, id, meter, 5)  # warm
    quiet = phase(server, id, meter, arguments.seconds)
    seen["none"].append(quiet)
    for _ in range(arguments.rounds):
        for name, clients, rate in kinds[1:]:
            loaded = phase(server, id, meter, arguments.seconds, clients, rate, clients)
            then = phase(server, id, meter, arguments.seconds)
            # Compared with the phases before and after: the machine's speed drifts.
            slowdowns[name].append(1 - loaded["speed"] / statistics.mean([quiet["speed"], then["speed"]]))
            seen[name].append(loaded)
            seen["none"].append(then)
            quiet = then
            print(f"{name}: {slowdowns[name][-1]:.1%}", file=sys.stderr, flush=True)
    rows, faults = [], []
    for name, clients, _ in kinds:
        phases = seen[name]
        of = lambda key, by=statistics.median: by([one[key] for one in phases])
        row = [f"{clients} polls each {name}, {clients} streams" if clients else "none", f"{of('speed'):,.0f}"]
        if clients:
            latencies = sorted(latency for one in phases for latency in one["latencies"])
            slowdown = statistics.median(slowdowns[name])
            row += [
                f"{slowdown:.1%} ({min(slowdowns[name]):.1%} to {max(slowdowns[name]):.1%})",
                f"{slowdown - of('own'):.1%}",
            ]
            row += [f"{of('http'):.2%}", f"{of('own'):.2%}", f"{of('rate'):,.0f}"]
            row += [f"{of('polls', sum):,} / {of('not_200', sum)} / {of('skipped', sum)}"]
            row += [f"{percentile(latencies, 0.5) * 1e3:.1f} / {percentile(latencies, 0.99) * 1e3:.1f}"]
            row += [f"{of('events', sum):,}"]
            if name == kinds[1][0] and slowdown >= 0.05:
                faults.append(f"the total slowdown at {name} is {slowdown:.1%}, expected below 5 %")
            if slowdown - of("own") >= 0.05:
                faults.append(
                    f"the slowdown less the generator's share at {name} is {slowdown - of('own'):.1%}, expected below 5 %"
                )
            if of("not_200", sum):
                faults.append(f"{of('not_200', sum)} polls were not answered with 200")
            # A quarter, and a margin for the allocator.
            if (
                phases[-1]["memory"] > 1.25 * phases[0]["memory"] + 20
                or phases[-1]["threads"] > phases[0]["threads"] + 20
            ):
                faults.append(f"memory or threads grew: {[(one['memory'], one['threads']) for one in phases]}")
        else:
            row += [""] * 8
        row += [f"{phases[0]['memory']:.0f} / {phases[-1]['memory']:.0f}", f"{of('threads', max)}"]
        rows.append(row)
        faults += sorted({error for one in phases for error in one["errors"]})
    table(
        [
            "load",
            "images/s (median)",
            "slowdown (median, range)",
            "slowdown less the generator's share",
            "HTTP threads, % of the machine",
            "load generator, % of the machine",
            "responses/s",
            "polls / not 200 / skipped",
            "ms p50 / p99",
            "events received",
            "MB, first / last phase",
            "threads",
        ],
        rows,
    )
    return faults


def unread_streams(server, id, meter, arguments):
    """Event streams of a long history that are never read: their buffers stay small, and other requests are
    answered."""
    # A finished job whose stats.jsonl is extended to 32 MB.
    done = server.submit({"config": TINY, "steps": 20, "log_every": 1})
    server.json("POST", f"/v1/jobs/{id}/pause")
    server.wait_state(done, "done")
    server.json("POST", f"/v1/jobs/{id}/resume")
    server.wait(id, "running", lambda job: job["state"] == "running" and job["images_per_s"])
    path = server.run_folder(done) / "stats.jsonl"
    line = json.loads(stats_lines(path.parent)[0])
    with open(path, "a") as file:
        for step in range(21, 21 + (32 << 20) // len(json.dumps(line))):
            file.write(json.dumps(line | {"step": step}) + "\n")
    meter.memory = 0
    meter.sample()
    before, events = meter.memory, f"/v1/jobs/{done}/events"
    slow = []
    for _ in range(arguments.clients):
        slow.append(connect(server.address, 4096))
        slow[-1].send(f"GET {events} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    result = phase(server, id, meter, arguments.seconds, 10, 1, 10)
    for connection in slow:
        connection.close()
    grown = result["memory"] - before
    each = grown * 1024 / arguments.clients
    print(
        f"{arguments.clients} unread event streams of 32 MB each: {result['speed']:,.0f} images/s, memory +{grown:.0f} MB "
        f"({each:.0f} KB per stream), other polls {percentile(result['latencies'], 0.5) * 1e3:.1f} / "
        f"{percentile(result['latencies'], 0.99) * 1e3:.1f} ms\n",
        flush=True,
    )
    faults = result["errors"]
    if each > 1024:
        faults.append(f"an unread stream holds {each:.0f} KB, expected at most 1024")
    return faults


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", nargs="?", default=BINARY)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--rates", type=float, nargs="*", default=[1, 5], help="polls per second and client")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=15, help="duration of a phase")
    parser.add_argument(
        "--job", default='{"preset": "digits", "log_every": 10}', help="the job's options, without a length"
    )
    parser.add_argument("--nice", type=int, default=19)
    arguments = parser.parse_args()
    arguments.rates = [int(rate) if rate == int(rate) else rate for rate in arguments.rates]
    with tempfile.TemporaryDirectory() as folder:
        server = Server(arguments.binary, f"{folder}/store")
        os.nice(arguments.nice)
        try:
            options = {"steps": 100_000_000, "checkpoint_every": 1_000_000, "sample_every": 1_000_000}
            id = server.submit(json.loads(arguments.job) | options)
            server.wait(id, "running", lambda job: job["images_per_s"])
            meter = Meter(server.pid)
            print(
                f"{arguments.job}, {os.cpu_count()} cores, phases of {arguments.seconds:g} s, {arguments.rounds} rounds\n"
            )
            faults = loads(server, id, meter, arguments)
            faults += unread_streams(server, id, meter, arguments)
            if server.request("GET", "/healthz")[0] != 204 or server.stop() != 0:
                faults.append("unclean shutdown")
        finally:
            if server.process.poll() is None:
                server.kill()
    for fault in dict.fromkeys(faults):
        print(f"FAULT: {fault}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
