"""A score record in the tracking store: one run a record, found again when the same is scored again."""

from pathlib import Path

from elf_platform.config import TrackingConfig
from elf_platform.evaluate.record import ScoreRecord, facts_key
from elf_platform.tracking import finish, open_run, start_tracker, ui_command


def track_record(record: ScoreRecord, path: Path, *, storage: Path, tracking: TrackingConfig) -> str:
    """Log facts as params, scores with their intervals as metrics, and the record itself; returns the command that opens the run.

    A store that is down costs a line of warning: the figures wait in the storage (jobs/track.py flush)."""
    if tracking.kind != "mlflow":
        return ""
    facts = {name: str(value) for name, value in record.facts().items()}
    folder = storage / "scores" / f".tracking-{facts_key(record)}"
    folder.mkdir(parents=True, exist_ok=True)
    handle = open_run(
        tracking, storage=storage, run_folder=folder, run_name=f"score-{record.name}", params=facts,
        tags={"kind": "score", "artefact": str(record.sampling.get("artefact", "")), "code_version": record.code_version},
    )
    metrics = {}
    for row, scores in {"": record.scores, **record.beside}.items():
        prefix = f"score/{row}/" if row else "score/"
        for name, score in scores.items():
            metrics[prefix + name] = score.value
            if score.low is not None and score.high is not None:
                metrics |= {f"{prefix}{name}/low": score.low, f"{prefix}{name}/high": score.high}
    tracker = start_tracker(handle, folder)
    tracker.log(0, metrics)
    tracker.close()
    finish(handle, folder, "FINISHED", [path.expanduser().absolute()])
    return ui_command(handle)
