"""Products of few tokens with large float32 weights on a CPU.

Drafts and small batches are read a few tokens at a time. For 4 to 15 of them the product with a large matrix
takes torch's CPU build much longer than reading the matrix once would, since MKL rearranges it for each
product as it would for hundreds of tokens. Cut in slices of a few rows, which copies nothing, it is a batch
of small products that are made where it lies. The result is the same up to rounding. On other
devices, in other types, and for fewer or more tokens, everything stays as torch does it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Final

import torch
from torch import Tensor, nn

__all__ = ("SlicedProducts",)

_SLICE: Final = 32  # rows of a matrix; of 16, 32, 64, and 128 the best on one machine
_TOKENS: Final = range(4, 16)
_LARGE: Final = 1 << 19  # numbers; smaller matrices stay in a cache


class SlicedProducts:
    """Has the large linear layers of a model multiply few tokens slice by slice.

    Nothing else may run the model meanwhile.
    """

    def __init__(self, model: nn.Module, *, large: int = _LARGE) -> None:
        """Look at the model once; where none of its layers gains, do nothing.

        Args:
            model: Ready to run.
            large: Numbers in a matrix from which on it is sliced.
        """
        linear = [each for each in model.modules() if isinstance(each, nn.Linear)]
        self._layers = [(vars(each), _forward_of(each)) for each in linear if _gains(each, large)]

    def over(self, tokens: int) -> AbstractContextManager[None]:
        """A context to run the model in over a block of so many tokens."""
        return self._sliced() if self._layers and tokens in _TOKENS else contextlib.nullcontext()

    @contextlib.contextmanager
    def _sliced(self) -> Iterator[None]:
        for own, forward in self._layers:
            own["forward"] = forward
        try:
            yield
        finally:
            for own, _forward in self._layers:
                del own["forward"]


def _gains(layer: nn.Linear, large: int) -> bool:
    """Whether a layer is large enough, and neither what it does nor how it keeps its weights was changed."""
    weight = layer.weight
    return (
        torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
        and type(layer) is nn.Linear
        and "forward" not in vars(layer)
        and type(weight) is nn.Parameter
        and weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and weight.is_contiguous()
        and weight.numel() >= large
        and not len(weight) % _SLICE
    )


def _forward_of(layer: nn.Linear) -> Callable[[Tensor], Tensor]:
    """What the layer does instead, from tokens `[..., inputs]` to `[..., outputs]`."""
    outputs, inputs = layer.weight.shape
    slices = outputs // _SLICE

    def forward(tokens: Tensor) -> Tensor:
        count = tokens.numel() // inputs
        if count not in _TOKENS:
            return nn.functional.linear(tokens, layer.weight, layer.bias)
        matrices = layer.weight.view(slices, _SLICE, inputs).transpose(1, 2)
        products = torch.bmm(tokens.reshape(1, count, inputs).expand(slices, -1, -1), matrices)
        output = products.transpose(0, 1).reshape(*tokens.shape[:-1], outputs)
        return output if layer.bias is None else output + layer.bias

    return forward
