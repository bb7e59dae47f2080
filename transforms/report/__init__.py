"""The report of an output folder: one page about what came out (`gather.py`, `page.py`), for `vqbeam report`."""
