"""The same vector everywhere: one trained model, by every way there is to have its embeddings, for four kinds of backbone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from client_of_hub import client_of
from huggingface_hub import HfApi
from loopback_hub import LoopbackHub
from mteb import get_task
from mteb.types import PromptType
from sentence_transformers import SentenceTransformer
from small_backbones import SENTENCES, SMALL

from lira_hf import LiraForRetrieval, LiraProcessor
from lira_hf.evaluation.mteb_encoder import LiraEncoder
from lira_hf.evaluation.retrieval import embed
from lira_hf.export import OnnxRetriever, export
from lira_hf.features import fill
from lira_hf.hub import publish_model

KINDS = ("bert", "xlm-r", "t5", "qwen3")
LANGUAGE = "vi"
# 64 texts, each with 0 to 4 candidates, some of them scored.
TEXTS = [f"{SENTENCES[i % len(SENTENCES)]} {i}" for i in range(64)]
CANDIDATES = [[f"{SENTENCES[(i + k) % 6]} {k}" for k in range(i % 5)] for i in range(64)]
SCORES = [[None if (i + k) % 3 == 0 else (1.0 + (i + k) % 10, 1.0 + i % 10, 10.0 - k) for k in range(i % 5)] for i in range(64)]
GIVEN = {"translations": CANDIDATES, "scores": SCORES, "language": LANGUAGE, "prompt_name": "query"}
TOLERANCE = {"ONNX": 1e-4}  # and 1e-5 for every other way

# Run by a Python that does not see this project, and has nothing but what was published.
ELSEWHERE = """
import json, sys
import torch
from transformers import AutoModel, AutoProcessor

