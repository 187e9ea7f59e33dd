"""Frozen Hugging Face models that read texts for a reward: loaded once, run in batches.

A model comes from outside, so that all that could make its values wrong in silence is refused
when the reward is bound: a head that was never trained, padding that the head would read.
"""

import importlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from llmalign.rewards.base import Need, Problem, Score, Services
from llmalign.verifiers import Judgement, Verdict

Kind = Literal["sequence", "token", "causal"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
OnLong = Literal["undecided", "cut_left"]

_CLASSES = {
    "sequence": "AutoModelForSequenceClassification",
    "token": "AutoModelForTokenClassification",
    "causal": "AutoModelForCausalLM",
}
_WORDS = {
    "sequence": ("ForSequenceClassification", "a sequence classifier"),
    "token": ("ForTokenClassification", "a token classifier"),
}
_UNBOUNDED = 1 << 30  # tokenizers without a limit state a huge one


@dataclass(frozen=True)
class Source:
    """Which model, and how it is held; equal sources share one model in the process."""

    kind: Kind
    model: str
    dtype: Dtype = "auto"
    device: str = "auto"
    pad_token: str | None = None


@dataclass(kw_only=True)
class FromModel:
    """Base of a reward that a frozen model pays; it needs no gold.

    Args:
        model: folder or hub name.
        max_tokens: longest text the model is given, in tokens; null: what it was built for.
        on_long: of a longer text: ``undecided``, or ``cut_left``: its first tokens are left out
            (a start token stays), with a note.
        batch_tokens: tokens of one forward pass, padding included; texts of about equal length
            go together.
        dtype: of the weights; ``auto``: bfloat16 on a GPU, else float32. A linear score head is
            always float32: rounded to bfloat16 the values of different answers tie.
        device: such as ``cuda:1``; ``auto``: a GPU where there is one.
        pad_token: what fills short texts, where the model and its tokenizer do not say.
    """

    kind: ClassVar[Kind]
    need: ClassVar[Need] = "pointwise"

    name: str
    model: str
    max_tokens: int | None = None
    on_long: OnLong = "undecided"
    batch_tokens: int = 16_384
    dtype: Dtype = "auto"
    device: str = "auto"
    pad_token: str | None = None

    def __post_init__(self) -> None:
        if not self.model.strip():
            raise ValueError("model is empty, expected a folder or a hub name")
        for option in ("max_tokens", "batch_tokens"):
            value = getattr(self, option)
            if value is not None and value < 2:
                raise ValueError(f"{option} is {value}, expected >= 2")

    @property
    def reader(self) -> "Reader":
        """The model, shared with all rewards of the same source; its weights load with the first
        text."""
        source = Source(self.kind, self.model, self.dtype, self.device, self.pad_token)
        return open_reader(source)

    @property
    def limit(self) -> int:
        """Most tokens of a text."""
        return self.reader.context if self.max_tokens is None else self.max_tokens

    def bind(self, services: Services) -> None:
        """Reads configuration and tokenizer of the model; ValueError where it cannot be used."""
        reader = self.reader
        if self.max_tokens is not None and self.max_tokens > reader.context:
            raise ValueError(
                f"reward {self.name!r}: max_tokens is {self.max_tokens}, expected <= "
                f"{reader.context}, the context of {self.model!r}; lower it or leave it out"
            )
        self.check_model(reader)

    def check_model(self, reader: "Reader") -> None:
        """Raises ValueError where options do not fit the model."""

    def check(self, problem: Problem) -> None:
        """Any problem will do."""

    def fitted(self, ids: Sequence[int]) -> tuple[list[int] | None, int]:
        """What of a text the model is given, and how many tokens were cut; None: too long."""
        excess = len(ids) - self.limit
        if excess <= 0:
            return list(ids), 0
        if self.on_long == "undecided":
            return None, excess
        head = 1 if ids[0] in self.reader.start_ids else 0
        return [*ids[:head], *ids[head + excess :]], excess

    def too_long(self, excess: int) -> Score:
        """The score of a text that does not fit."""
        length = self.limit + excess
        return self.undecided(f"the text has {length} tokens, more than max_tokens, {self.limit}")

    def undecided(self, why: str) -> Score:
        """No value, counted as undecided."""
        judgement = Judgement(Verdict.UNDECIDED, None, why)
        return Score(None, {self.name: None}, judgement, f"{self.name}: {why}")


# -- the models -----------------------------------------------------------------------------------

_READERS: dict[Source, "Reader"] = {}
_OPENING = threading.Lock()


def open_reader(source: Source) -> "Reader":
    """The one reader of ``source`` in this process.

    Raises:
        ValueError: there is no such model, it is of another kind, or its padding is ambiguous.
    """
    with _OPENING:
        if source not in _READERS:
            _READERS[source] = Reader(source)
        return _READERS[source]


class Reader:
    """A frozen model and its tokenizer: rows of token ids in, logits out; from any thread.

    Attributes:
        tokenizer: of the model.
        labels: names of the classes, by index.
        context: most tokens of a text.
        device: of the model.
        start_ids: tokens that may begin every text.
        pad_id: fills short rows.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.config = self._pretrained("AutoConfig")
        self._check_kind()
        self.tokenizer = self._pretrained("AutoTokenizer")
        names = self.config.id2label
        self.labels = [str(names[i]) for i in sorted(names)]
        text = self.config.get_text_config()
        positions = getattr(text, "max_position_embeddings", None) or _UNBOUNDED
        self.context = int(min(positions, self.tokenizer.model_max_length))
        starts = (self.tokenizer.bos_token_id, getattr(self.tokenizer, "cls_token_id", None))
        self.start_ids = {i for i in starts if i is not None}
        self.pad_id = self._pad_id(text)
        self.device = source.device if source.device != "auto" else _own_device()
        self._model: Any = None
        self._lock = threading.Lock()

    def classify(
        self,
        rows: Sequence[Sequence[int]],
        *,
        batch_tokens: int,
        types: Sequence[Sequence[int]] | None = None,
    ) -> list[list[float]]:
        """The logits of every row, by label; ``types`` says which text of a pair a token is of."""

        def read(model: Any, batch: dict[str, Any], members: Sequence[int]) -> list[list[float]]:
            if types is not None:
                batch["token_type_ids"] = self._filled([types[m] for m in members], 0)
            found: list[list[float]] = model(**batch).logits.float().tolist()
            return found

        return self._run(rows, batch_tokens, read)

    def classify_tokens(
        self,
        rows: Sequence[Sequence[int]],
        places: Sequence[Sequence[int]],
        *,
        batch_tokens: int,
        columns: Sequence[int] | None = None,
    ) -> list[list[list[float]]]:
        """The logits at some places of every row: of all labels, or of ``columns`` only."""
        torch = _module("torch")

        def read(
            model: Any, batch: dict[str, Any], members: Sequence[int]
        ) -> list[list[list[float]]]:
            wanted = sorted({place for member in members for place in places[member]})
            index = {place: i for i, place in enumerate(wanted)}
            kept = torch.tensor(wanted, device=batch["input_ids"].device)
            if self.source.kind == "causal":  # the head runs at the places only
                logits = model(**batch, logits_to_keep=kept, use_cache=False).logits
            else:
                logits = model(**batch).logits[:, kept]
            if columns is not None:
                logits = logits[..., list(columns)]
            values = logits.float().tolist()
            return [
                [values[row][index[place]] for place in places[member]]
                for row, member in enumerate(members)
            ]

        return self._run(rows, batch_tokens, read)

    def _run(self, rows: Sequence[Sequence[int]], batch_tokens: int, read: Any) -> list[Any]:
        found: list[Any] = [None] * len(rows)
        if not rows:
            return found
        torch = _module("torch")
        with self._lock, torch.inference_mode():
            if self._model is None:
                self._model = self._load()
            for members in portions([len(row) for row in rows], batch_tokens):
                batch = self._padded([rows[member] for member in members])
                values = read(self._model, batch, members)
                for member, value in zip(members, values, strict=True):
                    found[member] = value
        return found

    def _padded(self, rows: Sequence[Sequence[int]]) -> dict[str, Any]:
        seen = [[1] * len(row) for row in rows]
        return {
            "input_ids": self._filled(rows, self.pad_id),
            "attention_mask": self._filled(seen, 0),
        }

    def _filled(self, rows: Sequence[Sequence[int]], filler: int) -> Any:
        width = max(map(len, rows))
        filled = [[*row, *[filler] * (width - len(row))] for row in rows]
        return _module("torch").tensor(filled, device=self._model.device)

    # -- loading ----------------------------------------------------------------------------------

    def _pretrained(self, cls: str, failure: type[Exception] = ValueError, **options: Any) -> Any:
        try:
            loader = getattr(_module("transformers"), cls)
            return loader.from_pretrained(self.source.model, **options)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().partition("\n")[0][:200]
            raise failure(
                f"model is {self.source.model!r}, expected a folder or a hub name that "
                f"transformers can load ({reason}); check the spelling, or download it first"
            ) from error

    def _check_kind(self) -> None:
        if self.source.kind not in _WORDS:
            return
        suffix, words = _WORDS[self.source.kind]
        built = getattr(self.config, "architectures", None) or []
        if built and not any(str(name).endswith(suffix) for name in built):
            raise ValueError(
                f"model {self.source.model!r} is a {built[0]}, expected {words}; its score head "
                "would start from random numbers: name a model that was trained with one"
            )

    def _pad_id(self, text: Any) -> int:
        given, own = self.source.pad_token, getattr(text, "pad_token_id", None)
        pad, eos = self.tokenizer.pad_token_id, self.tokenizer.eos_token_id
        vocabulary = self.tokenizer.get_vocab()
        if given is not None and given not in vocabulary:
            raise ValueError(
                f"pad_token is {given!r}, expected a token of {self.source.model!r}, "
                f"such as {self.tokenizer.eos_token!r}"
            )
        if self.source.kind == "sequence" and given is None and own is None:
            self._refuse_ambiguous(pad, eos)
        known = (vocabulary.get(given) if given else None, own, pad, eos, 0)
        found = int(next(i for i in known if i is not None))
        if not 0 <= found < text.vocab_size:
            raise ValueError(
                f"the pad token of {self.source.model!r} has id {found}, expected one below its "
                f"{text.vocab_size} embeddings; set pad_token to a token it was trained with"
            )
        return found

    def _refuse_ambiguous(self, pad: int | None, eos: int | None) -> None:
        # A decoder's head reads the last token that is not padding.
        model = self.source.model
        if pad is None:
            raise ValueError(
                f"model {model!r} and its tokenizer have no pad token, expected one, because the "
                "score is read at the last token before the padding; set pad_token to a token that "
                "no text ends with"
            )
        if pad == eos:
            token = self.tokenizer.eos_token
            raise ValueError(
                f"model {model!r} has no pad_token_id and its tokenizer pads with the end token "
                f"{token!r}, expected to know which token carries the score; set pad_token to "
                f"another token (the score is read at the last token) or to {token!r} (before it)"
            )

    def _load(self) -> Any:
        torch = _module("torch")
        dtype = self.source.dtype
        if dtype == "auto":
            dtype = "bfloat16" if self.device.startswith("cuda") else "float32"
        # RuntimeErrors: a ValueError while samples are scored would only make them undecided.
        model, told = self._pretrained(
            _CLASSES[self.source.kind],
            RuntimeError,
            dtype=getattr(torch, dtype),
            output_loading_info=True,
        )
        if missing := sorted(told["missing_keys"]):
            raise RuntimeError(
                f"model {self.source.model!r} lacks trained weights of {', '.join(missing[:3])}, "
                "which would start from random numbers; name a model that was trained with them"
            )
        model.config.get_text_config().pad_token_id = self.pad_id
        model.config.pad_token_id = self.pad_id
        _exact_head(model, torch)
        return model.to(self.device).eval().requires_grad_(False)


def _own_device() -> str:
    # Asked where the reward is bound: threads that score know no current GPU of their own.
    cuda = _module("torch").cuda
    return f"cuda:{cuda.current_device()}" if cuda.is_available() else "cpu"


def _exact_head(model: Any, torch: Any) -> None:
    head = getattr(model, "score", None)
    if isinstance(head, torch.nn.Linear) and head.weight.dtype != torch.float32:
        head.float().register_forward_pre_hook(lambda _, given: (given[0].float(),))


def _module(name: str) -> Any:
    return importlib.import_module(name)  # late: importing rewards stays cheap


def portions(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Indices of rows of about equal length whose padded batch has at most ``batch_tokens``; a
    longer row goes alone."""
    portion: list[int] = []
    for width, row in sorted((length, row) for row, length in enumerate(lengths)):
        if portion and width * (len(portion) + 1) > batch_tokens:
            yield portion
            portion = []
        portion.append(row)
    if portion:
        yield portion
