"""What only a GPU can show. Tolerances follow from the formats; nobody has measured them yet."""

import pytest
import torch

from pipeline.batch import IGNORED, Batch, Targets


@pytest.fixture(autouse=True)
def gpu() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    return torch.device("cuda")


@pytest.fixture
def batch() -> Batch:
    """On the host: rows of 512 with 3 to 10 sequences and some padding, 15% of them targets."""
    generator = torch.Generator().manual_seed(0)
    rows, length = 8, 512
    ids = torch.randint(5, 3000, (rows, length), generator=generator)
    sequence_ids, positions = torch.zeros(2, rows, length, dtype=torch.long)
    firsts = []
    for row in range(rows):
        cuts = torch.randperm(length - 20, generator=generator)[: 3 + row].sort().values.tolist()
        for turn, (begin, end) in enumerate(zip([0, *cuts], cuts, strict=False), 1):
            sequence_ids[row, begin:end] = turn
            positions[row, begin:end] = torch.arange(end - begin)
            firsts.append(row * length + begin)
    places = (torch.rand(rows * length, generator=generator) < 0.15) & (sequence_ids.flatten() > 0)
    indices = places.nonzero().flatten()
    labels = ids.flatten()[indices]
    ids.view(-1)[indices] = 4
    answers = torch.randint(2, (len(firsts),), generator=generator)
    padding = torch.zeros(7, dtype=torch.long)
    unasked = torch.full_like(padding, IGNORED)
    return Batch(
        ids,
        sequence_ids,
        positions,
        (positions > 50).long(),
        {
            "masked_lm": Targets(torch.cat([indices, padding]), torch.cat([labels, unasked])),
            "next_sentence": Targets(
                torch.cat([torch.tensor(firsts), padding]), torch.cat([answers, unasked])
            ),
        },
    )
