import pytest
import torch

from pipeline.batch import Batch, Targets


@pytest.fixture
def batch() -> Batch:
    """Two rows: two packed sequences with padding, and one full sequence."""
    return Batch(
        ids=torch.tensor([[2, 7, 8, 3, 2, 9, 3, 0], [2, 5, 6, 7, 3, 8, 9, 3]]),
        sequence_ids=torch.tensor([[1, 1, 1, 1, 2, 2, 2, 0], [1] * 8]),
        positions=torch.tensor([[0, 1, 2, 3, 0, 1, 2, 0], list(range(8))]),
        segment_ids=torch.tensor([[0, 0, 1, 1, 0, 0, 1, 0], [0, 0, 0, 0, 0, 1, 1, 1]]),
        targets={
            "masked_lm": Targets(
                torch.tensor([1, 5, 10, 13, 0, 0]), torch.tensor([7, 9, 6, 8, -100, -100])
            ),
            "next_sentence": Targets(torch.tensor([0, 4, 8, 0]), torch.tensor([0, 1, 1, -100])),
        },
    )
