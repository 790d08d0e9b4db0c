"""Imported by the server that cells fork from, and by nobody else: does there, once, what each cell would do anew."""

from __future__ import annotations

import gc
import os
from pathlib import Path

from lab.checking import prepared
from lab.results.documents import CellDocument
from lab.results.record import Record
from lab.runner.executors.server import SUITES

if SUITES in os.environ:
    prepared.ahead(Path(os.environ[SUITES]))
    for model in (CellDocument, Record):
        model.model_rebuild()  # its validator is made when first used, for `lab --help` uses none
    # A collection in a cell would write to every object that it shares with the server, and so copy all its memory.
    gc.collect()
    gc.freeze()
