"""The proof of an exported folder: transformers computes from it what our model computes."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.batch import Batch, Targets
from pipeline.huggingface.form import Answer
from pipeline.huggingface.tokenizer import framed_tokenizer
from pipeline.models import ModelConfig, build_model
from pipeline.nn.scores import logits
from preprocessing.tokenizers.models import SentencePieceModel
from preprocessing.vocabulary import Vocabulary

TOLERANCE = 1e-5
"""The largest difference of an fp32 logit that passes."""

TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "  runs  of   spaces,\nlines \t and a last one ",
    "Ünïcode façades, ＦＵＬＬ width, 東京 and emoji 🙂; hy-phens, 3.14 and\tTABS!",
    "[CLS] special [MASK] tokens [SEP] as text",
)


class ExportError(RuntimeError):
    """An exported folder does not compute what the model computes."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Transformers without progress bars and advice: what is wrong is raised here."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def compare_tokenizers(ours: Path, folder: Path, *, segments: bool) -> None:
    """Require equal ids for probe texts, alone and as pairs, with the special tokens around them.

    Args:
        segments: whether the folder says of each token which segment it belongs to.

    Raises:
        ExportError: with the text and both lists of ids.
    """
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(folder)
    vocabulary = Vocabulary.load(ours)
    # In a text a special token's name is text. Their reading of a .model takes it for a piece.
    texts = TEXTS[:-1] if isinstance(vocabulary.model, SentencePieceModel) else TEXTS
    for text, pair in itertools.product(texts, (None, TEXTS[0])):
        given = theirs(text, pair, split_special_tokens=True)
        ids, numbers = _framed(vocabulary, text, pair)
        _require_equal("ids", text, pair, given["input_ids"], ids)
        if segments != ("token_type_ids" in given):
            raise ExportError(
                f"the tokenizer {'does not say' if segments else 'says'} which segment a token "
                f"belongs to, and the model has {'several' if segments else 'only one'}"
            )
        if segments:
            _require_equal("segments", text, pair, given["token_type_ids"], numbers)


def _framed(vocabulary: Vocabulary, text: str, pair: str | None) -> tuple[list[int], list[int]]:
    """Our ids and segments, with special tokens around them."""
    if framed_tokenizer(vocabulary.directory) is None:
        encoding = vocabulary.tokenizer.encode(text, pair)
        return encoding.ids, encoding.type_ids
    ids, numbers = [vocabulary.start_id], [0]
    for number, own in enumerate(vocabulary.encode([text] if pair is None else [text, pair])):
        ids += [*own, vocabulary.separator_id]
        numbers += [number] * (len(own) + 1)
    return ids, numbers


def _require_equal(
    what: str, text: str, pair: str | None, given: list[int], expected: list[int]
) -> None:
    if given != expected:
        raise ExportError(
            f"the tokenizer gives other {what} for {text!r} (pair: {pair!r}): "
            f"{given}, ours {expected}"
        )


@dataclass(frozen=True)
class Probe:
    """A row of two packed sequences and padding, and the same sequences in rows of their own.

    Attributes:
        batch: the packed row, without targets.
        everywhere, firsts: all its real positions, and the first of each sequence.
        ids, segment_ids, lengths: the sequences, padded.
    """

    batch: Batch
    everywhere: Targets
    firsts: Targets
    ids: Int[Tensor, "sequences length"]
    segment_ids: Int[Tensor, "sequences length"]
    lengths: tuple[int, ...]


