"""Jobs of the service on a full disk.

Run: python3 full_disk.py [BINARY]     (Python 3.11, Linux; as root, or where users may make namespaces)

Mounts a small tmpfs, or with --ext4 (root only) an ext4 image, in a separate mount namespace, which ends with the
script. In each round a service runs three jobs with N free bytes on the disk. N grows from 0, so that each file of the
job is the first one that does not fit in some round. Expected in each round: no job fails; a resume is answered with
200 or 507, a submission with 202 or 507, and exactly the jobs with a 202 exist; a job that hit the full disk is paused
with an error, the others are paused likewise or queued; jobs can be cancelled and deleted. In every second round the
service is killed and restarted on the full disk. Once there is room, paused jobs are resumed, and each job ends with
the bytes of `dcgan-train run`, each step logged once, and no temporary files. Prints a Markdown table: the file that
did not fit, how often, and the state of the job. Exits with 1 if a check fails."""

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

from common import BINARY, Server, check_steps, compare, reference_run, table, tiny

MEGABYTES = 48
PAGE = 4096


class Disk:
    """The mounted file system."""

    def __init__(self, folder, image):
        self.folder = Path(folder)
        if image:
            with open(image, "wb") as file:
                file.truncate(MEGABYTES << 20)
            # No blocks reserved for root, as which this runs.
            subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-b", str(PAGE), image], check=True)
            subprocess.run(["mount", "-o", "loop", image, folder], check=True)
        else:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", folder], check=True)
        self.ballast = self.folder / "ballast"

    def fill(self, free):
        """Fills the disk except for `free` bytes."""
        with open(self.ballast, "wb", buffering=0) as file:
            for size in (1 << 20, PAGE):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    pass
        os.truncate(self.ballast, max(self.ballast.stat().st_size - free, 0))

    def free_space(self):
        self.ballast.unlink(missing_ok=True)


def first_failure(job):
    """The file that did not fit, without its number; or why the job waits."""
    if not job["error"]:
        return {"queued": "queued until there is room"}.get(job["state"], "")
    found = re.search(r"runs/[0-9a-f]{16}/?([^:]*):", job["error"])
    return re.sub(r"[0-9]{8,}", "N", found[1]) or "the run folder" if found else job["error"]


def wait_until_idle(server, ids, seconds=20):
    """Waits until no job runs: each is paused or done, or stays queued."""
    deadline, previous, since = time.monotonic() + seconds, None, time.monotonic()
    while time.monotonic() < deadline:
        jobs = [server.job(id) for id in ids]
        states = [(job["state"], job["error"]) for job in jobs]
        if states != previous:
            previous, since = states, time.monotonic()
        quiet = time.monotonic() - since
        if all(state in ("paused", "done") for state, _ in states) or (
            quiet > 1.5 and not any(s == "running" for s, _ in states)
        ):
            return jobs
        time.sleep(0.02)
    raise RuntimeError(f"the jobs are still running after {seconds} s: {states}")


def run_round(arguments, disk, free, restart, reference, faults):
    """One service with `free` bytes on the disk. Returns the file that did not fit and the state of the job."""

    def expect(condition, message):
        if not condition:
            faults.append(f"{free} bytes free: {message}")

    store = disk.folder / "store"
    server = Server(arguments.binary, store)
    blocker = server.submit(
        tiny(100_000_000) | {"log_every": 1_000_000, "checkpoint_every": 1_000_000, "sample_every": 1_000_000}
    )
    server.wait_state(blocker, "running")
    ids = [server.submit(tiny()) for _ in range(3)]
    extra = server.submit(tiny())
    for id in [*ids, extra]:
        server.json("POST", f"/v1/jobs/{id}/pause")
    server.json("POST", f"/v1/jobs/{blocker}/cancel")
    server.wait_state(blocker, "cancelled")
    disk.fill(free)
    resumed = [server.request("POST", f"/v1/jobs/{id}/resume")[0] for id in ids]
    expect(set(resumed) <= {200, 507}, f"resume is answered with {resumed}")
    jobs = wait_until_idle(server, ids)
    failure, state = first_failure(jobs[0]), jobs[0]["state"]
    if resumed[0] == 507:
        failure = "the database, in the resume: 507"
    expect(
        all(job["state"] in ("paused", "queued", "done") for job in jobs), f"states {[job['state'] for job in jobs]}"
    )
    # On the full disk: a submission, and requests that free space.
    new = None
    status, text = server.request("POST", "/v1/jobs", tiny())
    if status == 202:
        new = json.loads(text)["id"]
        wait_until_idle(server, [new])
    expect(status in (202, 507), f"a new job is answered with {status} {text.decode()}")
    listed = {job["id"] for job in server.json("GET", "/v1/jobs")["jobs"]}
    expect(listed == {*ids, extra, blocker, new} - {None}, "the listed jobs are not the accepted ones")
    statuses = [
        server.request(*request)[0]
        for request in (
            ("GET", "/healthz"),
            ("GET", "/readyz"),
            ("POST", f"/v1/jobs/{extra}/cancel"),
            ("DELETE", f"/v1/jobs/{blocker}"),
        )
    ]
    # Not ready if the disk reserve of the database was used.
    expect(
        statuses in ([204, 204, 200, 204], [204, 503, 200, 204]),
        f"healthz, readyz, cancel and delete are answered with {statuses}",
    )
    if restart:
        server.kill()
        try:
            server = Server(arguments.binary, store)
        except RuntimeError as error:
            expect(False, f"{error}: {(disk.folder / 'store.log').read_text()[-300:]}")
            disk.free_space()
            server = Server(arguments.binary, store)
        wait_until_idle(server, ids)
    disk.free_space()
    for id in [*ids, *filter(None, [new])]:
        if server.job(id)["state"] == "paused":
            server.json("POST", f"/v1/jobs/{id}/resume")
        server.wait_state(id, "done")
        run = server.run_folder(id)
        for fault in compare(reference, run) + check_steps(run):
            expect(False, fault)
    expect(
        server.job(extra)["state"] == "cancelled" and server.request("GET", f"/v1/jobs/{blocker}")[0] == 404,
        "a cancel or delete was lost",
    )
    expect(server.stop() == 0, "unclean shutdown")
    shutil.rmtree(store)
    return failure or "none", state


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", nargs="?", default=BINARY)
    parser.add_argument("--step", type=int, default=PAGE, help="increment of the free bytes between two rounds")
    parser.add_argument("--ext4", action="store_true", help="use an ext4 image instead of tmpfs")
    parser.add_argument("--in-namespace", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.in_namespace:
        namespace = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
        sys.exit(subprocess.run([*namespace, sys.executable, *sys.argv, "--in-namespace"]).returncode)
    faults, results = [], collections.defaultdict(list)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as beside:
        reference = reference_run(arguments.binary, Path(beside))
        disk = Disk(folder, f"{beside}/image" if arguments.ext4 else None)
        try:
            free = rounds = complete = 0
            while complete < 3:
                failure, state = run_round(arguments, disk, free, rounds % 2 == 1, reference, faults)
                results[failure, state].append(free)
                complete = complete + 1 if failure == "none" else 0
                rounds, free = rounds + 1, free + arguments.step
        finally:
            subprocess.run(["umount", "-l", folder])
    print(f"{rounds} rounds, {time.monotonic() - started:.0f} s\n")
    rows = [
        [failure, state, len(free), f"{min(free):,} to {max(free):,}"] for (failure, state), free in results.items()
    ]
    table(["file that did not fit", "state of the job", "rounds", "bytes free"], rows)
    for fault in faults:
        print(f"FAULT: {fault}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
