"""`lira-hf export`: a model for retrieval as one ONNX graph, both backbones and LiRA's head, that onnxruntime runs on LiraProcessor's batches.

OUTPUT/model.onnx        float32, checked against the model before it is kept; past 2 GB the weights lie in model.onnx.data
OUTPUT/model_int8.onnx   the backbones' weights in 8 bits, activations quantised as they come
OUTPUT/export.json       of which weights they are: `lira-hf push` refuses graphs of others
"""

from __future__ import annotations

import logging
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from lira_hf.catalogue.backbone_text import pairs
from lira_hf.collation import SPLITS, RetrievalData, read
from lira_hf.evaluation.laz import benchmark_name
from lira_hf.evaluation.retrieval import Scoreboard, score, summary
from lira_hf.evaluation.systems import open_lira
from lira_hf.languages import ENGLISH, LANGUAGES, check_languages
from lira_hf.modeling import LiraForRetrieval, LiraProcessor
from lira_hf.modeling.arca_lira import sentence_pooling, temporal_pooling
from lira_hf.modeling.modeling_lira import LiraModel, LiraModelOutput
from lira_hf.modeling.processing_lira import Row
from lira_hf.reporting import keep, print_table, results, unlist, weights_of, write_json

try:
    import onnx
    import onnxruntime
    import onnxscript  # noqa: F401  torch.onnx writes with it
    from onnxruntime.quantization import QuantType, quantize_dynamic
except ImportError as error:
    raise ValueError("export: onnx, onnxruntime or onnxscript is missing; pip install 'lira-hf[onnx]'") from error

GRAPH, INT8, RECORD = "model.onnx", "model_int8.onnx", "export.json"
FILES = {name + end for name in (GRAPH, INT8) for end in ("", ".data")}
TOLERANCE = 1e-4  # the largest difference of any number of an embedding that an export may have
INLINE = 2**31 - 2**26  # bytes of weights that fit into one protobuf file, beside the graph itself
SIZES = {"batch": 2, "candidates": 3, "text_length": 5, "candidate_length": 7}  # of the example that is traced; all of them stay free
INPUTS = {
    "multilingual_input_ids": ("batch", "text_length"),
    "multilingual_attention_mask": ("batch", "text_length"),
    "english_input_ids": ("batch", "candidates", "candidate_length"),
    "english_attention_mask": ("batch", "candidates", "candidate_length"),
    "candidate_mask": ("batch", "candidates"),
    "translation_scores": ("batch", "candidates", 3),
    "language_ids": ("batch",),
}


# ---- the graph -----------------------------------------------------------------------------------------------------------


class RetrievalGraph(nn.Module):
    """LiraForRetrieval's embeddings without a shape that depends on values: every one of the B rows and B K candidates is encoded.

    A row without a token, or a candidate that only pads, shows its backbone one padding token, because attention to nothing is not
    defined, and comes out as zeros, as from LiraModel.encode_path."""

    def __init__(self, lira: LiraModel):
        super().__init__()
        self.lira = lira

    def forward(
        self,
        multilingual_input_ids: Tensor,
        multilingual_attention_mask: Tensor,
        english_input_ids: Tensor,
        english_attention_mask: Tensor,
        candidate_mask: Tensor,
        translation_scores: Tensor,
        language_ids: Tensor,
    ) -> Tensor:
        """The batch of LiraProcessor (see there) -> embeddings [B, d_out]."""
        text = multilingual_attention_mask.bool()
        features = {"candidate_mask": candidate_mask, "translation_scores": translation_scores, "language_ids": language_ids}
        features["text_mask"] = text.any(-1)
        features["multilingual_features"], features["multilingual_pooled"] = self.encode("multilingual", multilingual_input_ids, text)
        mask = english_attention_mask.bool() & candidate_mask[..., None]
        bins, pooled = self.encode("english", english_input_ids.flatten(0, 1), mask.flatten(0, 1))
        features["english_features"] = bins.unflatten(0, candidate_mask.shape)  # [B, K, S, d_h]
        features["english_pooled"] = pooled.unflatten(0, candidate_mask.shape)
        return self.lira.fuse(features).embeddings

    def encode(self, path: str, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """ids and bool mask [N, L] -> bins [N, S, h] and sentence vectors [N, h]."""
        there = mask.any(-1, keepdim=True)  # [N, 1]
        first = torch.arange(mask.shape[1], device=mask.device) == 0
        states = getattr(self.lira, path)(input_ids=ids, attention_mask=(mask | (first & ~there)).long()).last_hidden_state
        pooled = sentence_pooling(states, mask, getattr(self.lira.config, f"{path}_pooling"))
        return temporal_pooling(states, mask, self.lira.config.num_bins), pooled * there


def write_graph(model: LiraForRetrieval, path: Path) -> None:
    """Writes model, in float32 on the CPU, as an ONNX graph. Raises ValueError where a backbone cannot be exported."""
    dims = [{axis: torch.export.Dim.DYNAMIC for axis, size in enumerate(sizes) if isinstance(size, str)} for sizes in INPUTS.values()]
    kinds = {"candidate_mask": torch.bool, "translation_scores": torch.float32}
    example = {name: torch.ones([SIZES.get(size, size) for size in sizes], dtype=kinds.get(name, torch.long)) for name, sizes in INPUTS.items()}
    example["language_ids"].zero_()
    try:
        with torch.no_grad(), plain_layers(), quiet():
            traced = torch.export.export(RetrievalGraph(model.lira).eval(), (), example, dynamic_shapes=dict(zip(INPUTS, dims, strict=True)))
            program = torch.onnx.export(traced, dynamo=True, output_names=["embeddings"], verbose=False)
    except Exception as error:  # each backbone that cannot be traced fails in its own way
        backbones = " and ".join(config.model_type for config in (model.config.multilingual_config, model.config.english_config))
        raise ValueError(f"model: around {backbones} it cannot be exported ({type(error).__name__}: {str(error).strip()[:300]})") from error
    names = {dim: name for value in program.model.graph.inputs for dim, name in zip(value.shape, INPUTS[value.name], strict=True)}
    program.rename_axes({dim: name for dim, name in names.items() if isinstance(name, str)})
    program.save(path, external_data=weight_bytes(model) > INLINE)


def weight_bytes(model: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))


