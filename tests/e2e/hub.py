"""A small Hub on the loopback interface that misbehaves on request: the other side of pull_test.py.

Files are served from memory. `Hub.behaviour[path]` is a list of functions, one for each coming request of that path; each gets
the handler and the file and answers in its own way. When the list is empty, files are served properly, ranges included.
"""
import hashlib
import http.server
import json
import re
import threading
import time


class File:
    def __init__(self, data, lfs=True):
        self.data = data
        self.sha256 = hashlib.sha256(data).hexdigest()
        self.etag = self.sha256 if lfs else hashlib.sha1(data).hexdigest()
        self.lfs = lfs


class Hub:
    def __init__(self):
        self.repositories = {}  # "user/repo" -> {name: File}
        self.behaviour = {}  # path -> [function(handler, file)]
        self.requests = []  # (path, Range or None, Authorization or None)
        self.list_details = True  # sizes and hashes in the listing
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                path = self.path.split("?")[0]
                hub.requests.append((path, self.headers.get("Range"), self.headers.get("Authorization")))
                waiting = hub.behaviour.get(path)
                act = waiting.pop(0) if waiting else serve
                try:
                    if path.startswith("/api/models/"):
                        listing(self, hub) if act is serve else act(self, None)
                    else:
                        act(self, hub.find(path))
                except (BrokenPipeError, ConnectionResetError):
                    pass

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def find(self, path):
        match = re.match(r"(?:/elsewhere)?/([^/]+/[^/]+)/resolve/[^/]+/(.+)$", path)
        return self.repositories.get(match.group(1), {}).get(match.group(2)) if match else None

    def ranges(self, name):
        return [r for path, r, _ in self.requests if path.endswith("/" + name)]

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def listing(handler, hub):
    name = "/".join(handler.path.split("?")[0].split("/")[3:5])
    files = hub.repositories.get(name)
    if files is None:
        return status(404)(handler, None)
    siblings = []
    for file_name, file in files.items():
        entry = {"rfilename": file_name}
        if hub.list_details:
            entry["size"] = len(file.data)
            if file.lfs:
                entry["lfs"] = {"sha256": file.sha256, "size": len(file.data)}
        siblings.append(entry)
    answer(handler, 200, json.dumps({"id": name, "siblings": siblings}).encode())


def answer(handler, code, body=b"", headers=()):
    handler.send_response(code)
    for key, value in headers:
        handler.send_header(key, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def wanted_range(handler, file):
    match = re.match(r"bytes=(\d+)-$", handler.headers.get("Range") or "")
    return int(match.group(1)) if match else 0


def head(handler, file, length=True, **extra):
    """Status line and headers of a proper answer; returns the bytes to send."""
    start = wanted_range(handler, file)
    if start >= len(file.data) and start:
        answer(handler, 416, b"", [("Content-Range", f"bytes */{len(file.data)}"), ("ETag", f'"{file.etag}"')])
        return None
    body = file.data[start:]
    handler.send_response(206 if start else 200)
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{len(file.data) - 1}/{len(file.data)}")
    handler.send_header("ETag", f'"{extra.get("etag", file.etag)}"')
    if length:
        handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    return body


def serve(handler, file):
    if file is None:
        return status(404)(handler, file)
    body = head(handler, file)
    if body is not None:
        handler.wfile.write(body)


def status(code, **headers):
    return lambda handler, file: answer(handler, code, b"no", [(k.replace("_", "-"), v) for k, v in headers.items()])


def cut_after(count):
    """Sends `count` bytes of what was asked for and closes the connection."""

    def act(handler, file):
        body = head(handler, file)
        handler.wfile.write(body[:count])
        handler.wfile.flush()
        handler.close_connection = True

    return act


def hang_after(count, seconds):
    def act(handler, file):
        body = head(handler, file)
        handler.wfile.write(body[:count])
        handler.wfile.flush()
        time.sleep(seconds)
        handler.close_connection = True

    return act


def redirect(location, code=302, **headers):
    return lambda handler, file: answer(handler, code, b"", [("Location", location)] + [(k.replace("_", "-"), v) for k, v in headers.items()])


def ignore_range(handler, file):
    handler.headers.replace_header("Range", "") if "Range" in handler.headers else None
    serve(handler, file)


def chunked(piece=1000, stop_after=None):
    """No Content-Length: chunked transfer coding, optionally without its end."""

    def act(handler, file):
        handler.send_response(200)
        handler.send_header("ETag", f'"{file.etag}"')
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        sent = 0
        for at in range(0, len(file.data), piece):
            part = file.data[at:at + piece]
            handler.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            sent += len(part)
            if stop_after is not None and sent >= stop_after:
                handler.wfile.flush()
                handler.close_connection = True
                return
        handler.wfile.write(b"0\r\n\r\n")

    return act


def until_close(handler, file):
    """HTTP/1.0 style: the end of the body is the end of the connection."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.wfile.write(file.data)
    handler.close_connection = True


def other_bytes(handler, file):
    """The right length and hash in the headers, but other content."""
    body = head(handler, file)
    handler.wfile.write(bytes(len(body)))


def slowly(pieces, pause):
    def act(handler, file):
        body = head(handler, file)
        step = len(body) // pieces + 1
        for at in range(0, len(body), step):
            handler.wfile.write(body[at:at + step])
            handler.wfile.flush()
            time.sleep(pause)

    return act
