"""What a checkpoint says of the run that it comes from, and whether that is the run that would go on from it.

Two networks of equal shapes hold different weights: tensors that fit prove nothing.
"""

from collections.abc import Mapping
from typing import Any

from elf_platform.config import RunConfig
from elf_platform.config_io import from_record, to_record
from elf_platform.identity import training_differences
from elf_platform.train.checkpoint import Checkpoint


def lineage_of(config: RunConfig, *, data: str, codec: str | None, code_version: str, tracking_run: str) -> dict[str, Any]:
    """The part of state.json that says whose it is. data, codec: fingerprints."""
    return {"config": to_record(config), "data": data, "codec": codec, "code_version": code_version, "tracking_run": tracking_run}


def check_lineage(checkpoint: Checkpoint, lineage: Mapping[str, Any], config: RunConfig | None) -> None:
    """Raises ValueError, naming what differs, when the checkpoint is of other settings that decide what is trained, of other data or of
    another codec. What a checkpoint of an older version does not say is taken as right. The name is no part of it: with all of these the
    same it is the same training, as in a run folder that was renamed.

    config: None where the folder itself is named after all that decides it."""
    state, found = checkpoint.state, []
    if config is not None and state.get("config"):
        try:
            old = from_record(state["config"])
        except ValueError as error:
            raise ValueError(f"the configuration in {checkpoint.folder / 'state.json'} cannot be read: {error}") from error
        found += training_differences(old, config)
    for name in ("data", "codec"):
        if state.get(name) and lineage[name] and state[name] != lineage[name]:
            found.append(f"{name}: {state[name][:12]} -> {lineage[name][:12]}")
    if found:
        raise ValueError(
            f"the checkpoint {checkpoint.folder} was made by another run than the one that would go on from it ({'; '.join(found)}). A "
            "run goes on with its own settings and data; only its number of steps, rhythm, places and workers may change. Go back to "
            "what the checkpoint says, put this run's own checkpoints back, or remove the folder to go on from the one before it"
        )
