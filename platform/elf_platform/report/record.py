"""What a run folder holds, read for the report. Any file may be missing or unfinished: its part is then left out."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elf.files import read_object
from elf_platform.tracking import Event, load_handle, read_events, read_metrics, ui_command
from elf_platform.tracking.journal import METRICS_FILE, finite, read_lines

Line = list[tuple[float, float]]
"""(x, y) points in the order of x."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One sampled text."""

    step: int
    index: int
    text: str
    seed: int | None = None
    nfe: int | None = None
    source: str | None = None
    """What the sample was made from, in a conditional run."""
    reference: str | None = None
    """The target that the data hold for the source."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run as its files tell it."""

    name: str
    folder: Path = Path()
    tracking: str = ""
    """The command that opens the run's MLflow page; empty without one."""
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Line] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    trajectory: list[tuple[float, str]] = field(default_factory=list)
    trajectory_seed: int | None = None
    time_edges: list[float] = field(default_factory=list)
    time_counts: list[float] = field(default_factory=list)

    def line(self, name: str) -> Line:
        """The points of a metric; empty when it was never logged."""
        return self.metrics.get(name, [])

    def names(self, prefix: str) -> list[str]:
        """Metrics that begin with ``prefix``, without it, in the order of their first appearance."""
        return [name[len(prefix) :] for name in self.metrics if name.startswith(prefix) and not name.endswith(".nonfinite")]

    @property
    def eventful(self) -> bool:
        """Whether more happened than one attempt that began."""
        kinds = [event.kind for event in self.events]
        return kinds.count("attempt") > 1 or any(kind not in ("attempt", "preflight") for kind in kinds)

    def turns(self) -> list[tuple[float, str]]:
        """(step, what happened) where the curve was taken up anew: restarts, resizes, rollbacks; once for each step."""
        found: dict[int, list[str]] = {}
        attempts = 0
        for event in self.events:
            attempts += event.kind == "attempt"
            if event.kind in ("resize", "rollback"):
                found.setdefault(event.step, []).append(f"{event.kind}: {event.text}")
            elif event.kind == "attempt" and attempts > 1:
                found.setdefault(event.step, []).append(f"attempt {attempts}: {event.text}")
        return [(float(step), "; ".join(words)) for step, words in sorted(found.items())]

    def setting(self, path: str) -> Any:
        """A leaf of the configuration by its dotted path; None when it has none."""
        value: Any = self.config
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return value


def read_record(run_folder: Path, *, anywhere: bool = True) -> RunRecord:
    """Everything in a run folder that the report shows. FileNotFoundError without the folder.

    anywhere: its command is for other shells as well, see ``commands``."""
    if not run_folder.is_dir():
        raise FileNotFoundError(f"there is no run folder {run_folder}; give the folder of a run, such as STORAGE/runs/NAME")
    metrics: dict[str, Line] = {}
    for step, values in read_metrics(run_folder / METRICS_FILE):
        for name, value in values.items():
            metrics.setdefault(name, []).append((step, value))
    config, summary = read_object(run_folder / "config.json"), read_object(run_folder / "summary.json")
    trajectory = read_object(run_folder / "trajectory.json")
    handle = load_handle(run_folder)
    edges, counts = _times(read_object(run_folder / "times.json"))
    return RunRecord(
        name=str(config.get("name") or run_folder.resolve().name),
        folder=run_folder.absolute(),
        tracking=ui_command(handle, anywhere=anywhere) if handle else "",
        config=config,
        summary={
            name: value for name, value in summary.items() if value != value or finite(value) or not isinstance(value, int | float)
        },  # not a number: not defined
        metrics=metrics,
        events=read_events(run_folder),
        samples=_samples(run_folder / "samples.jsonl"),
        trajectory=_points(trajectory.get("points")),
        trajectory_seed=_whole(trajectory.get("seed")),
        time_edges=edges,
        time_counts=counts,
    )



def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _samples(path: Path) -> list[Sample]:
    """By step and index; one that was drawn again after a restart counts as drawn last."""
    found: dict[tuple[int, int], Sample] = {}
    for _, line in read_lines(path):
        step, index, text = _whole(line.get("step")), _whole(line.get("index")), line.get("text")
        if step is not None and isinstance(text, str):
            index = len(found) if index is None else index
            found[step, index] = Sample(
                step=step, index=index, text=text, seed=_whole(line.get("seed")), nfe=_whole(line.get("nfe")),
                source=_text(line.get("source")), reference=_text(line.get("reference")),
            )
    return [found[key] for key in sorted(found)]


def _points(points: Any) -> list[tuple[float, str]]:
    points = [point for point in points if isinstance(point, dict)] if isinstance(points, list) else []
    return [
        (float(point["t"]), str(point["text"])) for point in points if isinstance(point.get("t"), int | float) and "text" in point
    ]


def _times(times: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Edges and counts of the histogram; both empty unless they fit together."""
    edges, counts = times.get("edges"), times.get("counts")
    if not (isinstance(edges, list) and isinstance(counts, list) and len(edges) == len(counts) + 1 and sum(counts) > 0):
        return [], []
    return [float(edge) for edge in edges], [float(count) for count in counts]
