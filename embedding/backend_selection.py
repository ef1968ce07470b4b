"""Selects the fastest backend that agrees with fp32; measures once and keeps the result."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedding import reference_texts
from embedding.backend import Backend
from embedding.gpu.backend import GpuBackend
from embedding.gpu.pool import GpuModel, GpuPool, worker_command
from embedding.model import EmbeddingModel
from embedding.model_cache import ModelCache
from embedding.reference_texts import ReferenceSample, ReferenceSet, measure_throughput
from embedding.settings import EmbeddingSettings
from embedding.tokenizer import TextTokenizer
from nearline.errors import NearlineError, NotReady, SettingsError, StoreError

_log = logging.getLogger(__name__)
_SETTINGS_EXIT_CODE = 2  # See `nearline.serving.run`.
# The golden texts are cut into batches of similar lengths, which are filled to measure a GPU.
_GPU_CUT_TOKENS = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendMeasurement:
    """Measurements of one backend over the reference texts."""

    backend: str
    min_cosine: float
    tokens_per_s: float


@dataclass(frozen=True, slots=True)
class SelectedBackend:
    """A loaded and verified backend, and its measurements."""

    backend: Backend
    figures: BackendMeasurement


async def select_backend(
    model: EmbeddingModel, settings: EmbeddingSettings, cache_folder: Path
) -> SelectedBackend:
    """Loads the backend to serve with.

    The first start converts and measures; later ones under the same conditions reuse the choice,
    and so do those that start in the meantime.

    Raises: SettingsError: no backend can be loaded with the installed packages. NotReady: no
        backend agrees with the fp32 reference. StoreError: the cache cannot be written.
    """
    prepared = Path(settings.prepared_dir) if settings.prepared_dir else None
    cache = ModelCache(cache_folder, model, prepared)
    work = _BackendSelection(model, settings, cache, cache_folder)
    file = cache.choice_file(
        {
            "candidates": work.candidates,
            "device": ",".join(settings.devices),
            "threads": settings.threads,
            "streams": settings.streams,
            "token_budget": settings.batch_tokens,
        }
    )
    kept = work.read(file)
    if kept is None:
        async with contextlib.AsyncExitStack() as stack:
            with contextlib.suppress(StoreError):
                # Services that measure at the same time would slow each other down.
                await stack.enter_async_context(cache.measuring())
            kept = work.read(file) or await _measure(work, cache, file)
    return await asyncio.to_thread(work.open, kept)


async def _measure(work: _BackendSelection, cache: ModelCache, file: Path) -> BackendMeasurement:
    """Measures all backends; returns the fastest, and keeps it in a file."""
    measured = await work.measure_all()
    fastest = max(measured, key=lambda figures: figures.tokens_per_s)
    record = {"chosen": asdict(fastest), "measured": [asdict(figures) for figures in measured]}
    try:
        cache.write(file, json.dumps(record, indent=1).encode())
    except StoreError as error:
        # With a read-only cache, as in an image, it measures at every start.
        _log.warning("choice_not_kept", extra={"reason": error.message})
    _log.info("backend_measured", extra=record)
    return fastest


class _BackendSelection:
    def __init__(
        self,
        model: EmbeddingModel,
        settings: EmbeddingSettings,
        cache: ModelCache,
        cache_folder: Path,
    ) -> None:
        self._model = model
        self._settings = settings
        self._cache = cache
        self._cache_folder = cache_folder
        self._tokenizer = TextTokenizer(model.folder, model.max_tokens)
        self.candidates = _candidates(settings)

    def is_prepared(self, name: str) -> bool:
        """Returns whether the cache has everything that this backend needs."""
        graph = not name.startswith("openvino") or self._cache.graph.is_file()
        return graph and self._cache.reference_file.is_file()

    def read(self, file: Path) -> BackendMeasurement | None:
        """Returns a choice that was kept; None if there is none, or its backend needs more."""
        kept = _read(file)
        return None if kept is None or not self.is_prepared(kept.backend) else kept

    async def measure_all(self) -> list[BackendMeasurement]:
        """Measures every candidate; skips those that cannot be loaded or differ from fp32."""
        in_subprocess = [name for name in self.candidates if name == "torch-f32"]
        others = [name for name in self.candidates if name not in in_subprocess]
        if self._settings.on_gpu or len(self.candidates) == 1:
            others, in_subprocess = self.candidates, []
        measured: list[BackendMeasurement] = []
        if in_subprocess or not all(self.is_prepared(name) for name in self.candidates):
            figures = await self._prepare(bool(in_subprocess))
            if "tokens_per_s" in figures:
                measured.append(BackendMeasurement(backend="torch-f32", **figures))
        refusals: list[NearlineError] = []
        for name in others:
            try:
                measured.append(await asyncio.to_thread(self._measure, name))
            except NearlineError as error:
                if len(self.candidates) == 1:
                    raise
                refusals.append(error)
                _log.warning("backend_left_out", extra={"backend": name, "reason": error.message})
        if not measured:
            # If all fail, it is for one reason, such as the device; report one of them.
            raise refusals[-1]
        return measured

    def open(self, kept: BackendMeasurement) -> SelectedBackend:
        """Loads the selected backend, and checks it."""
        if not self._settings.on_gpu:
            backend = self.load(kept.backend)
            return SelectedBackend(backend, replace(kept, min_cosine=self.check(backend)))
        on_gpus = self._load_on_gpus(kept.backend, self._load_substitute())
        try:
            return SelectedBackend(on_gpus, replace(kept, min_cosine=self.check(on_gpus)))
        except BaseException:
            on_gpus.fallback.close()
            raise

    def load(self, name: str) -> Backend:
        """Loads a backend of the CPU by its name."""
        engine, _, precision = name.partition("-")
        threads = self._settings.threads
        if engine == "torch":
            from embedding.torch_backend import TorchBackend

            return TorchBackend(self._model, precision, threads=threads)
        from embedding.openvino_backend import OpenVINOBackend

        return OpenVINOBackend(
            self._cache.graph, precision, threads=threads, streams=self._settings.streams
        )

    def check(self, backend: Backend) -> float:
        """Embeds the reference texts; returns the lowest cosine, or raises NotReady."""
        return reference_texts.check_vectors(
            backend.name, self._golden(backend).embed(backend), self._reference()
        )

    def _measure(self, name: str) -> BackendMeasurement:
        if self._settings.on_gpu:
            return self._measure_on_gpus(name)
        backend = self.load(name)
        min_cosine = self.check(backend)
        tokens_per_s = measure_throughput(backend, self._golden(backend))
        return BackendMeasurement(backend=name, min_cosine=min_cosine, tokens_per_s=tokens_per_s)

    def _measure_on_gpus(self, name: str) -> BackendMeasurement:
        backend = self._load_on_gpus(name, None)
        try:
            golden = self._golden(backend)
            min_cosine = self.check(backend)
            golden.fill(self._settings.batch_tokens, copies=backend.slots)
            tokens_per_s = measure_throughput(backend, golden)
        finally:
            backend.fallback.close()
        return BackendMeasurement(backend=name, min_cosine=min_cosine, tokens_per_s=tokens_per_s)

    def _load_on_gpus(self, name: str, substitute: Backend | None) -> GpuBackend:
        """Starts the workers of a model, and waits until they have started or failed."""
        sample = ReferenceSample(
            self._tokenizer, self._model.pad_id, GpuBackend.pad_multiple, self._reference()
        )
        facts = asdict(self._model)
        facts |= {"folder": str(self._model.folder), "pooling": self._model.pooling.value}
        pool = GpuPool(
            GpuModel(
                command=worker_command(),
                values={"model": facts, "precision": name.partition("-")[2]},
                sample=(sample.batch.ids, sample.batch.mask),
                problem=sample.problem,
            ),
            self._settings.devices,
            timeout_s=self._settings.gpu_timeout_s,
        )
        pool.wait_ready()
        return GpuBackend(pool, name, self._model.dim, self._model.pad_id, substitute)

    def _load_substitute(self) -> Backend:
        """Loads what stands in for the GPUs: the first engine of the CPU that agrees with fp32."""
        refusal: NearlineError = NotReady("no engine for the CPU is installed")
        for name in filter(self.is_prepared, _cpu_candidates()):
            try:
                backend = self.load(name)
                self.check(backend)
            except NearlineError as error:
                refusal = error
            else:
                return backend
        raise refusal

    def _golden(self, backend: Backend) -> ReferenceSet:
        tokens = self._settings.cpu_batch_tokens
        if isinstance(backend, GpuBackend):
            tokens = min(self._settings.batch_tokens, _GPU_CUT_TOKENS)
        return ReferenceSet(self._tokenizer, self._model.pad_id, tokens, backend.pad_multiple)

    def _reference(self) -> NDArray[np.float32]:
        reference = self._cache.reference()
        if reference is None:
            raise NotReady(
                f"{self._cache.reference_file} was removed; restart the service to create it again"
            )
        return reference

    async def _prepare(self, measure_torch: bool) -> dict[str, float]:
        """Converts in a separate process: its memory is returned, and it may load torch."""
        arguments = [
            *("--model", str(self._model.folder)),
            *("--cache-dir", str(self._cache_folder)),
            *("--token-budget", str(self._settings.batch_tokens)),
            *(["--measure"] if measure_torch else []),
        ]
        _log.info("converting", extra={"model": self._model.name})
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "embedding.convert", *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            output, errors = await process.communicate()
        except BaseException:
            process.kill()
            await process.wait()
            raise
        if process.returncode != 0:
            kind = SettingsError if process.returncode == _SETTINGS_EXIT_CODE else NotReady
            raise kind(f"model {self._model.name} could not be converted: {_last_words(errors)}")
        figures = json.loads(output.splitlines()[-1])
        return {key: value for key, value in figures.items() if isinstance(value, float)}


def _candidates(settings: EmbeddingSettings) -> list[str]:
    """Returns the names of the backends that the settings and this machine allow."""
    on_cpu = not settings.on_gpu
    has_openvino = importlib.util.find_spec("openvino") is not None
    has_torch = importlib.util.find_spec("torch") is not None
    names: list[str] = []
    if settings.backend in ("auto", "openvino") and on_cpu and has_openvino:
        from embedding.openvino_backend import has_bf16

        names += [f"openvino-{p}" for p in ("f32", "bf16") if p == "f32" or has_bf16()]
    if settings.backend in ("auto", "torch") and has_torch:
        automatic = ("f32",) if on_cpu else ("bf16", "f16", "f32")
        given = settings.precision
        names += [f"torch-{p}" for p in (automatic if given == "auto" else (given,))]
    if settings.precision != "auto":
        wanted = f"-{settings.precision}"
        names = [name for name in names if name.endswith(wanted)]
    if not names:
        raise SettingsError(
            f"backend {settings.backend} with precision {settings.precision} on device "
            f"{', '.join(settings.devices)} is not available: openvino is "
            f"{'' if has_openvino else 'not '}installed, torch is {'' if has_torch else 'not '}"
            "installed, and bf16 in OpenVINO needs a CPU with bf16; install "
            "nearline-server[embedding] or nearline-server[torch], or set --backend auto "
            "--precision auto"
        )
    return names


def _cpu_candidates() -> list[str]:
    """Returns the engines of the CPU that may stand in for GPUs, the fastest first."""
    names = ["torch-f32"]
    if importlib.util.find_spec("openvino") is not None:
        from embedding.openvino_backend import has_bf16

        names = [*(["openvino-bf16"] if has_bf16() else []), "openvino-f32", *names]
    return names


def _read(file: Path) -> BackendMeasurement | None:
    try:
        return BackendMeasurement(**json.loads(file.read_text("utf-8"))["chosen"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # There is none, or it is from another version: measure again.


def _last_words(errors: bytes, lines: int = 5) -> str:
    words: Sequence[str] = errors.decode("utf-8", "replace").strip().splitlines()
    for line in reversed(words):
        if line.startswith("{"):
            try:
                reason = json.loads(line).get("reason")
            except ValueError:
                continue
            if reason:
                return str(reason)
    return " | ".join(words[-lines:]) or "it said nothing"
