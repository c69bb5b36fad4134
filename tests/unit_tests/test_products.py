"""Slices of a matrix multiply few tokens as the whole does, and leave a model as it was."""

from __future__ import annotations

import pytest
import torch
from models import SIZE, random_model
from torch import nn

from delegate_llm.pairs.products import SlicedProducts

MKL = torch.backends.mkl.is_available()


def layers(outputs: int = 64, *, bias: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(48, outputs, bias=bias), nn.Linear(outputs, 32, bias=bias)).eval()


def sliced(model: nn.Module, tokens: int) -> int:
    """How many layers are sliced in a block of so many tokens."""
    with SlicedProducts(model, large=0).over(tokens):
        return sum("forward" in vars(each) for each in model.modules())


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 4), (1, 15), (3, 4), (5, 1), (8,), (1, 1), (2, 100)])
@torch.inference_mode()
def test_sliced_products_are_the_whole_ones_up_to_rounding(shape: tuple[int, ...], *, bias: bool) -> None:
    model, tokens = layers(bias=bias), torch.randn(*shape, 48)
    whole = model(tokens)
    with SlicedProducts(model, large=0).over(8):  # more or fewer tokens than the block may reach a layer
        part = model(tokens)
    torch.testing.assert_close(part, whole, rtol=1e-5, atol=1e-5)
    assert part.shape == whole.shape


@pytest.mark.skipif(not MKL, reason="only what torch multiplies with MKL is sliced, and it is built without")
@pytest.mark.parametrize(("tokens", "count"), [(1, 0), (3, 0), (4, 2), (15, 2), (16, 0), (500, 0)])
def test_only_blocks_of_few_tokens_are_sliced(tokens: int, count: int) -> None:
    assert sliced(layers(), tokens) == count


@pytest.mark.skipif(not MKL, reason="only what torch multiplies with MKL is sliced, and it is built without")
def test_layers_that_would_not_gain_or_are_not_plain_stay_as_they_are() -> None:
    assert sliced(layers(outputs=50), 8) == 1  # 50 rows are no whole number of slices
    assert sliced(layers().to(torch.bfloat16), 8) == 0
    hooked = layers()
    hooked[0].forward = hooked[0].forward  # as accelerate's hooks do
    assert sliced(hooked, 8) == 2
    assert "forward" in vars(hooked[0])
    model = random_model("llama", 0)
    with SlicedProducts(model).over(8):
        assert not any("forward" in vars(each) for each in model.modules())


def test_a_model_is_left_as_it_was_also_after_an_error() -> None:
    model = random_model("qwen3", 0)
    with pytest.raises(ZeroDivisionError), SlicedProducts(model, large=0).over(8):
        raise ZeroDivisionError
    assert not any("forward" in vars(each) for each in model.modules())


@torch.inference_mode()
def test_new_weights_in_an_old_layer_are_the_ones_that_count() -> None:
    model = random_model("llama", 0)
    products, ids = SlicedProducts(model, large=0), torch.randint(0, SIZE, (1, 8))
    model.model.layers[0].mlp.down_proj.weight = nn.Parameter(torch.randn(32, 48))
    with products.over(8):
        part = model(ids).logits
    torch.testing.assert_close(part, model(ids).logits, rtol=1e-4, atol=1e-4)