names, texts, given, out = json.loads(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4]
found = {}
for name in names:
    model = AutoModel.from_pretrained(name, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(name, trust_remote_code=True)
    found[name] = model.encode(texts, processor=processor, **given)
assert not any(name.split(".")[0] in ("lira_hf", "sentence_transformers", "mteb") for name in sys.modules)
torch.save(found, out)
"""


def trained(multilingual: str, english: str) -> tuple[LiraForRetrieval, LiraProcessor]:
    """A model after a few steps on its own loss: no part of it is where it started."""
    torch.manual_seed(0)
    model = LiraForRetrieval.from_backbones(multilingual, english, **SMALL, queue="none")
    processor = LiraProcessor.from_backbones(multilingual, english, prompts={"query": {"multilingual": "query: ", "english": "find: "}})
    queries = processor(TEXTS[:16], CANDIDATES[:16], SCORES[:16], LANGUAGE, "query")
    products = processor(TEXTS[16:32], CANDIDATES[16:32], SCORES[16:32], LANGUAGE, "document")
    optimiser = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], 1e-2)
    model.train()
    for _ in range(5):
        model(**queries, products=dict(products), relevances=3 * torch.eye(16).long(), product_ids=torch.arange(16)).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.eval()
    for name, parameter in model.lira.lasr.named_parameters():
        assert torch.isfinite(parameter).all(), name
    return model, processor


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A Hub that this process's client asks, with the backbones on it."""
    with LoopbackHub(tmp_path_factory.mktemp("hub")) as hub, client_of(hub, tmp_path_factory.mktemp("home")):
        yield hub


@pytest.fixture(scope="module")
def vectors(hub, backbones, tmp_path_factory) -> dict[str, dict[str, torch.Tensor]]:
    """Kind of backbone -> way -> embeddings of TEXTS [64, D]."""
    api, found, published = HfApi(endpoint=hub.endpoint, token=hub.token), {}, {}
    for kind in KINDS:
        api.create_repo(f"org/{kind}", exist_ok=True)
        api.upload_folder(repo_id=f"org/{kind}", folder_path=backbones[kind])
    for kind, other in zip(KINDS, KINDS[1:] + KINDS[:1], strict=True):  # each kind is on both paths once
        folder = tmp_path_factory.mktemp("models") / kind
        model, processor = trained(f"org/{kind}", f"org/{other}")
        ways = found[kind] = {}
        ways["trained in memory"] = model.encode(TEXTS, processor=processor, batch_size=64, **GIVEN)
        alone = [model.encode(TEXTS[i : i + 1], processor=processor, **(GIVEN | {name: GIVEN[name][i : i + 1] for name in ("translations", "scores")}))
                 for i in range(64)]  # fmt: skip
        ways["batch of one"] = torch.cat(alone)
        for way, options in {"saved and loaded": {}, "sharded": {"max_shard_size": "20KB"}}.items():
            model.save_pretrained(folder / way, **options)
            processor.save_pretrained(folder / way)
            again, reader = LiraForRetrieval.from_pretrained(folder / way), LiraProcessor.from_pretrained(folder / way)
            ways[way] = again.encode(TEXTS, processor=reader, **GIVEN)
        assert len(list((folder / "sharded").glob("*.safetensors"))) > 3

        saved = folder / "saved and loaded"
        export(saved)
        rows = processor.check(TEXTS, CANDIDATES, SCORES, LANGUAGE)
        for row in rows:
            row.prompt = "query"
        ways["features from the cache"] = embed(model, fill(folder / "features", model.lira, processor, rows, show_progress_bar=False), rows)
        sentences = SentenceTransformer(str(saved), trust_remote_code=True)
        items = [{"text": t, "translations": c, "scores": s, "language": LANGUAGE} for t, c, s in zip(TEXTS, CANDIDATES, SCORES, strict=True)]
        ways["sentence-transformers"] = torch.from_numpy(sentences.encode_query(items))
        axes = ("semantic", "emotional", "pragmatic")
        told = [json.dumps([{"text": c, **dict(zip(axes, s or (None,) * 3, strict=True))} for c, s in zip(each, scores, strict=True)])
                for each, scores in zip(CANDIDATES, SCORES, strict=True)]  # fmt: skip
        subset = {"hf_split": "test", "hf_subset": "vie_Latn-vie_Latn", "prompt_type": PromptType.query}
        task = get_task("BelebeleRetrieval", hf_subsets=[subset["hf_subset"]]).metadata
        ways["mteb wrapper"] = LiraEncoder(model, processor).encode([{"text": TEXTS, "translations": told}], task_metadata=task, **subset)

        for way, kept in {"remote code": "embedded", "by reference": "reference"}.items():
            published[kind, way] = f"org/lira-{kind}-{kept}"
            publish_model(saved, published[kind, way], backbones=kept, progress=False)
        by_reference = LiraForRetrieval.from_pretrained(published[kind, "by reference"])
        reader = LiraProcessor.from_pretrained(published[kind, "by reference"])
        ways["by reference"] = by_reference.encode(TEXTS, processor=reader, **GIVEN)
        graph = OnnxRetriever(api.hf_hub_download(published[kind, "remote code"], "onnx/model.onnx"))
        ways["ONNX"] = graph(**processor(TEXTS, CANDIDATES, SCORES, LANGUAGE, "query")).embeddings
        shutil.rmtree(folder / "sharded")

    elsewhere = tmp_path_factory.mktemp("elsewhere")
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(elsewhere / "home")}
    done = subprocess.run(
        [sys.executable, "-I", "-c", ELSEWHERE, json.dumps(list(published.values())), json.dumps(TEXTS), json.dumps(GIVEN), str(elsewhere / "found.pt")],
        cwd=elsewhere, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for (kind, way), name in published.items():
        found[kind]["remote code" if way == "remote code" else "by reference, remote code"] = torch.load(elsewhere / "found.pt")[name]
    return found


@pytest.mark.slow
def test_same_vector_everywhere(vectors, capsys):
    ways = list(dict.fromkeys(way for found in vectors.values() for way in found))
    differences = {kind: {way: float((found[way] - found["trained in memory"]).abs().max()) for way in ways[1:]} for kind, found in vectors.items()}
    lines = [f"{'largest difference from the model in memory':45}" + "".join(f"{kind:>10}" for kind in KINDS)]
    lines += [f"{way:45}" + "".join(f"{differences[kind][way]:10.1e}" for kind in KINDS) for way in ways[1:]]
    with capsys.disabled():
        sys.stderr.write("\n" + "\n".join(lines) + "\n")  # not to stdout, which several test processes do not share
    for kind, found in vectors.items():
        assert len(found) == 11 and all(each.dtype == torch.float32 and each.shape == (64, found["ONNX"].shape[1]) for each in found.values())
        for way, difference in differences[kind].items():
            assert difference < TOLERANCE.get(way, 1e-5), (kind, way)


@pytest.mark.slow
def test_the_vectors_depend_on_all_that_is_given(vectors):
    """Else equal vectors would prove little."""
    for kind, found in vectors.items():
        assert torch.pdist(found["trained in memory"]).min() > 1e-3, kind
