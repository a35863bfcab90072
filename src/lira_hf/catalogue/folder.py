"""A folder that appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """A hidden folder beside `output` to write into; it becomes `output` when the block ends, and goes when the block fails.

    Raises ValueError where `output` exists and is no empty folder.
    """
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise ValueError(f"output: {str(output)!r} exists; give a new or empty folder")
    output.parent.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".partial", dir=output.parent))
    try:
        yield root
        root.chmod(0o755)  # mkdtemp makes folders that only their owner may read
        if output.exists():
            output.rmdir()  # empty, as checked above; not every system can rename onto it
        os.replace(root, output)
    except BaseException:  # an interrupt too: nothing half-made stays
        shutil.rmtree(root, ignore_errors=True)
        raise
