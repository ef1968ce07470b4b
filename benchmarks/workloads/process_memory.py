"""The memory of a process, and the most that it had."""

from __future__ import annotations

from pathlib import Path


def memory(pid: int, name: str) -> int:
    """Returns a figure of the memory of a process in bytes: VmRSS, or the peak VmHWM."""
    text = Path(f"/proc/{pid}/status").read_text("utf-8")
    return int(text.partition(f"{name}:")[2].split()[0]) << 10


def forget_peak(pid: int) -> None:
    """Makes the kernel measure the peak from now on; see proc_pid_clear_refs(5)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
