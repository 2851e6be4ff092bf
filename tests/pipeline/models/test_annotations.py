import subprocess
import sys

CHECKED = """
from jaxtyping import install_import_hook

packages = ["pipeline.batch", "pipeline.nn", "pipeline.models", "pipeline.objectives"]
with install_import_hook(packages, "beartype.beartype"):
    from pipeline.models.bert import Bert, BertConfig
    from pipeline.nn.heads import pick
    from pipeline.objectives import build_objectives
    from pipeline.objectives.masked_lm import MaskedLMConfig
    from pipeline.objectives.next_sentence import NextSentenceConfig
    from pipeline.objectives.task import PretrainingTask
    from pipeline.batch import Batch, Targets

import jaxtyping
import torch

config = BertConfig(
    family="bert", vocab_size=50, hidden_size=16, num_layers=2, num_heads=4, intermediate_size=32
)
objectives = build_objectives(
    [MaskedLMConfig(kind="masked_lm"), NextSentenceConfig(kind="next_sentence")]
)
task = PretrainingTask(Bert(config), objectives)
ids = torch.randint(5, 50, (3, 8))
positions = torch.arange(8).expand(3, 8)
for sequence_ids in (torch.ones_like(ids), (positions < 6).long()):
    batch = Batch(
        ids=ids,
        sequence_ids=sequence_ids,
        positions=positions,
        segment_ids=torch.zeros_like(ids),
        targets={
            "masked_lm": Targets(torch.tensor([1, 9]), torch.tensor([5, -100])),
            "next_sentence": Targets(torch.tensor([0, 8, 16]), torch.tensor([0, 1, 0])),
        },
    )
    loss, statistics, _ = task(batch, torch.tensor([1.0, 3.0]))
    loss.backward()
try:
    pick(torch.zeros(4, 16), torch.tensor([0]))
except jaxtyping.TypeCheckError:
    print("checked")
"""


def test_shapes_and_types_are_as_annotated() -> None:
    """In a process of its own: the hook must come before the first import."""
    result = subprocess.run(
        [sys.executable, "-c", CHECKED], capture_output=True, text=True, check=False
    )
    assert result.stdout.strip() == "checked", result.stderr
