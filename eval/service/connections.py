"""Attacks on connections: HTTP protocol, floods, slow clients, clients that never read."""

import socket
import struct
import threading
import time

from hostile import MIB, descriptors_released, parse, ready, statuses


def protocol(table, open_service, id):
    group = "protocol"
    head = open_service.headers + "Connection: close\r\n\r\n"
    raw = lambda data: parse(open_service.raw(data if isinstance(data, bytes) else data.encode("latin-1")))[0]
    rows = {
        "TRACE": (f"TRACE /v1/jobs HTTP/1.1\r\n{head}", "405"),
        "CONNECT evil.example:443": ("CONNECT evil.example:443 HTTP/1.1\r\n" + head, "400|403|404|405"),
        "absolute URL of another host": (
            "GET http://evil.example/v1/jobs HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
            "403|404",
        ),
        "a method of 10,000 letters": (f"{'A' * 10000} / HTTP/1.1\r\n{head}", "400|405"),
        "method in lower case": (f"get /v1/jobs HTTP/1.1\r\n{head}", "400|405"),
        "PUT": (f"PUT /v1/jobs/{id} HTTP/1.1\r\n{head}", "405"),
        "HTTP/0.9": ("GET /healthz\r\n\r\n", "400|closed"),
        "HTTP/1.0": ("GET /v1/jobs HTTP/1.0\r\nHost: localhost\r\n\r\n", "200"),
        "HTTP/9.9": (f"GET /v1/jobs HTTP/9.9\r\n{head}", "400|closed|505"),
        "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0", "400|closed|505"),
        "upgrade to h2c": (
            "GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\nConnection: Upgrade, close\r\n\r\n",
            "200",
        ),
        "upgrade to a WebSocket": (
            f"GET /v1/jobs/{id}/samples HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
            "200",
        ),
        "TLS hello": (bytes.fromhex("16030100c8010000c40303") + bytes(200), "400|closed"),
        "64 KiB of noise": (bytes(range(256)) * 256, "400|closed"),
        "only line ends": (b"\r\n" * 10000 + b"x\r\n\r\n", "400|closed"),
        "a header without a colon": ("GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nnothing\r\n\r\n", "400"),
        "a space before the colon": ("GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length : 5\r\n\r\n", "400"),
        "a folded header": ("GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nX-A: 1\r\n 2\r\n\r\n", "400"),
        "NUL in a header": ("GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nX-A: a\0b\r\n\r\n", "400"),
        "CR alone ends lines": ("GET /healthz HTTP/1.1\rHost: localhost\r\r", "400|closed"),
        "CRLF in the query, to inject a response header": (
            f"GET /v1/jobs?state=x%0d%0aSet-Cookie:a=b HTTP/1.1\r\n{head}",
            "422",
        ),
        "Expect: nonsense": (f"GET /v1/jobs HTTP/1.1\r\nExpect: nonsense\r\n{head}", "200|417"),
        "Range of 10,000 parts": (
            f"GET /v1/jobs/{id}/samples/reals.png HTTP/1.1\r\nRange: bytes={','.join(['0-0'] * 10000)}\r\n{head}",
            "200",
        ),
        "Accept-Encoding: 1,000 times gzip": (
            f"GET /v1/jobs HTTP/1.1\r\nAccept-Encoding: {','.join(['gzip'] * 1000)}\r\n{head}",
            "200",
        ),
        "Content-Encoding: gzip": (
            f"POST /v1/jobs HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n{open_service.headers}Connection: close\r\n\r\n\x1f\x8b\x08",
            "400|415",
        ),
    }
    for attack, (data, expected) in rows.items():
        table.add(open_service, group, attack, raw(data), expected)
    half = open_service.raw(f"GET /v1/jobs HTTP/1.1\r\n{open_service.headers}\r\n".encode(), half_close=True)
    table.add(open_service, group, "half-closed after the request", parse(half)[0], "200|closed")
    half = open_service.raw(
        f"POST /v1/jobs HTTP/1.1\r\n{open_service.headers}Content-Length: 100\r\n\r\n{{".encode(), half_close=True
    )
    table.add(open_service, group, "half-closed in the body", parse(half)[0], "400|closed")
    one = f"GET /v1/jobs/{id} HTTP/1.1\r\n{open_service.headers}"
    last = f"GET /healthz HTTP/1.1\r\n{open_service.headers}Connection: close\r\n\r\n"
    response = open_service.raw(((one + "\r\n") * 999 + last).encode(), 60)
    codes = statuses(response)
    table.add(
        open_service,
        group,
        "1,000 pipelined requests on one connection",
        f"{codes.count(200)} x 200, {codes.count(204)} x 204",
        "999 x 200, 1 x 204",
    )
    group = "smuggling"
    hidden = f"GET /smuggled HTTP/1.1\r\n{open_service.headers}Connection: close\r\n\r\n"
    smuggle = {
        "Content-Length and Transfer-Encoding": f"Content-Length: {12 + len(hidden)}\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n{hidden}",
        "Transfer-Encoding and Content-Length": f"Transfer-Encoding: chunked\r\nContent-Length: {12 + len(hidden)}\r\n\r\n2\r\n[]\r\n0\r\n\r\n{hidden}",
        "two Content-Lengths": f"Content-Length: 2\r\nContent-Length: {2 + len(hidden)}\r\n\r\n[]{hidden}",
        "a list of Content-Lengths": f"Content-Length: 2, {2 + len(hidden)}\r\n\r\n[]{hidden}",
        "Content-Length: +2": f"Content-Length: +2\r\n\r\n[]{hidden}",
        "Transfer-Encoding: chunked, identity": f"Transfer-Encoding: chunked, identity\r\n\r\n2\r\n[]\r\n0\r\n\r\n{hidden}",
        "Transfer-Encoding: xchunked": f"Transfer-Encoding: xchunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n{hidden}",
        "Transfer-Encoding after a vertical tab": f"Transfer-Encoding: \x0bchunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n{hidden}",
        "a chunk size of 0x2": f"Transfer-Encoding: chunked\r\n\r\n0x2\r\n[]\r\n0\r\n\r\n{hidden}",
        "chunk lines that end in LF alone": f"Transfer-Encoding: chunked\r\n\r\n2\n[]\n0\n\n{hidden}",
    }
    for attack, rest in smuggle.items():
        codes = statuses(
            open_service.raw(f"POST /v1/jobs HTTP/1.1\r\n{open_service.headers}{rest}".encode("latin-1"), 20)
        )
        # 422: the body was read as chunks, which take precedence (RFC 9112, section 6.3).
        text = ", ".join(map(str, codes)) or "closed"
        text += "; the hidden request is answered" if len(codes) > 1 else "; the hidden request is not answered"
        table.add(open_service, group, attack, text, "(400|closed|422); the hidden request is not answered")


