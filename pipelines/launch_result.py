"""How a pipeline ended, whichever runner it was."""

from __future__ import annotations

from dataclasses import dataclass

from apache_beam.runners.runner import PipelineState

from pipelines.stopping import exit_code

SUBMITTED = "SUBMITTED"


@dataclass(frozen=True)
class LaunchResult:
    """`state` is Beam's word for how it ended, "STOPPED" after a signal, or "SUBMITTED" if only a template, a dry run
    or an executable was asked for. `reason` is a line that says why it failed, if the runner does not raise that."""

    state: str
    stop_signal: int | None = None
    reason: str = ""

    @property
    def exit_code(self) -> int:
        """0 if the pipeline ended well, 1 if it did not, 130 or 143 after a signal."""
        if self.stop_signal is not None:
            return exit_code(self.stop_signal)
        return 0 if self.state in (PipelineState.DONE, SUBMITTED) else 1