@contextmanager
def quiet() -> Iterator[None]:
    """Without what exporters say about themselves."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


@contextmanager
def plain_layers() -> Iterator[None]:
    """Without the fused layer of nn.TransformerEncoder, which ONNX does not have."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


# ---- running it ----------------------------------------------------------------------------------------------------------


class OnnxRetriever(nn.Module):
    """An exported graph in the place of LiraForRetrieval, where only embeddings are asked for: onnxruntime, on the CPU."""

    device = torch.device("cpu")

    def __init__(self, path: str | Path):
        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()  # as many as the model it is compared with
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def forward(self, **batch: Tensor) -> LiraModelOutput:
        """A batch of LiraProcessor -> output with embeddings [B, d_out] alone."""
        (embeddings,) = self.session.run(["embeddings"], {name: batch[name].numpy() for name in INPUTS})
        return LiraModelOutput(embeddings=torch.from_numpy(embeddings))


def sample_rows(count: int = 40) -> list[Row]:
    """Rows in all languages with 0 to 4 candidates, some of them scored, and some rows without a text."""
    texts = pairs([*LANGUAGES, ENGLISH.code], count)
    english = [anchor for code, anchor, _ in texts if code == ENGLISH.code]
    rows = []
    for i, (code, text, _) in enumerate(texts):
        candidates = [english[(i + k) % len(english)] for k in range(i % 5)]
        scores = [None if (i + k) % 3 == 0 else (1.0 + (i + k) % 10, 1.0 + i % 10, 10.0 - k) for k in range(len(candidates))]
        rows.append(Row(None if candidates and i % 4 == 3 else text, candidates, scores, code))
    return rows


@torch.no_grad()
def largest_difference(model: LiraForRetrieval, processor: LiraProcessor, path: Path) -> float:
    """Of any number of any embedding of sample_rows between model and graph, which reads them together and some of them alone."""
    rows, graph = sample_rows(), OnnxRetriever(path)
    expected = model(**processor.batch(rows)).embeddings
    together = graph(**processor.batch(rows)).embeddings
    alone = torch.cat([graph(**processor.batch([row])).embeddings for row in rows[:10]])
    differences = torch.cat([together - expected, alone - expected[:10]]).abs()
    return float(differences.nan_to_num(torch.inf).max())


# ---- the command ---------------------------------------------------------------------------------------------------------


