"""Imported by the server that cells fork from, and by nobody else: does there, once, what each cell would do anew."""

from __future__ import annotations

import gc
import os
from pathlib import Path

from lab.checking import prepared
from lab.runner.executors.rehearsal import rehearse
from lab.runner.executors.server import SUITES

if SUITES in os.environ:
    rehearse()
    prepared.ahead(Path(os.environ[SUITES]))
    # A collection in a cell would write to every object that it shares with the server, and so copy all its memory.
    gc.collect()
    gc.freeze()
