"""Parts of vLLM's attention metadata, held to what vLLM would have made of a smaller batch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("vllm", reason="vLLM is not installed in this environment; `make test-vllm` makes one")

from vllm.v1.attention.backend import CommonAttentionMetadata

from delegate_llm.vllm_plugin.attention import of_answers, of_next_tokens, tokens_of

BLOCKS = 4


def metadata(answers):
    """Of answers told by their number, their tokens in the step, and those before it."""
    numbers, new, before = (torch.tensor(each, dtype=torch.int32) for each in zip(*answers, strict=True))
    bounds = torch.cat([torch.zeros(1, dtype=torch.int32), new.cumsum(0).int()])
    slots = [100 * number + at for number, count, _ in answers for at in range(count)]
    positions = [start + at for _, count, start in answers for at in range(count)]
    return CommonAttentionMetadata(
        query_start_loc=bounds,
        query_start_loc_cpu=bounds,
        seq_lens=new + before,
        num_reqs=len(answers),
        num_actual_tokens=int(new.sum()),
        max_query_len=int(new.max()),
        max_seq_len=1000,
        block_table_tensor=numbers.unsqueeze(1) * BLOCKS + torch.arange(BLOCKS, dtype=torch.int32),
        slot_mapping=torch.tensor(slots),
        positions=torch.tensor(positions),
        is_prefilling=before == 0,
        seq_lens_cpu_upper_bound=new + before,
        req_idx=numbers.numpy(),
    )


def facts(attention):
    return {
        name: value.tolist() if isinstance(value, torch.Tensor | np.ndarray) else value
        for name, value in vars(attention).items()
    }


@st.composite
def batches(draw):
    sizes = draw(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 50)), min_size=1, max_size=6))
    answers = [(number, *size) for number, size in enumerate(sizes)]
    chosen = draw(st.sets(st.sampled_from(range(len(answers))), min_size=1))
    return answers, np.array(sorted(chosen))


@given(batches())
def test_some_answers_are_as_if_no_others_were_there(batch):
    answers, chosen = batch
    whole = metadata(answers)
    whole.compute_num_computed_tokens()  # vLLM keeps it, and it is of the whole batch
    bounds = whole.query_start_loc.numpy()
    tokens = tokens_of(chosen, bounds)

    part = of_answers(whole, chosen, tokens, bounds)

    alone = metadata([answers[at] for at in chosen])
    assert facts(part) == facts(alone)
    assert part.compute_num_computed_tokens().tolist() == [answers[at][2] for at in chosen]
    assert whole.slot_mapping[torch.from_numpy(tokens)].tolist() == alone.slot_mapping.tolist()


@given(batches(), st.data())
def test_next_tokens_follow_what_stands(batch, data):
    answers, _ = batch
    whole = metadata(answers)
    before = facts(whole)
    rejected = torch.tensor([data.draw(st.integers(0, new - 1)) for _, new, _ in answers], dtype=torch.int32)

    following = of_next_tokens(whole, rejected, torch.arange(64, dtype=torch.int32))

    assert following.seq_lens.tolist() == (whole.seq_lens - rejected).tolist()
    assert following.query_start_loc.tolist() == list(range(len(answers) + 1))
    assert following.query_start_loc_cpu.tolist() == list(range(len(answers) + 1))
    assert (following.num_actual_tokens, following.max_query_len) == (len(answers), 1)
    following.seq_lens += 1  # as drafting does
    assert facts(whole) == before
    of_next_tokens(whole, None, torch.arange(64, dtype=torch.int32)).seq_lens.add_(1)
    assert facts(whole) == before
