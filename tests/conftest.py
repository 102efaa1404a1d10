"""Shared settings of the tests."""

import torch

# tiny models: a second thread costs more than it brings, above all beside another process
torch.set_num_threads(1)
