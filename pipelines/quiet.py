"""Keeps Beam's own chatter off the screen: what it logs while it sets itself up says nothing about the run."""

from __future__ import annotations

import logging
import os

SILENT = logging.CRITICAL + 1
BEAM_FOLDER = f"{os.sep}apache_beam{os.sep}"


def quiet_logging(prefix: str = "", beam_level: int = logging.ERROR) -> None:
    """Logs warnings of everybody but Beam to stderr, and from Beam what is at or above `beam_level`.

    Call it before Beam is imported: Beam logs at import. A root logger that has handlers already is left alone.
    """
    root = logging.getLogger()
    if root.handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"{prefix}%(levelname)s: %(message)s"))
    handler.setLevel(logging.WARNING)
    handler.addFilter(lambda record: BEAM_FOLDER not in record.pathname or record.levelno >= beam_level)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("gcsfs").setLevel(SILENT)  # a traceback for each failure; ours are reasons of failed shards
