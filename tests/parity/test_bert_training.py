import pytest
import torch
import transformers

from pipeline.batch import IGNORED, Batch, Targets
from pipeline.huggingface.bert import config_to_huggingface, name_table
from pipeline.huggingface.tokenizer import TokenizerInfo
from pipeline.models.bert import Bert, BertConfig
from pipeline.objectives import build_objectives
from pipeline.objectives.masked_lm import MaskedLMConfig
from pipeline.objectives.next_sentence import NextSentenceConfig
from pipeline.objectives.task import PretrainingTask

STEPS = 20
VOCAB = 60
CONFIG = BertConfig(
    family="bert",
    vocab_size=VOCAB,
    hidden_size=32,
    num_layers=2,
    num_heads=4,
    intermediate_size=64,
    dropout=0.0,
    attention_dropout=0.0,
)
LENGTHS = (9, 6, 12, 4)
LENGTH = 16


def sequences(step: int) -> list[dict[str, torch.Tensor]]:
    """Pairs of segments with labels at some tokens."""
    generator = torch.Generator().manual_seed(step)
    made = []
    for length in LENGTHS:
        ids = torch.randint(1, VOCAB, (length,), generator=generator)
        labels = torch.randint(1, VOCAB, (length,), generator=generator)
        labels[torch.rand(length, generator=generator) < 0.6] = IGNORED
        labels[1] = 7
        segments = (torch.arange(length) >= length // 2).long()
        follows = torch.randint(0, 2, (1,), generator=generator)
        made.append({"ids": ids, "labels": labels, "segments": segments, "follows": follows})
    return made


def padded(parts: list[torch.Tensor], value: int = 0) -> torch.Tensor:
    row = torch.cat(parts)
    return torch.nn.functional.pad(row, (0, LENGTH - len(row)), value=value)


def packed(pairs: list[list[dict[str, torch.Tensor]]]) -> Batch:
    """Each pair of sequences in one row; targets padded to a static count."""

    def column(make) -> torch.Tensor:
        return torch.stack([padded([make(n, s) for n, s in enumerate(pair)]) for pair in pairs])

    labels = torch.stack([padded([s["labels"] for s in pair], IGNORED) for pair in pairs]).flatten()
    places = (labels != IGNORED).nonzero().flatten()
    places = torch.nn.functional.pad(places, (0, 40 - len(places)))
    real = torch.arange(40) < (labels != IGNORED).sum()
    firsts = [
        row * LENGTH + start for row, p in enumerate(pairs) for start in (0, len(p[0]["ids"]))
    ]
    return Batch(
        ids=column(lambda n, s: s["ids"]),
        sequence_ids=column(lambda n, s: torch.full_like(s["ids"], n + 1)),
        positions=column(lambda n, s: torch.arange(len(s["ids"]))),
        segment_ids=column(lambda n, s: s["segments"]),
        targets={
            "masked_lm": Targets(places, labels[places].masked_fill(~real, IGNORED)),
            "next_sentence": Targets(
                torch.tensor(firsts), torch.cat([s["follows"] for p in pairs for s in p])
            ),
        },
    )


def train_ours(start: dict[str, torch.Tensor]) -> tuple[list[float], Bert]:
    """One row a micro-batch, two micro-batches a step, packed."""
    model = Bert(CONFIG)
    model.load_state_dict(start)
    objectives = [MaskedLMConfig(kind="masked_lm"), NextSentenceConfig(kind="next_sentence")]
    task = PretrainingTask(model, build_objectives(objectives))
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-3, eps=1e-6, weight_decay=0.01)
    losses = []
    for step in range(STEPS):
        a, b, c, d = sequences(step)
        batches = [packed([[a, b]]), packed([[c, d]])]
        counts = torch.tensor(
            [
                float(sum((batch.targets[name].labels != IGNORED).sum() for batch in batches))
                for name in task.objective_names
            ]
        )
        optimizer.zero_grad()
        total = 0.0
        for batch in batches:
            loss, *_ = task(batch, counts)
            loss.backward()
            total += loss.item()
        optimizer.step()
        losses.append(total)
    return losses, model


def train_theirs(model: transformers.BertForPreTraining) -> list[float]:
    """All sequences of a step in one padded batch."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, eps=1e-6, weight_decay=0.01)
    losses = []
    for step in range(STEPS):
        made = sequences(step)
        optimizer.zero_grad()
        loss = model(
            input_ids=torch.stack([padded([s["ids"]]) for s in made]),
            token_type_ids=torch.stack([padded([s["segments"]]) for s in made]),
            attention_mask=torch.stack([padded([torch.ones_like(s["ids"])]) for s in made]),
            labels=torch.stack([padded([s["labels"]], IGNORED) for s in made]),
            next_sentence_label=torch.cat([s["follows"] for s in made]),
        ).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_training_packed_is_training_transformers_unpacked() -> None:
    fields = config_to_huggingface(CONFIG, TokenizerInfo(VOCAB, {}, {"pad_token": 0}, True))
    torch.manual_seed(0)
    theirs = transformers.BertForPreTraining(transformers.BertConfig(**fields)).train()
    table = name_table(CONFIG)
    shapes = {name: tensor.shape for name, tensor in Bert(CONFIG).state_dict().items()}
    ours_losses, ours = train_ours(table.from_huggingface(theirs.state_dict(), shapes))
    theirs_losses = train_theirs(theirs)
    assert ours_losses == pytest.approx(theirs_losses, abs=1e-5)  # measured: 6e-7
    assert ours_losses[-1] < ours_losses[0] - 0.1
    # Measured: 1.2e-7.
    after = table.from_huggingface(theirs.state_dict(), shapes)
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, after[name], atol=1e-5, rtol=0, msg=name)
