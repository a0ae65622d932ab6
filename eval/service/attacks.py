"""Attacks on the training service, and its responses, as a table.

    python eval/service/attacks.py [target/release/dcgan-train]

Starts two services on free ports with stores in a temporary folder: one without a token that trains throughout, and one
with a token that gets hostile jobs. After each attack /healthz must respond; at the end training must have continued
without a gap, file descriptors must be released, and no file may have been written outside the stores. Exits with 1 if
a response is not the expected one. Takes about two minutes; Linux only (/proc).
"""

import json
import os
import re
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

from common import BINARY, TINY
from connections import connections, floods, protocol, slow
from hostile import MIB, TOKEN, Service, Table, make_data, parse, run_concurrently, summarize


def traversal(table, open_service, folder, id):
    group = "traversal"
    get = lambda path: summarize(
        parse(
            open_service.raw(b"GET " + path + f" HTTP/1.1\r\n{open_service.headers}Connection: close\r\n\r\n".encode())
        )
    )
    paths = {
        "plain": b"../../../../../../etc/passwd",
        "percent-encoded": b"%2e%2e%2f%2e%2e%2f%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "encoded twice": b"%252e%252e%252f%252e%252e%252fetc%252fpasswd",
        "backslashes": b"..%5c..%5c..%5cetc%5cpasswd",
        "NUL": b"..%2f..%2fetc%2fpasswd%00.png",
        "overlong UTF-8": b"%c0%ae%c0%ae%c0%af%c0%ae%c0%ae%c0%afetc%c0%afpasswd",
        "absolute": b"%2fetc%2fpasswd",
        "the database": b"..%2fjobs.sqlite",
        "a plan": f"..%2fruns%2f{id}%2fplan.toml".encode(),
    }
    targets = {
        "URL": b"/",
        "page file": b"/page/",
        "job": b"/v1/jobs/",
        "sample": f"/v1/jobs/{id}/samples/".encode(),
    }
    for target, prefix in targets.items():
        responses = {how: get(prefix + path) for how, path in paths.items()}
        spellings = f"{len(paths)} spellings ({', '.join(paths)})" if target == "URL" else "the same"
        table.add(open_service, group, f"{target}, {spellings}", ", ".join(sorted(set(responses.values()))), "404")
    for target, suffix in [
        ("job before /model", b"/model"),
        ("job before /events", b"/events"),
        ("job before /samples", b"/samples"),
    ]:
        responses = {get(b"/v1/jobs/" + path + suffix) for path in paths.values()}
        table.add(open_service, group, f"{target}, the same", ", ".join(sorted(responses)), "404")
    responses = {
        summarize(open_service.request("POST", f"/v1/models/{path.decode()}/samples", {"seed": 1}))
        for path in paths.values()
    }
    table.add(open_service, group, "model of a draw request, the same", ", ".join(sorted(responses)), "404")
    long = get(b"/" + b"../" * 15000)
    table.add(open_service, group, "45,000 bytes of ../", long, "404|414|431")
    table.add(open_service, group, "a raw NUL in the path", get(b"/v1/jobs/\0"), "400")
    table.add(open_service, group, "raw bytes above 127 in the path", get(b"/v1/jobs/\xff\xfe"), "400|404")
    names = [
        "..",
        ".",
        "../secret",
        "good/../../secret",
        "/etc",
        str(folder / "secret"),
        "good\0",
        "..\\secret",
        "%2e%2e/secret",
        "//etc",
        "out",
        "out/000.png",
        "leaky",
        "a" * 5000,
        "file:///etc",
    ]
    for field in ("data", "init_from"):
        responses = {summarize(open_service.request("POST", "/v1/jobs", {field: name})) for name in names}
        table.add(
            open_service,
            group,
            f"{field}: {len(names)} names (.., absolute, NUL, backslash, a symlink out of the root, a dataset with such a symlink, 5,000 letters)",
            ", ".join(sorted(responses)),
            f"422 {field}",
        )
    error_bodies = (
        open_service.request("POST", "/v1/jobs", {"data": "../secret"})[1]
        + open_service.request("POST", "/v1/jobs", {"data": "../absent"})[1]
    )
    same = error_bodies.count(b"invalid path") >= 2 and str(folder).encode() not in error_bodies
    table.add(
        open_service,
        group,
        "do responses reveal whether a path outside exists?",
        "no" if same else error_bodies.decode(),
        "no",
    )
    listed = [entry["name"] for entry in open_service.json("GET", "/v1/data")["data"]]
    table.add(
        open_service,
        group,
        "is a symlink out of the root listed as data?",
        "no" if "out" not in listed else "yes",
        "no",
    )


