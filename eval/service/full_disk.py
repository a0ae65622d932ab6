"""Jobs of the service on a disk that is really full.

Run: python3 full_disk.py [BINARY]     (Python 3.11, Linux; as root, or where users may make namespaces)

Mounts a small tmpfs, or with --ext4 (root only) a file with that file system, in a mount namespace of its own, which ends with the
script. Again and again a service gets a job and two more while the disk has room for the next N bytes only: N grows from 0, so that the
job meets the end of the disk at each of its files. Expected every time: nothing fails; whoever asks for a resume gets 200 or 507, for a
new job 202 or 507, and a job is there for each 202 and for nothing else; a job that met the full disk is paused and says so, others are
paused so or wait; jobs can be cancelled and deleted; every second time the service is killed and started again on the full disk. Once
there is room, what was paused is resumed, and every job ends with the bytes of `dcgan-train run`, each step written down once, no
unfinished file left.
Prints a table in Markdown: where the end of the disk was met, how often, what became of the job. Ends with 1 where something does not hold.
"""

import argparse
import collections
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import BINARY, Server, compare, steps_once, table, tiny, undisturbed

MEGABYTES = 48
PAGE = 4096


class Disk:
    """The mounted file system."""

    def __init__(self, folder, image):
        self.folder = Path(folder)
        if image:
            with open(image, "wb") as file:
                file.truncate(MEGABYTES << 20)
            # No blocks kept for root, who runs this.
            subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-b", str(PAGE), image], check=True)
            subprocess.run(["mount", "-o", "loop", image, folder], check=True)
        else:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", folder], check=True)
        self.ballast = self.folder / "ballast"

    def fill(self, leave):
        """Fills the disk but for `leave` bytes."""
        with open(self.ballast, "wb", buffering=0) as file:
            for size in (1 << 20, PAGE):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    pass
        os.truncate(self.ballast, max(self.ballast.stat().st_size - leave, 0))

    def make_room(self):
        self.ballast.unlink(missing_ok=True)


def stage(job):
    """Which file met the end of the disk, numbers left out; or what the job waits for."""
    if not job["error"]:
        return {"queued": "the queue waits for room"}.get(job["state"], "")
    found = re.search(r"runs/[0-9a-f]{16}/?([^:]*):", job["error"])
    return re.sub(r"[0-9]{8,}", "N", found[1]) or "the run folder" if found else job["error"]


def settle(server, ids, seconds=20):
    """Waits until nothing runs any more: every job is paused or done, or waits and is not taken."""
    deadline, seen, since = time.monotonic() + seconds, None, time.monotonic()
    while time.monotonic() < deadline:
        jobs = [server.job(id) for id in ids]
        states = [(job["state"], job["error"]) for job in jobs]
        if states != seen:
            seen, since = states, time.monotonic()
        quiet = time.monotonic() - since
        if all(state in ("paused", "done") for state, _ in states) or (quiet > 1.5 and not any(s == "running" for s, _ in states)):
            return jobs
        time.sleep(0.02)
    raise RuntimeError(f"the jobs are still under way after {seconds} s: {states}")


def attempt(arguments, disk, leave, restarts, whole, faults):
    """One service, one amount of room. The stage that was met, and what became of the job."""

    def expect(holds, what):
        if not holds:
            faults.append(f"{leave} bytes of room: {what}")

    store = disk.folder / "store"
    server = Server(arguments.binary, store)
    keeper = server.submit(tiny(100_000_000) | {"log_every": 1_000_000, "checkpoint_every": 1_000_000, "sample_every": 1_000_000})
    server.wait_state(keeper, "running")
    ids = [server.submit(tiny()) for _ in range(3)]
    extra = server.submit(tiny())
    for id in [*ids, extra]:
        server.json("POST", f"/v1/jobs/{id}/pause")
    server.json("POST", f"/v1/jobs/{keeper}/cancel")
    server.wait_state(keeper, "cancelled")
    disk.fill(leave)
    resumed = [server.ask("POST", f"/v1/jobs/{id}/resume")[0] for id in ids]
    expect(set(resumed) <= {200, 507}, f"resume is answered with {resumed}")
    jobs = settle(server, ids)
    met, state = stage(jobs[0]), jobs[0]["state"]
    if resumed[0] == 507:
        met = "the store, by the resume of the job: 507"
    expect(all(job["state"] in ("paused", "queued", "done") for job in jobs), f"states {[job['state'] for job in jobs]}")
    # Asked on the full disk: a new one, and what makes room.
    new = None
    status, text = server.ask("POST", "/v1/jobs", tiny())
    if status == 202:
        new = json.loads(text)["id"]
        settle(server, [new])
    expect(status in (202, 507), f"a new job is answered with {status} {text.decode()}")
    listed = {job["id"] for job in server.json("GET", "/v1/jobs")["jobs"]}
    expect(listed == {*ids, extra, keeper, new} - {None}, "other jobs are listed than were accepted")
    answers = [server.ask(*request)[0] for request in (
        ("GET", "/healthz"), ("GET", "/readyz"), ("POST", f"/v1/jobs/{extra}/cancel"), ("DELETE", f"/v1/jobs/{keeper}"))]
    # Not ready where the room for the database is spent.
    expect(answers in ([204, 204, 200, 204], [204, 503, 200, 204]), f"healthz, readyz, cancel and delete are answered with {answers}")
    if restarts:
        server.kill()
        try:
            server = Server(arguments.binary, store)
        except RuntimeError as error:
            expect(False, f"{error}: {(disk.folder / 'store.log').read_text()[-300:]}")
            disk.make_room()
            server = Server(arguments.binary, store)
        settle(server, ids)
    disk.make_room()
    for id in [*ids, *filter(None, [new])]:
        if server.job(id)["state"] == "paused":
            server.json("POST", f"/v1/jobs/{id}/resume")
        server.wait_state(id, "done")
        run = server.run_folder(id)
        for fault in compare(whole, run) + steps_once(run):
            expect(False, fault)
    expect(server.job(extra)["state"] == "cancelled" and server.ask("GET", f"/v1/jobs/{keeper}")[0] == 404, "a cancel or delete was lost")
    expect(server.stop() == 0, "the service did not end in peace")
    shutil.rmtree(store)
    return met or "none", state


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", nargs="?", default=BINARY)
    parser.add_argument("--step", type=int, default=PAGE, help="bytes between two amounts of room")
    parser.add_argument("--ext4", action="store_true", help="ext4 in a file in place of tmpfs")
    parser.add_argument("--within", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.within:
        namespace = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
        sys.exit(subprocess.run([*namespace, sys.executable, *sys.argv, "--within"]).returncode)
    faults, seen = [], collections.defaultdict(list)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as beside:
        whole = undisturbed(arguments.binary, Path(beside))
        disk = Disk(folder, f"{beside}/image" if arguments.ext4 else None)
        try:
            leave = rounds = done = 0
            while done < 3:
                met, state = attempt(arguments, disk, leave, rounds % 2 == 1, whole, faults)
                seen[met, state].append(leave)
                done = done + 1 if met == "none" else 0
                rounds, leave = rounds + 1, leave + arguments.step
        finally:
            subprocess.run(["umount", "-l", folder])
    print(f"{rounds} rounds, {time.monotonic() - started:.0f} s\n")
    rows = [[met, state, len(left), f"{min(left):,} to {max(left):,}"] for (met, state), left in seen.items()]
    table(["met the end of the disk at", "the job is then", "times", "bytes of room"], rows)
    for fault in faults:
        print(f"FAULT: {fault}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
