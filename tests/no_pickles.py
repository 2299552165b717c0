"""Looks for pickles, which can run code when they are read, in all that a run has left."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np


def no_pickles(root: Path) -> int:
    """Refuse files that are pickles, or hold some, by name and by content; gives how many arrays were read."""
    arrays = 0
    for path in (one for one in root.rglob("*") if one.is_file() and not one.is_symlink()):
        content = path.read_bytes()
        assert not (content[:1] == b"\x80" and content[1:2] <= b"\x05" and content[-1:] == b"."), path
        assert path.suffix not in {".pkl", ".pickle", ".joblib", ".pt", ".pth"}, path
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                assert not [name for name in archive.namelist() if name.endswith((".pkl", ".pickle"))], path
        if path.suffix in {".npz", ".npy"}:
            found = np.load(path, allow_pickle=False)
            kinds = [found[name].dtype.kind for name in found.files] if path.suffix == ".npz" else [found.dtype.kind]
            assert "O" not in kinds, path
            arrays += len(kinds)
    return arrays
