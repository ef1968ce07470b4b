"""Hostile requests to the ingest service."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from nearline.v1 import ingest_pb2 as i, retrieval_pb2 as r
from tests.live.hostile.cases import OK, Case
from tests.live.hostile.known import (
    AFTER_YEAR_9999,
    DIM,
    LIMIT,
    MB,
    PATHS,
    Known,
    vector,
)
from tests.live.hostile.wire_bytes import nested

SUBMIT, JOB, WATCH, JOBS, CANCEL, RESULTS, LETTERS, REQUEUE, DISCARD = (
    f"IngestService/{name}"
    for name in (
        *("Submit", "GetJob", "WatchJob", "ListJobs", "CancelJob", "ListResults"),
        *("ListDeadLetters", "RequeueDeadLetters", "DeleteDeadLetters"),
    )
)
JOB_IDS = {
    "empty": "", "of 65 characters": "x" * 65, "of 1 MB": "x" * MB, "of a path": "../../x",
    "with a NUL": "x\0", "of braces": "{x}", "of umlauts": "äöü",
}  # fmt: skip


def file(name: str, content: bytes = b"x") -> i.IngestSource:
    """Returns a file."""
    return i.IngestSource(file=i.SourceFile(name=name, content=content))


def submit(*sources: i.IngestSource, **fields: object) -> i.SubmitRequest:
    """Returns a submission; without sources, of one good file."""
    return i.SubmitRequest(sources=sources or [file("a.md")], **fields)  # type: ignore[arg-type]


def url(address: str) -> i.SubmitRequest:
    """Returns a submission of a URL."""
    return submit(i.IngestSource(url=address))


def ingest_cases(known: Known) -> list[Case]:
    """Returns the table."""
    return [*_submissions(), *_jobs(), *_letters()]


def _submissions() -> list[Case]:
    two_rows = r.Item(id="x", vector=vector(*[1.0] * 2 * DIM, dim=DIM))
    late = r.Item(id="x", expire_time=AFTER_YEAR_9999)
    small = file("a.md", b"")
    names = {
        "without an ending": "passwd", "of a program": "a.exe", "of a matrix": "a.npy",
        "of 1 MB": "x" * MB + ".md", "of nothing": "", "of an ending": ".md", "of dots": "..",
    }  # fmt: skip
    return [
        Case("no sources", SUBMIT, i.SubmitRequest(), field="sources"),
        Case("1,025 sources", SUBMIT, submit(*[small] * 1_025), field="sources"),
        Case("5,000,000 empty sources", SUBMIT, lambda: b"\x3a\0" * 5_000_000),
        Case("source of nothing", SUBMIT, submit(i.IngestSource()), field="sources[0]"),
        *(Case(f"file {name}", SUBMIT, submit(file(one)), field="sources[0].file.name")
          for name, one in names.items()),
        Case("file of 17 MiB", SUBMIT, lambda: submit(file("a.md", b"x" * 17 * MB)),
             field="sources[0].file.content"),
        Case("files of 64 MiB", SUBMIT, lambda: submit(*[file("a.md", b"x" * 16 * MB)] * 4),
             "RESOURCE_EXHAUSTED", "larger than max", by_grpc=True),
        *(Case(f"URL {one[:40]!r}", SUBMIT, url(one), field="sources[0].url") for one in (
            "", "a.md", "//host/a.md", "gopher://127.0.0.1/a.md", "javascript:alert(1)//a.md",
            "data:text/plain,x.md", "jar:file:///a!/b.md", "ftp://host/a.md", "FILE:///a.exe",
            "http://[::1/a.md", "http://host/a", "http://host/", "https://host/?x=a.md",
            "http://host/" + "x" * 5_000 + ".md")),
        Case("two vectors", SUBMIT, submit(i.IngestSource(item=two_rows)),
             field="sources[0].item.vector"),
        Case("item that expires after the year 9999", SUBMIT,
             submit(i.IngestSource(item=late)), field="sources[0].item.expire_time"),
        Case("1,000 nested lists", SUBMIT, nested(
            i.SubmitRequest, "sources.item.attributes.value", "list_value.values", 1_000)),
        *(Case(f"collection {name}", SUBMIT, submit(collection=path), field="collection")
          for name, path in PATHS.items()),
        Case("tenant of 1 MB", SUBMIT, submit(tenant="x" * MB), field="tenant"),
        Case("tenant of white space", SUBMIT, submit(tenant="\n"), field="tenant"),
        Case("callback of 1 MB", SUBMIT, submit(callback_id="x" * MB), field="callback_id"),
        Case("unknown priority", SUBMIT, submit(priority=99), field="priority"),
        *(Case(f"job id {name}", SUBMIT, submit(job_id=one), field="job_id")
          for name, one in JOB_IDS.items() if one),
        Case("offset 2^64-1", SUBMIT, submit(job_id="hostile", offset=2**64 - 1), "ABORTED"),
        *(Case(f"results for {seconds} s", SUBMIT, submit(result_ttl=Duration(seconds=seconds)),
               field="result_ttl") for seconds in (0, -1, 2**62)),
        Case("results for many nanoseconds", SUBMIT,
             submit(result_ttl=Duration(nanos=-2_000_000_000)), field="result_ttl"),
    ]  # fmt: skip


def _jobs() -> list[Case]:
    kinds = {
        JOB: i.GetJobRequest, WATCH: i.WatchJobRequest, CANCEL: i.CancelJobRequest,
        RESULTS: i.ListResultsRequest,
    }  # fmt: skip
    pages = {JOBS: i.ListJobsRequest, RESULTS: i.ListResultsRequest}
    return [
        *(Case(f"{method.partition('/')[2]} of an id {name}", method, kind(job_id=one),
               field="job_id")
          for method, kind in kinds.items() for name, one in JOB_IDS.items()),
        *(Case(f"{method.partition('/')[2]} of nobody", method, kind(job_id="nobody"), "NOT_FOUND")
          for method, kind in kinds.items()),
        Case("job of 60 MB", JOB, lambda: i.GetJobRequest(job_id="'\"" * 30 * MB), says="in parts"),
        *(Case(f"{method.partition('/')[2]} of {size} on a page", method,
               kind(job_id="nobody", page_size=size) if method == RESULTS
               else kind(page_size=size), field="page_size")
          for method, kind in pages.items() for size in (1_001, 2**32 - 1)),
        *(Case(f"{method.partition('/')[2]} at a token {name}", method,
               kind(job_id="nobody", page_token=one) if method == RESULTS
               else kind(page_token=one), field="page_token")
          for method, kind in pages.items()
          for name, one in {"of noise": "%", "below 0": "-1", "of digits elsewhere": "١٢",
                            "of 20 digits": "9" * 20, "of 1 MB": "9" * MB,
                            "of infinity": "inf"}.items()),
        Case("jobs after the last number", JOBS, i.ListJobsRequest(page_token="9" * 19), OK),
        Case("jobs in an unknown state", JOBS, i.ListJobsRequest(states=[99]), field="states"),  # type: ignore[list-item]
        Case("jobs in no state", JOBS, i.ListJobsRequest(states=[0]), field="states"),  # type: ignore[list-item]
        Case("jobs of a tenant of 60 MB", JOBS,
             lambda: i.ListJobsRequest(tenant="x" * 60 * MB), says="in parts"),
        Case("jobs of a callback of 1 MB", JOBS,
             i.ListJobsRequest(callback_id="x" * MB), field="callback_id"),
        Case("jobs of a path", JOBS, i.ListJobsRequest(collection="../x"), field="collection"),
    ]  # fmt: skip


def _letters() -> list[Case]:
    many = [f"{number}-0" for number in range(1_025)]
    bad = {"of noise": "x", "of half": "1-", "of 1 MB": "1" * MB + "-1", "of a line": "1-0\n"}
    kinds = {REQUEUE: i.RequeueDeadLettersRequest, DISCARD: i.DeleteDeadLettersRequest}
    return [
        *(Case(f"letters at a token {name}", LETTERS, i.ListDeadLettersRequest(page_token=one),
               field="page_token") for name, one in bad.items()),
        Case("2^32-1 letters on a page", LETTERS, i.ListDeadLettersRequest(page_size=2**32 - 1),
             field="page_size"),
        Case("letters of a job of 1 MB", LETTERS, i.ListDeadLettersRequest(job_id="x" * MB),
             field="job_id"),
        Case("letters of a tenant of 60 MB", LETTERS,
             lambda: i.ListDeadLettersRequest(tenant="x" * 60 * MB), says="in parts"),
        *(Case(f"{method.partition('/')[2]} {name}", method, kind(letter_ids=ids),
               field="letter_ids")
          for method, kind in kinds.items()
          for name, ids in {"of none": [], "of 1,025": many, "of one twice": ["1-0", "1-0"],
                            **{key: [one] for key, one in bad.items()}}.items()),
        Case("requeue of an unknown letter", REQUEUE,
             i.RequeueDeadLettersRequest(letter_ids=["1-0"]), "NOT_FOUND"),
        Case("requeue into a path", REQUEUE,
             i.RequeueDeadLettersRequest(letter_ids=["1-0"], job_id="../x"), field="job_id"),
        Case("message of 64 MiB", DISCARD,
             lambda: i.DeleteDeadLettersRequest(letter_ids=["x" * LIMIT]), "RESOURCE_EXHAUSTED",
             "larger than max", by_grpc=True),
    ]  # fmt: skip