def bodies(table, open_service):
    group = "body"
    post = lambda body: summarize(open_service.request("POST", "/v1/jobs", body))
    head = f"POST /v1/jobs HTTP/1.1\r\n{open_service.headers}"
    declared = open_service.raw(f"{head}Content-Length: 2000000000000\r\n\r\n".encode())
    table.add(open_service, group, "2 TB declared, nothing sent", summarize(parse(declared)), "413")
    table.add(
        open_service,
        group,
        "Content-Length of 2^64",
        parse(open_service.raw(f"{head}Content-Length: 18446744073709551616\r\n\r\n".encode()))[0],
        "400|413",
    )
    table.add(
        open_service,
        group,
        "Content-Length: -1",
        parse(open_service.raw(f"{head}Content-Length: -1\r\n\r\n".encode()))[0],
        "400",
    )
    table.add(open_service, group, "2 MiB with their length", post(b" " * 2 * MIB), "413")
    block = b"100000\r\n" + b" " * MIB + b"\r\n"
    endless = open_service.raw(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + block * 64)
    table.add(open_service, group, "endless chunks, 64 MiB of them", summarize(parse(endless)), "413")
    table.add(
        open_service,
        group,
        "a chunk of 2^64 bytes",
        parse(open_service.raw(f"{head}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n".encode() + b"x" * 100))[
            0
        ],
        "400|closed",
    )
    table.add(
        open_service,
        group,
        "a chunk with 1 MiB of extension",
        parse(open_service.raw(f"{head}Transfer-Encoding: chunked\r\n\r\n5;".encode() + b"x" * MIB))[0],
        "400|closed",
    )
    table.add(open_service, group, "1 MiB of text as preset", post({"preset": "x" * (MIB - 100)}), "422 preset")
    table.add(open_service, group, "1 MiB of text as config", post({"config": "x" * (MIB - 100)}), "422 config")
    table.add(open_service, group, "1 MiB of text as data", post({"data": "x" * (MIB - 100)}), "422 data")
    table.add(
        open_service,
        group,
        "config with tables 20,000 deep",
        post({"config": "a = " + "{a=" * 20000 + "1" + "}" * 20000}),
        "422 config",
    )
    table.add(
        open_service,
        group,
        "config with a key of 20,000 parts",
        post({"config": ".".join("a" * 20000) + " = 1"}),
        "422 config",
    )
    table.add(
        open_service,
        group,
        "70,000 unknown fields",
        post({str(i): 1 for i in range(70000)}),
        r"422 with 2\d faults, \d{1,2},\d+ bytes",
    )


