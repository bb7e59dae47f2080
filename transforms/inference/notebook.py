"""Whether Beam can run in the notebook that imports our transforms: it says so at import, in one line."""

from __future__ import annotations

import importlib
import sys

INTERACTIVE = "apache_beam.runners.interactive.interactive_environment"  # Beam imports it at every `|` in IPython


def check_notebook() -> None:
    """Raises `ImportError` if this is IPython and Beam's module for it cannot be imported.

    Seen in Beam 2.77: without pandas it is missing, and with pandas 3 it asks for `DataFrame.first`.
    """
    ipython = sys.modules.get("IPython")
    if ipython is None or ipython.get_ipython() is None:
        return
    try:
        importlib.import_module(INTERACTIVE)
    except (ImportError, AttributeError) as error:
        raise ImportError(
            f"Apache Beam runs in a notebook with pandas below 3 only: pip install 'pandas<3' ({error})"
        ) from None
