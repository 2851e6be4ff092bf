"""The other side of ``training.py`` and ``families.py``: models of transformers in training.

:class:`Corpus` feeds them in the ways of ``run_mlm``: texts are tokenized line by line, ``[CLS]``
and ``[SEP]`` around each; 15% of the tokens are masked by ``DataCollatorForLanguageModeling``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch
import transformers
from torch import Tensor

SPECIAL = {"cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "unk": "[UNK]", "mask": "[MASK]"}


class Corpus:
    """Lines as ids, in the order of the text."""

    def __init__(self, text: Path, tokenizer: Path) -> None:
        special = {f"{name}_token": piece for name, piece in SPECIAL.items()}
        self.tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_file=str(tokenizer), model_max_length=10**6, **special
        )
        lines = [line for line in text.read_text(encoding="utf-8").splitlines() if line.strip()]
        inside = self.tokenizer(lines, add_special_tokens=False)["input_ids"]
        first, last = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        self.lines = [[first, *ids, last] for ids in inside]

    def packed(self, rows: int, length: int) -> Iterator[dict[str, Tensor]]:
        """Full rows: all lines joined and cut, whatever they cross; there is no padding."""
        joined = torch.tensor(list(itertools.chain.from_iterable(self.lines)))
        num_batches = len(joined) // (rows * length)
        for cut in joined[: num_batches * rows * length].view(num_batches, rows, length):
            batch = self._masked(cut.tolist())
            del batch["attention_mask"]  # of ones: without it attention needs no mask
            yield batch

    def by_line(self, tokens: int, length: int) -> Iterator[dict[str, Tensor]]:
        """A line a row, cut off at ``length``; as many rows as hold about so many real tokens."""
        chosen = [ids[: length - 1] + ids[-1:] if len(ids) > length else ids for ids in self.lines]
        order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(1)).tolist()
        mean = sum(map(len, chosen)) / len(chosen)
        rows = max(1, round(tokens / mean))
        for begin in range(0, len(order) - rows + 1, rows):
            yield self._masked([chosen[index] for index in order[begin : begin + rows]])

    def _masked(self, rows: Sequence[list[int]]) -> dict[str, Tensor]:
        collate = transformers.DataCollatorForLanguageModeling(self.tokenizer, mlm_probability=0.15)
        return dict(collate([{"input_ids": ids} for ids in rows]))


class Peer:
    """One of their models in training, and fused AdamW."""

    def __init__(
        self,
        kind: type[transformers.PreTrainedModel],
        config: transformers.PretrainedConfig,
        device: torch.device,
        rate: float,
    ) -> None:
        config._attn_implementation = "sdpa"
        self._device = device
        self._model = kind(config).to(device).train()
        self._optimizer = torch.optim.AdamW(self._model.parameters(), lr=rate, fused=True)

    def stepping(self, batches: Iterable[dict[str, Tensor]]) -> Callable[[], int]:
        """Training steps on batches in turn; each returns its real tokens."""
        turns = itertools.cycle(
            [
                ({name: t.to(self._device) for name, t in batch.items()}, real_tokens(batch))
                for batch in batches
            ]
        )

        def step() -> int:
            batch, real = next(turns)
            gpu = self._device.type == "cuda"
            with torch.autocast(self._device.type, torch.bfloat16, enabled=gpu):
                loss = self._model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
            self._optimizer.step()
            self._optimizer.zero_grad()
            if gpu:
                torch.cuda.synchronize(self._device)
            return real

        return step


def real_tokens(batch: dict[str, Tensor]) -> int:
    """Tokens that are no padding."""
    mask = batch.get("attention_mask")
    return batch["input_ids"].numel() if mask is None else int(mask.sum())