def floods(table, open_service, id):
    group = "header flood"
    start = f"GET /v1/jobs HTTP/1.1\r\n{open_service.headers}"
    status = lambda data: parse(open_service.raw(data.encode()))[0]
    table.add(
        open_service, group, "101 headers", status(start + "".join(f"X-{i}: 1\r\n" for i in range(101)) + "\r\n"), "431"
    )
    table.add(
        open_service,
        group,
        "10,000 headers",
        status(start + "".join(f"X-{i}: 1\r\n" for i in range(10000)) + "\r\n"),
        "431",
    )
    table.add(open_service, group, "the same header 10,000 times", status(start + "X-A: 1\r\n" * 10000 + "\r\n"), "431")
    table.add(open_service, group, "one header of 1 MiB", status(f"{start}X-A: {'a' * MIB}\r\n\r\n"), "431")
    table.add(open_service, group, "an endless header, 64 MiB of it", status(f"{start}X-A: {'a' * 64 * MIB}"), "431")
    table.add(
        open_service,
        group,
        "a URL of 1 MiB",
        status(f"GET /{'a' * MIB} HTTP/1.1\r\n{open_service.headers}\r\n"),
        "414|431",
    )
    table.add(
        open_service,
        group,
        "a query of 60,000 parameters",
        status(f"GET /v1/jobs?{'a&' * 30000} HTTP/1.1\r\n{open_service.headers}Connection: close\r\n\r\n"),
        "422",
    )
    for attack, value, expected in [
        ("letters", "x", "422"),
        ("SQL", "1' OR '1'='1", "422"),
        ("2^64 and more", "99999999999999999999999-1", "422"),
        ("well-formed, but not an event", "999999999-999999", "200|204"),
        ("-1", "-1", "422"),
        ("60,000 digits", "9" * 60000, "422"),
        ("bytes above 127", "\xff\xff", "422"),
    ]:
        with open_service.connect() as stream:
            stream.sendall(
                f"GET /v1/jobs/{id}/events HTTP/1.1\r\n{open_service.headers}Last-Event-ID: {value}\r\n\r\n".encode(
                    "latin-1"
                )
            )
            response = stream.recv(200)
        table.add(open_service, "Last-Event-ID", attack, parse(response)[0], expected)