def bad_json(table, open_service, id):
    group = "JSON"
    post = lambda body, path="/v1/jobs": summarize(open_service.request("POST", path, body))
    rows = {
        "empty": (b"", "400"),
        "{": (b"{", "400"),
        "not JSON": (b"steps=5&preset=digits", "400"),
        "XML with an entity": (b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>', "400"),
        "100,000 [": (b"[" * 100000, "400|422"),
        '100,000 {"a":': (b'{"a":' * 100000, "400"),
        "400,000 levels in a field": (b'{"steps":' + b"[" * 400000 + b"]" * 400000 + b"}", "400"),
        "invalid UTF-8": (b'{"preset": "\xff\xfe"}', "400"),
        "half a surrogate": (b'{"preset": "\\ud800"}', "400"),
        "UTF-16": ('{"steps": 5}'.encode("utf-16"), "400"),
        "NaN": (b'{"learning_rate": NaN}', "400"),
        "Infinity": (b'{"learning_rate": Infinity}', "400"),
        "1e999": (b'{"learning_rate": 1e999}', "400"),
        "a number of 500,000 digits": (b'{"steps": ' + b"9" * 500000 + b"}", "400"),
        "bytes after the end": (b'{"steps": 5} {"steps": 6}', "400"),
        "2^64": (b'{"steps": 18446744073709551616}', "422 steps"),
        "-1": (b'{"steps": -1}', "422 steps"),
        "1.5": (b'{"steps": 1.5}', "422 steps"),
        "an array": (b"[1, 2]", "422"),
        "a string": (b'"digits"', "422"),
        "null": (b"null", "422"),
        "true": (b"true", "422"),
        "fields of the wrong type": (
            b'{"steps": {}, "seed": [], "mirror": "x", "data": 1, "config": 2, "size": true}',
            "422 .*",
        ),
        "unknown field": (b'{"shell": "reboot"}', "422 shell"),
        "a field twice, the second wrong": (b'{"steps": 5, "steps": -5}', "(422|400).*"),
        "SQL as state of a job": (b'{"state": "done\'; DROP TABLE jobs; --"}', "422 state"),
    }
    for attack, (body, expected) in rows.items():
        table.add(open_service, group, attack, post(body), expected)
    path = f"/v1/models/{id}/samples"
    draws = {
        "draw 1,025": (b'{"count": 1025}', "422 count"),
        "draw 2^63": (b'{"count": 9223372036854775808}', "422 count"),
        "draw -1": (b'{"count": -1}', "422"),
        "draw 0": (b'{"count": 0}', "422 count"),
        "z of 300,000 rows": (b'{"z": [' + b"[]," * 300000 + b"[]]}", "422 z"),
        "z of 400,000 numbers": (b'{"z": [[' + b"1," * 400000 + b"1]]}", "422 z"),
        "z of 1e300": (b'{"z": [[1e300, 0, 0, 0]]}', "422 z"),
        "z nested 100,000 deep": (b'{"z": ' + b"[" * 100000 + b"]" * 100000 + b"}", "400|422"),
        "an unknown format": (b'{"format": "../../x"}', "422"),
        "an unknown field": (b'{"out": "/etc/passwd"}', "422"),
    }
    for attack, (body, expected) in draws.items():
        table.add(open_service, "drawing", attack, post(body, path), expected)
    statuses = []

    def draw():
        statuses.append(open_service.request("POST", path, {"count": 1024})[0])

    run_concurrently([draw] * 40)
    text = f"{statuses.count(200)} x 200, {statuses.count(503)} x 503"
    table.add(
        open_service,
        "drawing",
        "40 concurrent requests for 1,024 images",
        "200 or 503" if len(statuses) == 40 and set(statuses) <= {200, 503} else text,
        "200 or 503",
    )


def memory(table, open_service):
    group = "memory"
    wide = TINY.replace("channels = 4,", "channels = 65536,")
    high = lambda side: wide.replace("height = 8", f"height = {side}").replace("width = 8", f"width = {side}")
    huge = {
        "batch_size 65,536 of 4096x4096": ({"config": TINY, "size": 4096, "batch_size": 65536}, "422 batch_size"),
        "batch_size 2^60": ({"batch_size": 1 << 60}, "422 batch_size"),
        "size 2^60": ({"size": 1 << 60}, "422 size"),
        "size 4294967296x4": ({"size": "4294967296x4"}, "422 size"),
        "65,536 channels at 2048x2048": ({"config": high(2048), "batch_size": 2}, "422 config"),
        "64 blocks of 65,536 channels": (
            {
                "config": TINY.replace(
                    "    { channels = 4, kernel = 4, stride = 2, padding = 1 },\n    { channels = 8",
                    "    { channels = 65536, kernel = 3, stride = 1, padding = 1 },\n" * 62 + "    { channels = 8",
                )
            },
            "422 with 61 faults.*",
        ),
        "latent.size 2^40": ({"config": TINY.replace("size = 4,", "size = 1099511627776,")}, "422 config"),
        "kernel 2^31": ({"config": TINY.replace("kernel = 5", "kernel = 2147483648")}, "422 config"),
        "stride 0": ({"config": TINY.replace("stride = 2", "stride = 0")}, "422 config"),
        "20,000 blocks": (
            {
                "config": TINY.replace(
                    "    { channels = 4",
                    "{channels=1,kernel=1,stride=1,padding=0}," * 20000 + "\n    { channels = 4",
                    1,
                )
            },
            "422 config|413",
        ),
        "threads 2^32": ({"threads": 1 << 32}, "422 threads"),
        "crop 2^63, larger than the images": ({"data": "good", "crop": 1 << 63}, "202|422 crop"),
    }
    for attack, (options, expected) in huge.items():
        response = open_service.request("POST", "/v1/jobs", options)
        table.add(open_service, group, attack, summarize(response), expected)
        if response[0] == 202:
            open_service.json("POST", f"/v1/jobs/{json.loads(response[1])['id']}/cancel")


def hostile_jobs(table, jobs, folder):
    """Accepted jobs that fail without affecting the service."""
    group = "job"
    data = folder / "data"

    def outcome(**options):
        response = jobs.request("POST", "/v1/jobs", {"config": TINY, "steps": 20} | options)
        if response[0] != 202:
            return summarize(response), ""
        job = jobs.wait(json.loads(response[1])["id"], ("done", "failed"))
        return job["state"], job["error"] or ""

    rows = [
        (
            "a zip with ../ and absolute names",
            {"data": "slip.zip"},
            "failed: .*",
            "points outside|fewer than one batch|no image",
        ),
        ("the same with valid images: only these are read", {"data": "slip-too.zip"}, "done", ""),
        ("a zip bomb: 2 GB in an image's entry", {"data": "bomb.zip"}, "failed: .*", "limit"),
        (
            f"two images of 16,000x16,000 pixels in a zip of {(data / 'bombs.zip').stat().st_size:,} bytes",
            {"data": "bombs.zip", "steps": 1},
            "done",
            "",
        ),
        ("a PNG that claims 30,000x30,000", {"data": "claims"}, "failed: .*", ""),
        ("a zip cut in the middle", {"data": "cut.zip"}, "failed: .*", "damaged"),
        ("noise as data", {"data": "noise.png"}, "failed: .*", ""),
        ("a named pipe in the data", {"data": "pipes"}, "failed: .*|done", ""),
        ("4,096 threads", {"threads": 4096}, "422 threads", ""),
        ("2^62 steps between checkpoints, 2^62 kept", {"checkpoint_every": 1 << 62, "keep": 1 << 62}, "done", ""),
        ("crop 2^62", {"data": "good", "crop": 1 << 62}, "done|failed: .*", ""),
        ("a seed of 2^64 - 1", {"seed": (1 << 64) - 1}, "done", ""),
    ]
    for attack, options, expected, part in rows:
        state, error = outcome(**options)
        text = f"{state}: {error}".removesuffix(": ").replace(str(folder), "…")
        table.add(jobs, group, attack, text if len(text) < 230 else f"{text[:230]}…", expected)
        if part and not re.search(part, error):
            table.fault(f"{attack}: {error!r} does not contain {part!r}")
    busy = jobs.submit(steps=1 << 40)
    jobs.wait(busy, ("running",))
    moved = jobs.submit(steps=20, data="swapped")
    shutil.rmtree(data / "swapped")
    (data / "swapped").symlink_to(folder / "secret")
    jobs.json("POST", f"/v1/jobs/{busy}/cancel")
    job = jobs.wait(moved, ("done", "failed"))
    text = f"{job['state']}: {job['error']}".replace(str(folder), "…")
    table.add(
        jobs,
        group,
        "data replaced by a symlink out of the root after the job was accepted",
        text,
        "failed: .*outside the root.*",
    )
    escaped = [
        path for path in (folder / "escaped", folder / "data/escaped", Path("/escaped-from-a-zip")) if path.exists()
    ]
    table.add(jobs, group, "were files written outside the store?", ", ".join(map(str, escaped)) or "no", "no")


def tokens(table, jobs):
    group = "token"
    bare = "Host: 127.0.0.1\r\nConnection: close\r\n"
    ask = lambda lines, path="/v1/jobs": summarize(
        parse(jobs.raw(f"GET {path} HTTP/1.1\r\n{bare}{lines}\r\n".encode("latin-1")))
    )
    rows = {
        "none": "",
        "empty": "Authorization: \r\n",
        "Bearer alone": "Authorization: Bearer\r\n",
        "invalid": "Authorization: Bearer wrong\r\n",
        "a prefix": f"Authorization: Bearer {TOKEN[:-1]}\r\n",
        "a suffix": f"Authorization: Bearer {TOKEN[1:]}\r\n",
        "with an additional letter": f"Authorization: Bearer {TOKEN}x\r\n",
        "in upper case": f"Authorization: Bearer {TOKEN.upper()}\r\n",
        "as Basic": f"Authorization: Basic {TOKEN}\r\n",
        "without a scheme": f"Authorization: {TOKEN}\r\n",
        "two spaces": f"Authorization: Bearer  {TOKEN}\r\n",
        "60,000 letters": f"Authorization: Bearer {'x' * 60000}\r\n",
        "bytes above 127": "Authorization: Bearer \xff\xfe\r\n",
        "invalid, then valid": f"Authorization: Bearer x\r\nAuthorization: Bearer {TOKEN}\r\n",
        "both in one header": f"Authorization: Bearer x, Bearer {TOKEN}\r\n",
        "as a cookie": f"Cookie: token={TOKEN}\r\n",
        "X-Forwarded-For: 127.0.0.1": "X-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\n",
        "X-HTTP-Method-Override": "X-HTTP-Method-Override: OPTIONS\r\n",
    }
    for attack, lines in rows.items():
        table.add(jobs, group, attack, ask(lines), "401")
    table.add(jobs, group, "in the query", ask("", f"/v1/jobs?token={TOKEN}&access_token={TOKEN}"), "401")
    table.add(
        jobs,
        group,
        "//v1/jobs, /./v1/jobs, /page/../v1/jobs, /healthz/../v1/jobs",
        ", ".join(
            sorted(
                {
                    ask("", path)
                    for path in (
                        "//v1/jobs",
                        "/./v1/jobs",
                        "/page/../v1/jobs",
                        "/page/..%2fv1%2fjobs",
                        "/healthz/../v1/jobs",
                    )
                }
            )
        ),
        "401|401, 404",
    )
    table.add(jobs, group, "none, HEAD", parse(jobs.raw(f"HEAD /v1/jobs HTTP/1.1\r\n{bare}\r\n".encode()))[0], "401")
    table.add(
        jobs,
        group,
        "none, with a declared body of 2 TB",
        summarize(parse(jobs.raw(f"POST /v1/jobs HTTP/1.1\r\n{bare}Content-Length: 2000000000000\r\n\r\n".encode()))),
        "401",
    )
    # Timing is not measured: the comparison is constant-time (subtle::ConstantTimeEq).
    valid, both = (
        ask(f"Authorization: Bearer {TOKEN}\r\n"),
        ask(f"Authorization: Bearer {TOKEN}\r\nAuthorization: Bearer x\r\n"),
    )
    table.add(jobs, group, "valid (control)", valid, "200")
    table.add(jobs, group, "valid, then invalid: the first counts", both, "200")


def web(table, open_service):
    group = "web page"
    port = open_service.address[1]
    ask = lambda text: summarize(parse(open_service.raw(text.encode("latin-1"))))
    close = "Connection: close\r\n\r\n"
    for host in (
        "evil.example",
        f"evil.example:{port}",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "10.0.0.1",
        "",
        "127.0.0.1@evil.example",
        "[::ffff:10.0.0.1]",
    ):
        table.add(
            open_service,
            group,
            f"Host: {host.replace(str(port), 'PORT')}" if host else "Host: empty",
            ask(f"GET /v1/jobs HTTP/1.1\r\nHost: {host}\r\n{close}"),
            "403|400",
        )
    two = ask(f"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n{close}")
    table.add(open_service, group, "two Host headers, the first is localhost", two, "400|403")
    for origin in (
        "https://evil.example",
        "null",
        "http://127.0.0.1.evil.example",
        f"http://localhost:{port + 1}",
        "file://",
    ):
        response = open_service.request("POST", "/v1/jobs", b'{"steps": 5}', f"Origin: {origin}\r\n")
        table.add(
            open_service,
            group,
            f"POST with Origin: {origin.replace(str(port + 1), 'PORT + 1')}",
            summarize(response),
            "403",
        )
    response = open_service.raw(
        f"OPTIONS /v1/jobs HTTP/1.1\r\n{open_service.headers}Origin: https://evil.example\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type\r\n{close}".encode()
    )
    allowed = " with access-control headers" if b"access-control-allow" in (response or b"").lower() else ""
    table.add(open_service, group, "CORS preflight", f"{parse(response)[0]}{allowed}", "405|403")
    response = open_service.raw(
        f"GET /v1/jobs HTTP/1.1\r\n{open_service.headers}Origin: https://evil.example\r\n{close}".encode()
    )
    allowed = (
        " readable by the page"
        if b"access-control-allow" in (response or b"").lower()
        else ", not readable by the page"
    )
    table.add(
        open_service,
        group,
        "GET with another Origin",
        f"{parse(response)[0]}{allowed}",
        "200, not readable by the page",
    )


def sql(table, open_service):
    group = "SQL"
    for text in (
        "' OR 1=1 --",
        "x'; DROP TABLE jobs; --",
        '" OR ""="',
        "1 UNION SELECT * FROM jobs",
        "%' --",
        "\\",
        "x" * 10000,
    ):
        name = "10,000 letters" if len(text) > 100 else "a backslash" if text == "\\" else text
        inner = quote(text, safe="")
        found = [
            summarize(open_service.request("GET", f"/v1/jobs/{inner}")),
            summarize(open_service.request("DELETE", f"/v1/jobs/{inner}")),
            summarize(open_service.request("POST", f"/v1/jobs/{inner}/cancel")),
        ]
        found.append(summarize(open_service.request("GET", f"/v1/jobs?state={inner}")))
        found.append(summarize(open_service.request("GET", f"/v1/jobs?before={inner}")))
        table.add(
            open_service,
            group,
            f"{name}" + (" as id (GET, DELETE, cancel), state, before" if text.startswith("'") else ""),
            ", ".join(found),
            "404, 404, 404, 422 state, (200|422 before)",
        )
    count = len(open_service.json("GET", "/v1/jobs")["jobs"])
    table.add(open_service, group, "do the jobs still exist?", "yes" if count else "no", "yes")


def main():
    binary = Path(sys.argv[1] if len(sys.argv) > 1 else BINARY).resolve()
    hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard_limit, 8192), hard_limit))
    started = time.monotonic()
    table = Table()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder).resolve()
        make_data(folder)
        (folder / "token").write_text(TOKEN)
        roots = ("--data-root", folder / "data", "--model-root", folder / "models")
        open_service = Service(binary, folder, "open", *roots)
        jobs = Service(binary, folder, "jobs", *roots, "--token-file", folder / "token")
        try:
            done = open_service.submit(steps=200)
            open_service.wait(done, ("done",))
            training = open_service.submit(steps=1 << 40)
            first_step = open_service.wait(training, ("running",))["step"]
            slow_attacks = slow(table, jobs)
            for thread in slow_attacks:
                thread.start()
            traversal(table, open_service, folder, done)
            bodies(table, open_service)
            bad_json(table, open_service, done)
            memory(table, open_service)
            tokens(table, jobs)
            web(table, open_service)
            protocol(table, open_service, done)
            floods(table, open_service, done)
            sql(table, open_service)
            hostile_jobs(table, jobs, folder)
            connections(table, open_service, training, done)
            for thread in slow_attacks:
                thread.join()
            first = open_service.json("GET", f"/v1/jobs/{training}")["step"]
            time.sleep(1)
            last = open_service.json("GET", f"/v1/jobs/{training}")
            if last["state"] != "running" or last["step"] <= first:
                table.fault(f"training made no progress: {last}")
            events = (open_service.store / "runs" / training / "stats.jsonl").read_text().splitlines()[:-1]
            steps = [event["step"] for event in map(json.loads, events) if event["event"] == "step"]
            if any(after - before != 100 for before, after in zip(steps[1:], steps[2:])):
                table.fault("stats.jsonl of the training job has gaps")
            peaks, codes = (open_service.peak(), jobs.peak()), (open_service.stop(), jobs.stop())
            if codes != (0, 0):
                table.fault(f"the services exited with {codes}")
            panics = [name for name in ("open.log", "jobs.log") if "panicked" in (folder / name).read_text()]
            if panics:
                table.fault(f"panics in {panics}")
        finally:
            for service in (open_service, jobs):
                service.process.kill()
                service.process.wait()
            keep = os.environ.get("KEEP_LOGS")
            for name in ("open.log", "jobs.log") if keep else ():
                shutil.copy(folder / name, keep)
    table.print()
    print(
        f"\n{len(table.rows)} checks in {time.monotonic() - started:.0f} s; slowest response of /healthz after a check: "
        f"{table.slowest:.2f} s; training job: step {first_step:,} to {last['step']:,}, each step logged once; "
        f"peak memory {peaks[0]} MB (without a token, training throughout) and {peaks[1]} MB (with a token, hostile jobs)"
    )
    for fault in table.faults:
        print(f"FAULT {fault}")
    sys.exit(bool(table.faults))


if __name__ == "__main__":
    main()
