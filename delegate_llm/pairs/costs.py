"""What a token costs a model: an estimate of its floating-point operations.

A multiply and an add count as two. Per token: twice the weights it is multiplied with (of a mixture of
experts, the active ones), and attention over what it looks back on. Norms, activations and softmax are
left out; they are a percent or two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from delegate_llm.pairs.seam import Meter

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ("Costs",)


_REPLACED: Final = ".original_module."
"""In the names of weights for which an adapter of PEFT brings others."""


@dataclass(frozen=True, slots=True)
class Costs:
    """FLOPs by kind of work."""

    body: float
    """For each token read."""
    head: float
    """For each position whose logits are wanted."""
    look_back: float
    """For each token read and each token it attends to."""

    @classmethod
    def of(cls, model: PreTrainedModel) -> Costs:
        """The costs of a model, from its weights and configuration; of one with an adapter, with that."""
        config = model.config.get_text_config(decoder=True)
        table = model.get_input_embeddings().weight
        output = model.get_output_embeddings()
        head = table if output is None else output.weight
        active = _active_experts(config)
        weights = sum(
            each.numel() * (active if ".experts." in name else 1.0)
            for name, each in model.named_parameters()
            if each is not table and each is not head and _REPLACED not in name
        )
        heads = _setting(config, "num_attention_heads")
        size = _setting(config, "head_dim") or (config.hidden_size // heads if heads else 0)
        layers = _setting(config, "num_hidden_layers")
        return cls(2.0 * weights, 2.0 * head.numel(), 4.0 * layers * heads * size)

    @property
    def step(self) -> float:
        """For one token and its logits, without attention."""
        return self.body + self.head

    def charge(self, meter: Meter, start: int, tokens: int, kept: int) -> None:
        """Book one forward over `tokens` tokens behind `start`, with `kept` rows of logits."""
        if not tokens:
            return
        seen = tokens * start + tokens * (tokens + 1) / 2
        meter.forwards += 1
        meter.tokens += tokens
        meter.flops += tokens * self.body + kept * self.head + seen * self.look_back


def _active_experts(config: object) -> float:
    """The share of a mixture's experts that a token visits; 1 for a dense model."""
    for total in ("num_experts", "num_local_experts", "n_routed_experts"):
        count = _setting(config, total)
        if count:
            return (_setting(config, "num_experts_per_tok") or count) / count
    return 1.0


def _setting(config: object, name: str) -> int:
    """A number of a configuration; 0 where it has none, or one for each layer."""
    try:
        return int(getattr(config, name, None) or 0)
    except Exception:  # noqa: BLE001 - transformers' own kinds of error; this is an estimate
        return 0