def make_probe(vocab_size: int, max_positions: int, num_segments: int) -> Probe:
    """Random ids in all segments; always the same."""
    generator = torch.Generator().manual_seed(0)
    lengths = (min(max_positions, 24), min(max_positions, 13))
    padding = 3
    # RoBERTa pads with 1, and gives that token no position wherever it stands.
    drawn = [torch.randint(0, vocab_size, (n,), generator=generator) for n in lengths]
    ids = [own.masked_fill(own == 1, 2) for own in drawn]
    segments = [(torch.arange(n) * num_segments) // n for n in lengths]
    positions = [torch.arange(n) for n in lengths]
    numbers = [torch.full((n,), number) for number, n in enumerate(lengths, start=1)]

    def row(parts: list[Tensor]) -> Tensor:
        return torch.cat([*parts, torch.zeros(padding, dtype=torch.long)]).unsqueeze(0)

    everywhere = torch.arange(sum(lengths))
    firsts = torch.tensor([sum(lengths[:i]) for i in range(len(lengths))])
    batch = Batch(
        ids=row(ids),
        sequence_ids=row(numbers),
        positions=row(positions),
        segment_ids=row(segments),
    )
    return Probe(
        batch,
        Targets(everywhere, torch.zeros_like(everywhere)),
        Targets(firsts, torch.zeros_like(firsts)),
        torch.nn.utils.rnn.pad_sequence(ids, batch_first=True),
        torch.nn.utils.rnn.pad_sequence(segments, batch_first=True),
        lengths,
    )


def compare_logits(
    config: ModelConfig, state: Mapping[str, Tensor], folder: Path, answers: Mapping[str, Answer]
) -> float:
    """Load the folder with transformers and require our logits, in fp32 on the CPU.

    Ours come from one packed row, theirs from a padded row for each sequence.

    Args:
        state: our ``state_dict``.
        answers: our output -> where theirs stands.

    Returns:
        The largest difference of a logit.

    Raises:
        ExportError: a tensor did not fit, or a logit differs by more than ``TOLERANCE`` (relative
            to the largest logit where that is above 1).
    """
    probe = make_probe(config.vocab_size, config.max_positions, config.num_segments)
    theirs = _their_logits(load_strictly(folder), probe, answers)
    with torch.device("meta"):  # no weights are drawn: the generator of a training stays as it is
        model = build_model(config)
    whole = {name: tensor.detach().to("cpu", torch.float32) for name, tensor in state.items()}
    model.load_state_dict(whole, assign=True)
    places = {True: probe.firsts, False: probe.everywhere}
    targets = {name: places[answer.per_sequence] for name, answer in answers.items()}
    with torch.no_grad():
        given = model.eval()(replace(probe.batch, targets=targets))
        ours = {name: logits(given[name]) for name in answers}
    differences = {name: float((ours[name] - theirs[name]).abs().max()) for name in answers}
    for name, difference in differences.items():
        bound = TOLERANCE * max(1.0, theirs[name].abs().max().item())
        if not difference <= bound:
            raise ExportError(
                f"{name}: logits differ by {difference:.3g} from those of transformers, "
                f"which is more than {bound:.3g}"
            )
    return max(differences.values())


def load_strictly(folder: Path) -> Any:
    """The folder as the class it names, where every tensor fits.

    Raises:
        ExportError: naming each tensor that is missing, unexpected or mismatched.
    """
    import transformers

    fields = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    architecture = getattr(transformers, fields["architectures"][0])
    model, info = architecture.from_pretrained(folder, output_loading_info=True)
    faults = [f"{kind}: {sorted(map(str, names))}" for kind, names in info.items() if names]
    if faults:
        raise ExportError(
            "transformers does not load the weights as they are: " + "; ".join(faults)
        )
    return model.eval()


def _their_logits(
    model: Any, probe: Probe, answers: Mapping[str, Answer]
) -> dict[str, Float[Tensor, "targets classes"]]:
    lengths = torch.tensor(probe.lengths).unsqueeze(1)
    real = torch.arange(probe.ids.shape[1]) < lengths
    with torch.no_grad():
        given = model(
            input_ids=probe.ids, token_type_ids=probe.segment_ids, attention_mask=real.long()
        )
    said = {name: getattr(given, answer.field) for name, answer in answers.items()}
    return {
        name: said[name] if answer.per_sequence else said[name][real]
        for name, answer in answers.items()
    }