def connections(table, open_service, id, length):
    group = "connections"

    def open_connections(n):
        streams = []
        for _ in range(n):
            stream = socket.socket()
            stream.setblocking(False)
            stream.connect_ex(open_service.address)
            streams.append(stream)
        return streams

    def check_health(streams):
        """Whether /healthz responds within two seconds while these are open, and the time until it responds."""
        started, during = time.monotonic(), open_service.health()
        while open_service.health() is None and time.monotonic() < started + 30:
            pass
        waited = time.monotonic() - started
        for stream in streams:
            stream.close()
        return during, waited

    idle = open_connections(200)
    during, _ = check_health(idle)
    table.add(open_service, group, "200 idle connections: does /healthz respond?", "yes" if during else "no", "yes")
    idle = open_connections(1500)
    time.sleep(0.5)
    during, waited = check_health(idle)
    # More than the connection limit: idle connections are closed after 15 seconds.
    text = "yes" if during else f"after {waited:.0f} s, when idle connections are closed" if waited < 25 else "no"
    table.add(open_service, group, "1,500 idle connections: does /healthz respond?", text, "yes|after .*")
    deadline = time.monotonic() + 30
    while open_service.health() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    before = open_service.descriptors()
    for _ in range(3000):
        with open_service.connect() as stream:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    for request in (
        f"/v1/jobs/{id}/events",
        f"/v1/jobs/{id}/model",
        f"/v1/jobs/{id}/samples/reals.png",
        "/openapi.json",
        "/",
    ):
        for i in range(200):
            with open_service.connect() as stream:
                stream.sendall(f"GET {request} HTTP/1.1\r\n{open_service.headers}\r\n".encode())
                if i % 2:
                    stream.recv(100)
                # A reset instead of an orderly close.
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    table.add(
        open_service,
        group,
        "3,000 reset at once, 1,000 reset during responses (events, model, sample, page)",
        (
            "descriptors are released"
            if descriptors_released(open_service, before)
            else f"descriptors: {before} before, {open_service.descriptors()} after"
        ),
        "descriptors are released",
    )
    streams, codes = [], []
    for _ in range(600):
        stream = open_service.connect()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stream.sendall(f"GET /v1/jobs/{id}/events HTTP/1.1\r\n{open_service.headers}\r\n".encode())
        streams.append(stream)
        response = stream.recv(20) if ready(stream, 5)[0] else b""
        codes.append(parse(response)[0])
        if codes[-1] != 200:
            break
    peak = open_service.peak()
    text = f"{codes.count(200)} x 200, then {codes[-1]}"
    table.add(open_service, group, "unread event streams", text, r"\d+ x 200, then (503|200|closed)")
    for stream in streams:
        stream.close()
    streams = []
    for _ in range(40):
        stream = open_service.connect()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stream.sendall(f"GET /v1/jobs/{length}/model HTTP/1.1\r\n{open_service.headers}\r\n".encode())
        streams.append(stream)
    time.sleep(1)
    text = f"{'responds' if open_service.request('GET', '/v1/jobs', timeout=5)[0] == 200 else 'hangs'}"
    table.add(open_service, group, "40 unread model downloads: does GET /v1/jobs respond?", text, "responds")
    for stream in streams:
        stream.close()
    table.add(
        open_service,
        group,
        "after all of these",
        (
            "descriptors are released"
            if descriptors_released(open_service, before)
            else f"descriptors: {before} before, {open_service.descriptors()} after"
        ),
        "descriptors are released",
    )
    return peak


def drip(service, head, rest, seconds):
    """Sends `rest` at one byte per second; returns the status and the duration."""
    started = time.monotonic()
    with service.connect() as stream:
        stream.sendall(head)
        response = b""
        for byte in rest:
            if ready(stream, 1)[0]:
                try:
                    block = stream.recv(1 << 16)
                except ConnectionResetError:
                    block = b""
                response += block
                if not block or response:
                    break
            try:
                stream.sendall(bytes([byte]))
            except (BrokenPipeError, ConnectionResetError):
                break
            if time.monotonic() - started > seconds:
                return "not closed", time.monotonic() - started
    return parse(response)[0], time.monotonic() - started


def slow(table, service):
    """Slow attacks, in separate threads, on a service that is not flooded meanwhile."""
    group = "slow client"
    body = f"POST /v1/jobs HTTP/1.1\r\n{service.headers}"
    rows = [
        ("sends nothing", b"", b"", "closed", 20),
        ("a head at one byte per second", b"GET / HTTP/1.1\r\nX-A: ", b"a" * 200, "closed|408", 20),
        ("a head at one byte per second, in complete lines", b"GET / HTTP/1.1\r\n", b"X:1\r\n" * 40, "closed|408", 20),
        ("a body at one byte per second", f"{body}Content-Length: 100000\r\n\r\n".encode(), b" " * 200, "503|408", 65),
        (
            "chunks at one byte per second",
            f"{body}Transfer-Encoding: chunked\r\n\r\n".encode(),
            b"1\r\n \r\n" * 40,
            "503|408",
            65,
        ),
        ("a body that is never sent", f"{body}Content-Length: 100\r\n\r\n".encode(), b"", "503|408", 65),
        (
            "an incomplete second request after a response",
            f"GET /healthz HTTP/1.1\r\n{service.headers}\r\n".encode(),
            b"",
            "204",
            20,
        ),
    ]

    def attack(name, head, rest, expected, limit):
        if rest:
            status, seconds = drip(service, head, rest, limit + 5)
        else:
            started = time.monotonic()
            response = service.raw(head, limit + 5)
            status, seconds = parse(response)[0], time.monotonic() - started
        text = f"{status} after {round(seconds / 5) * 5} s"
        table.add(service, group, name, text, rf"({expected}) after \d+ s")
        if seconds > limit:
            table.fault(f"{name}: {text}, expected within {limit} s")

    return [threading.Thread(target=attack, args=row) for row in rows]
