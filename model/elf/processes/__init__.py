"""The processes, by the name that configs and artefacts use. Adding one is one file here and one line in PROCESSES."""

from elf.processes.autoregressive import Autoregressive
from elf.processes.base import LEVELS, Loss, Process, Samples
from elf.processes.embedded_flow import EmbeddedFlow
from elf.processes.token_denoising import TokenDenoising

ProcessConfig = EmbeddedFlow | Autoregressive | TokenDenoising
PROCESSES: dict[str, type[Process]] = {p.kind: p for p in (EmbeddedFlow, Autoregressive, TokenDenoising)}

__all__ = ["LEVELS", "PROCESSES", "Autoregressive", "EmbeddedFlow", "Loss", "Process", "ProcessConfig", "Samples", "TokenDenoising"]