def export(
    model_folder: str | Path,
    output: str | Path | None = None,
    int8: bool = False,
    data_folder: str | Path | None = None,
    split: str = "test",
    languages: list[str] | None = None,
    show_progress_bar: bool = True,
) -> dict:
    """Writes the graph, whole or not at all, and returns {"folder", "difference", "files": {name: bytes}}.

    Args:
        model_folder: of any head; the graph gives the embeddings of LiraForRetrieval, in float32 whatever the weights are saved in.
        output: folder, MODEL/onnx where None; an earlier export there is replaced.
        int8: also write the graph with 8-bit weights.
        data_folder, split, languages: a LazRetrieval folder to measure model and graphs on: MODEL/results/onnx.json.
    Raises ValueError for bad input, for a model that cannot be exported, and where the graph differs from the model by over 1e-4."""
    if split not in SPLITS:
        raise ValueError(f"split: {split!r} is not known; allowed: {', '.join(SPLITS)}")
    folder = Path(model_folder) / "onnx" if output is None else Path(output)
    if folder.exists() and not (folder.is_dir() and {path.name for path in folder.iterdir()} <= {*FILES, RECORD}):
        raise ValueError(f"output: {str(folder)!r} holds something else than an export; give a new folder")
    data = [read(data_folder, code, split) for code in check_languages(languages)] if data_folder is not None else []
    weights = weights_of(model_folder)
    model, processor = open_lira(model_folder)
    model = model.float().eval()

    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        write_graph(model, part / GRAPH)
        difference = largest_difference(model, processor, part / GRAPH)
        if difference > TOLERANCE:
            raise ValueError(f"model: the graph of {str(model_folder)!r} differs from it by {difference:.1e}, over {TOLERANCE}; nothing is kept")
        if int8:
            quantise(part / GRAPH, part / INT8)
        files = {path.name: path.stat().st_size for path in sorted(part.iterdir())}
        write_json(part / RECORD, {"weights": weights})
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    if output is None:
        unlist(model_folder, "onnx")
    if data:
        measured = measure(model, processor, folder, data, show_progress_bar)
        found = results(**measured, benchmark=benchmark_name(data_folder, split), model=str(model_folder), seeds=[], files=files)
        keep(found, model_folder, "onnx")
        print_table(found)
    return {"folder": folder, "difference": difference, "files": files}


def quantise(source: Path, target: Path) -> None:
    """The graph with 8-bit weights in the layers and embedding tables of its backbones. LiRA's own part stays as it is: it is small, and
    its actor chooses between candidates that may be close."""
    nodes = onnx.load(source, load_external_data=False).graph.node
    scopes = {node.name: {entry.key: entry.value for entry in node.metadata_props}.get("pkg.torch.onnx.name_scopes", "") for node in nodes}
    with quiet():
        quantize_dynamic(
            source,
            target,
            nodes_to_quantize=[name for name, scope in scopes.items() if "'lira.multilingual'" in scope or "'lira.english'" in scope],
            per_channel=True,
            reduce_range=True,  # else sums of products overflow, silently, on x86 processors without VNNI
            weight_type=QuantType.QInt8,
            use_external_data_format=source.with_name(source.name + ".data").exists(),
        )


def measure(model: LiraForRetrieval, processor: LiraProcessor, folder: Path, data: list[RetrievalData], show_progress_bar: bool = True) -> dict:
    """{"systems", "speed"}: nDCG@10 of the model as `lira` and of each graph in folder, and how many times as fast as the model it is."""
    paths = {"onnx": folder / GRAPH, "onnx_int8": folder / INT8}
    systems = {"lira": model} | {name: OnnxRetriever(path) for name, path in paths.items() if path.exists()}
    board = Scoreboard()
    for name, system in tqdm(systems.items(), desc="measure", disable=not show_progress_bar):
        board.add(name, summary(score(system, processor, data), data))
    return {"systems": board.systems(), "speed": speed(systems, processor, [query.row for part in data for query in part.queries])}


@torch.no_grad()
def speed(systems: Mapping[str, nn.Module], processor: LiraProcessor, rows: list[Row], batch_size: int = 32, rounds: int = 11) -> dict:
    """How many times as fast as `lira` each system embeds the same batches, both in turn: the median over rounds, the lowest and highest."""
    rows = rows[:: max(1, len(rows) // 256)][:256]
    batches = [processor.batch(rows[start : start + batch_size]) for start in range(0, len(rows), batch_size)]
    seconds = {name: [] for name in systems}
    for _ in range(rounds + 1):
        for name, system in systems.items():
            started = time.perf_counter()
            for batch in batches:
                system(**batch)
            seconds[name].append(time.perf_counter() - started)
    found = {"batch_size": batch_size, "rows": len(rows), "threads": torch.get_num_threads(), "rounds": rounds, "ratio": {}}
    for name in list(systems)[1:]:
        ratios = [lira / own for lira, own in zip(seconds["lira"][1:], seconds[name][1:], strict=True)]  # the first round warms up
        found["ratio"][name] = {"median": round(median(ratios), 3), "lowest": round(min(ratios), 3), "highest": round(max(ratios), 3)}
    return found
