"""Backends of the text encoder: torch (transformers), OpenVINO, and CTranslate2 in int8.

Each runs the same weights over token ids and returns last hidden states. Only torch packs several texts.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ...cache.distribution import explain_missing_extra
from ...cache.errors import ConfigError, TextModelError
from ...cache.format.recipe import TextRecipe
from .models import TextModelFiles
from .packing import position_ids, use_packed_attention

States = list[npt.NDArray[np.float32]]
"""Last hidden states of each text of a pack: (n_tokens, hidden_size)."""

PACK_TOKENS = {"cpu": 1024, "cuda": 16_384}
"""Tokens that run through torch together where packing pays: in bf16, and on a GPU (docs/design/008-speed.md)."""

PREPACKED = ("bert", "roberta", "xlm-roberta")
"""Model types whose linear layers :func:`prepack` knows."""


class TorchBackend:
    """The model of transformers; on a CPU with weights laid out once for oneDNN, and the GELU inside the product.

    Parameters
    ----------
    pack_tokens : tokens that may run together; None for what pays, 0 for one text at a time.
    """

    def __init__(
        self, files: TextModelFiles, recipe: TextRecipe, device: str = "cpu", pack_tokens: int | None = None
    ) -> None:
        self._device, self._bf16 = torch.device(device), recipe.precision == "bf16"
        self._model = load_model(files).to(device)
        if self._bf16:
            for module in self._model.modules():
                if isinstance(module, torch.nn.Linear):
                    module.to(torch.bfloat16)
        if pack_tokens is None:
            on_cpu_fp32 = self._device.type == "cpu" and not self._bf16
            pack_tokens = 0 if on_cpu_fp32 else PACK_TOKENS[self._device.type]
        self.pack_tokens = pack_tokens if pack_tokens and use_packed_attention(self._model) else 0
        if self._device.type == "cpu" and self._model.config.model_type in PREPACKED:
            prepack(self._model)

    def __call__(self, texts: list[list[int]]) -> States:
        lengths = [len(ids) for ids in texts]
        inputs: dict[str, Any] = {"input_ids": torch.tensor([[token for ids in texts for token in ids]])}
        if self.pack_tokens:
            inputs["position_ids"] = torch.cat([position_ids(ids, self._model) for ids in texts])[None]
        inputs = {name: value.to(self._device) for name, value in inputs.items()}
        with (
            torch.inference_mode(),
            torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._bf16),
        ):
            hidden = self._model(**inputs, **({"lengths": lengths} if self.pack_tokens else {})).last_hidden_state[0]
        return [states.numpy() for states in hidden.float().cpu().split(lengths)]


class PrepackedLinear(torch.nn.Module):
    """A frozen linear layer whose weights oneDNN has laid out once, (*, in) -> (*, out), with GELU where asked."""

    def __init__(self, linear: torch.nn.Linear, *, gelu: bool) -> None:
        super().__init__()
        self._dtype = linear.weight.dtype
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self._bias = None if linear.bias is None else linear.bias.detach()
        self._after: tuple[str, list[Any], str] = ("gelu", [], "none") if gelu else ("none", [], "")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            x.to(self._dtype), self._weight, self._bias, *self._after
        )
        return product


@torch.inference_mode()
def prepack(model: Any) -> None:
    """Replace the linear layers of a BERT or RoBERTa for the CPU, in place; do nothing in a torch without oneDNN."""
    has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not (has_onednn and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")):
        return
    exact_gelu = model.config.hidden_act == "gelu"
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.Linear):
                gelu = exact_gelu and name == "dense" and hasattr(module, "intermediate_act_fn")
                setattr(module, name, PrepackedLinear(child, gelu=gelu))
                if gelu:
                    module.intermediate_act_fn = torch.nn.Identity()


class OpenVinoBackend:
    """OpenVINO's CPU plug-in, one text at a time, on one thread: the same bits in the main process and on workers."""

    pack_tokens = 0

    def __init__(self, files: TextModelFiles, recipe: TextRecipe) -> None:
        with _extra_for("openvino"):
            # Without this entry, importing OpenVINO reports the import to its makers where their package is installed.
            sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
            import openvino
            from openvino.frontend import FrontEndManager
            from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
        frontend = FrontEndManager().load_by_framework("pytorch")
        # torch.jit.trace warns that it is deprecated, and that it records branches on shapes.
        with torch.inference_mode(), quiet_transformers(), warnings.catch_warnings(action="ignore"):
            ids = torch.zeros((1, 8), dtype=torch.long)
            traced = torch.jit.trace(  # type: ignore[no-untyped-call]
                _LastHiddenState(load_model(files)), (ids,), check_trace=False
            )
            decoder = TorchScriptPythonDecoder(traced, example_input=(ids,))  # the front end holds no reference to it
            model = frontend.convert(frontend.load(decoder))
        model.reshape(openvino.PartialShape([1, -1]))
        options = {
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[recipe.precision],
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
        }
        self._run = openvino.Core().compile_model(model, "CPU", options)

    def __call__(self, texts: list[list[int]]) -> States:
        return [np.array(self._run(np.array([ids], dtype=np.int64))[0][0], dtype=np.float32) for ids in texts]


