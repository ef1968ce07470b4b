"""Hostile files and addresses for the queue: workers must refuse each, and touch nothing else."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from nearline import contract as c
from tests.live.hostile.files import MB, hostile_files

# One of each format and each way to fail; tests of readers have all.
_SENT = {
    "latin1.txt", "utf16.txt", "digits.jsonl", "unclosed.jsonl", "line.jsonl",
    "surrogate.jsonl", "cell.csv", "wide.csv", "marks.parquet", "gzip.html",
    "junk.pdf", "pages-loop.pdf", "bomb.pdf", "sparse.txt",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Source:
    """A hostile source for the queue.

    name: What is hostile about it. sent: What is submitted. says: Part of the reason of its dead
    letter; empty: it is indexed, however odd.
    """

    name: str
    sent: c.IngestSource
    says: str = ""


def hostile_sources(files: Path, web: str, redis: str) -> list[Source]:
    """Writes the files, and returns the table.

    Args:
        files: Folder that workers may read.
        web: Address of a web server; workers may read below its /in/.
        redis: Address of a service that nobody may reach through a worker.
    """
    sources = [_plain(one, files) for one in ("heading-spaces.md", "charset.html")]
    for file in hostile_files():
        if file.name in _SENT:
            path = files / file.name
            file.write(path)
            sources.append(Source(file.name, c.SourceUrl(path.as_uri()), file.says))
    return [*sources, *_content(), *_special(files), *_addresses(files, web, redis)]


def _plain(name: str, files: Path) -> Source:
    """Returns a file that is odd, but no worse."""
    file = next(one for one in hostile_files() if one.name == name)
    assert not file.says
    file.write(files / name)
    return Source(name, c.SourceFile(name, (files / name).read_bytes()))


def _content() -> list[Source]:
    item = c.Item
    return [
        Source("name of a path", c.SourceFile("../../etc/passwd.md", b"\xff"), "not UTF-8"),
        Source("name with a NUL", c.SourceFile("a\0b.md", b"x")),
        Source("name of 400 characters", c.SourceFile("x" * 400 + ".md", b"\xff"), "not UTF-8"),
        Source("item without an id", item(id="", text="x"), "the id is empty"),
        Source("item with an id of 20 KB", item(id="x" * 20_000, text="x"), "20000 bytes"),
        Source("item without a text", item(id="hostile-1", text=" "), "empty"),
        Source("item with a reserved attribute",
               item(id="hostile-2", text="x", attributes={"$time": 1}), "reserved"),
        Source("item with infinity",
               item(id="hostile-3", text="x", attributes={"n": float("inf")}), "a finite number"),
    ]  # fmt: skip


def _special(files: Path) -> list[Source]:
    """Returns what is below the folder, but no file."""
    (files / "folder.pdf").mkdir()
    os.mkfifo(files / "fifo.md")
    (files / "loop.md").symlink_to(files / "loop.md")
    (files / "out.txt").symlink_to("/etc/passwd")
    (files / "device.txt").symlink_to("/dev/zero")
    (files / "all").symlink_to("/")
    with (files / "sparse-2-gib.csv").open("wb") as file:
        file.truncate(2048 * MB)
    base = files.as_uri()
    return [
        Source("folder", c.SourceUrl(f"{base}/folder.pdf"), "not a file"),
        Source("pipe", c.SourceUrl(f"{base}/fifo.md"), "not a file"),
        Source("link to itself", c.SourceUrl(f"{base}/loop.md"), "submit a file"),
        Source("link out of the folder", c.SourceUrl(f"{base}/out.txt"), "outside"),
        Source("link to a device", c.SourceUrl(f"{base}/device.txt"), "outside"),
        Source("through a linked folder", c.SourceUrl(f"{base}/all/etc/hosts.txt"), "outside"),
        Source("file of 2 GiB", c.SourceUrl(f"{base}/sparse-2-gib.csv"), "are allowed"),
        Source("missing file", c.SourceUrl(f"{base}/nobody.md"), "submit a file"),
        Source("NUL in a path", c.SourceUrl(f"{base}/a%00.md"), "submit a file"),
        Source("segments of dots", c.SourceUrl(f"{base}/../store/a.md"), ".. segment"),
        Source("escaped dots", c.SourceUrl(f"{base}/%2e%2e/store/a.md"), ".. segment"),
    ]  # fmt: skip


def _addresses(files: Path, web: str, redis: str) -> list[Source]:
    host = urlsplit(web).netloc
    port = host.rpartition(":")[2]
    refused = {
        "Redis": f"http://{redis}/a.md",
        "link-local metadata": "http://169.254.169.254/latest/meta-data/a.md",
        "loopback by name": f"http://localhost:{port}/in/a.md",
        "loopback of IPv6": f"http://[::1]:{port}/in/a.md",
        "loopback as a number": f"http://2130706433:{port}/in/a.md",
        "loopback in other digits": f"http://１２７.0.0.1:{port}/in/a.md",
        "any address": f"http://0.0.0.0:{port}/in/a.md",
        "host that begins like the allowed one": f"{web}.example.net/in/a.md",
        "folder that begins like the allowed one": f"{web}/in-secret/a.md",
        "the root": f"{web}/a.md",
        "other case": f"HTTP://{host}/in/a.md".replace("HTTP", "hTTp"),
        "file of the system": "file:///etc/passwd.md",
        "file of a host": "file://host/etc/passwd.md",
        "bucket": "s3://bucket/a.md",
        "folder of another name": f"{files.as_uri()}-secret/a.md",
    }
    below = {
        "redirect": (f"{web}/in/moved.md", "redirects to"),
        "redirect to itself": (f"{web}/in/loop.md", "redirects to"),
        "redirect to a file": (f"{web}/in/file.md", "not allowed"),
        "dots": (f"{web}/in/../secret/secret.md", ".. segment"),
        "escaped dots of the web": (f"{web}/in/%2e%2e/secret/secret.md", ".. segment"),
        "line breaks": (f"{web}/in/\r\nX: y\r\n/a.md", "submit a file"),
        "space": (f"{web}/in/a b.md", "submit a file"),
        "nothing there": (f"{web}/in/nobody.md", "404"),
    }
    return [
        *(Source(name, c.SourceUrl(url), "may not read") for name, url in refused.items()),
        *(Source(name, c.SourceUrl(url), says) for name, (url, says) in below.items()),
    ]
