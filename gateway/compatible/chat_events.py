"""Turns the events of an answer into completions of OpenAI, whole or chunk by chunk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message

from gateway.json_encoder import encode
from nearline.v1 import generation_pb2

_Json = dict[str, Any]
_FINISH = {generation_pb2.DoneEvent.FINISH_LENGTH: "length"}


class AnswerBuilder:
    """Takes the events of one answer.

    Args:
        answer_id: Id of the completion.
        created: Unix time in seconds.
        model: Name that the caller sent.
    """

    def __init__(self, answer_id: str, created: int, model: str) -> None:
        self._head: _Json = {"id": answer_id, "created": created, "model": model}
        self._text = ""
        self._refusal: str | None = None
        self._annotations: list[_Json] = []
        self._finish = "stop"
        self._more: _Json = {"citations": []}
        self._usage: _Json = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}

    def take(self, event: Any) -> list[_Json]:
        """Takes an event; returns the chunks that it gives."""
        match event.WhichOneof("event"):
            case "evidence":
                self._more["evidence"] = encode(event.evidence)
                return [
                    self._chunk(
                        {"role": "assistant", "content": ""}, more={"evidence": event.evidence}
                    )
                ]
            case "delta":
                self._text += event.delta.text
                return [self._chunk({"content": event.delta.text})]
            case "citation":
                annotation = self._annotation(event.citation)
                self._annotations.append(annotation)
                self._more["citations"].append(encode(event.citation))
                return [
                    self._chunk({"annotations": [annotation]}, more={"citation": event.citation})
                ]
            case "usage":
                read, written = event.usage.prompt_tokens, event.usage.completion_tokens
                self._usage = {
                    "prompt_tokens": read,
                    "completion_tokens": written,
                    "total_tokens": read + written,
                }
                return []
            case "refusal":
                self._refusal = event.refusal.message
                self._more["refusal"] = encode(event.refusal)
                return [
                    self._chunk({"refusal": self._refusal}),
                    self._chunk({}, finish="stop", more={"refusal": event.refusal}),
                ]
            case "done":
                self._finish = _FINISH.get(event.done.finish, "stop")
                self._more["done"] = encode(event.done)
                return [self._chunk({}, finish=self._finish, more={"done": event.done})]
        # An event of a newer service.
        return []

    def completion(self) -> _Json:
        """Returns the whole answer."""
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [
                {
                    "index": 0,
                    "message": {
                        "role": "assistant",
                        "content": None if self._refusal is not None else self._text,
                        "refusal": self._refusal,
                        "annotations": self._annotations,
                    },
                    "finish_reason": self._finish,
                    "logprobs": None,
                }
            ],
            "usage": self._usage,
            "nearline": self._more,
        }

    def usage_chunk(self) -> _Json:
        """Returns the last chunk, with what the answer took."""
        return {
            **self._head,
            "object": "chat.completion.chunk",
            "choices": [],
            "usage": self._usage,
        }

    def _chunk(
        self, delta: _Json, finish: str | None = None, more: Mapping[str, Message] | None = None
    ) -> _Json:
        found: _Json = {
            **self._head,
            "object": "chat.completion.chunk",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}],
        }
        if more:
            found["nearline"] = {name: encode(message) for name, message in more.items()}
        return found

    def _annotation(self, citation: generation_pb2.Citation) -> _Json:
        """Returns where in the text a source is cited; its address names document and span."""
        marker = f"[{citation.number}]"
        start = self._text.rfind(marker)
        span = f"#char={citation.char_start},{citation.char_end}"
        return {
            "type": "url_citation",
            "url_citation": {
                "start_index": max(0, start),
                "end_index": start + len(marker) if start >= 0 else 0,
                "title": citation.title,
                "url": f"nearline:{citation.document_id}{span}",
            },
        }