class _LastHiddenState(torch.nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self._model = model

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self._model(
            input_ids=input_ids, attention_mask=torch.ones_like(input_ids)
        ).last_hidden_state
        return states


class CTranslate2Backend:
    """CTranslate2 with weights and activations in int8, one text at a time, on one thread."""

    pack_tokens = 0

    def __init__(self, files: TextModelFiles, recipe: TextRecipe) -> None:
        with _extra_for("ctranslate2"):
            import ctranslate2
            from ctranslate2.converters import TransformersConverter
        with tempfile.TemporaryDirectory() as scratch, quiet_transformers():
            source, converted = Path(scratch, "source"), str(Path(scratch, "converted"))
            _copy_with_positions(files.folder, source)
            try:
                TransformersConverter(str(source)).convert(converted, quantization="int8")
                self._encoder = ctranslate2.Encoder(converted, compute_type="int8", intra_threads=1)
            except Exception as error:  # its loaders raise ValueError, AssertionError, AttributeError, RuntimeError
                raise TextModelError(
                    f"{files.folder}: CTranslate2 cannot convert this model to int8: {error}. Use --text-precision "
                    "bf16 or fp32."
                ) from error

    def __call__(self, texts: list[list[int]]) -> States:
        return [np.array(self._encoder.forward_batch([ids]).last_hidden_state, dtype=np.float32)[0] for ids in texts]


def _copy_with_positions(folder: Path, target: Path) -> None:
    """Link a model's files into `target`; name the kind of its positions, which transformers 5 no longer writes."""
    target.mkdir()
    for path in folder.iterdir():
        if path.name != "config.json":
            (target / path.name).symlink_to(path.resolve())
    config = {"position_embedding_type": "absolute", **json.loads((folder / "config.json").read_text())}
    (target / "config.json").write_text(json.dumps(config))


Backend = TorchBackend | OpenVinoBackend | CTranslate2Backend


def load_backend(
    files: TextModelFiles, recipe: TextRecipe, device: str = "cpu", pack_tokens: int | None = None
) -> Backend:
    """Load the backend of `recipe`.

    Raises
    ------
    ConfigError
        If its package is not installed, or it does not run on `device`.
    TextModelError
        If it cannot load the files.
    """
    if recipe.backend == "torch":
        return TorchBackend(files, recipe, device, pack_tokens)
    if device != "cpu":
        raise ConfigError(
            f"text backend {recipe.backend}: it runs on CPUs only, not on {device}. Use --text-device cpu."
        )
    backends: dict[str, Callable[[TextModelFiles, TextRecipe], Backend]] = {
        "openvino": OpenVinoBackend,
        "ctranslate2": CTranslate2Backend,
    }
    return backends[recipe.backend](files, recipe)


def load_model(files: TextModelFiles) -> Any:
    """Load the frozen model of transformers in float32.

    Raises
    ------
    TextModelError
        If transformers cannot load the files, or weights that the states depend on are missing.
    """
    from transformers import AutoModel

    try:
        model, missing_keys = load_network(AutoModel, files.folder)
    except Exception as error:  # safetensors and transformers raise classes of their own, and bare ones
        raise TextModelError(f"{files.folder}: transformers cannot load this model: {error}") from error
    missing = [key for key in missing_keys if not key.startswith("pooler.")]  # the pooler is not used
    if missing:
        raise TextModelError(f"{files.folder}: {len(missing)} weights are not in the files, such as {missing[0]}")
    if model.config.is_encoder_decoder or model.config.hidden_size != files.hidden_size:
        raise TextModelError(
            f"{files.folder}: {model.config.model_type} is not an encoder like BERT, with one stack of states"
        )
    return model.eval().requires_grad_(False)


def load_network(network_class: Any, folder: Path) -> tuple[Any, list[str]]:
    """Load a network of transformers in float32 from a folder, without its code and without pickled weights.

    Returns
    -------
    network, missing
        The second has the names of weights that are not in the files, and are random.
    """
    with quiet_transformers():
        network, loading = network_class.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    return network, sorted(loading["missing_keys"])


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the progress bar of loading, and the report on heads that the file holds and we do not use."""
    from transformers.utils import logging as reports

    control: Any = reports  # its functions carry no annotations
    verbosity, bar = control.get_verbosity(), control.is_progress_bar_enabled()
    control.set_verbosity_error()
    control.disable_progress_bar()
    try:
        yield
    finally:
        control.set_verbosity(verbosity)
        if bar:
            control.enable_progress_bar()


@contextlib.contextmanager
def _extra_for(name: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ConfigError(f"text backend {name}: {explain_missing_extra(name, error.name or str(error))}") from error
