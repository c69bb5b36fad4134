"""Shared settings of the test suite."""

import torch
from hypothesis import settings

torch.set_num_threads(1)  # tiny models lose time to more
settings.register_profile("suite", print_blob=True, derandomize=True)
settings.load_profile("suite")
