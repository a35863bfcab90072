"""The code files beside the weights: a process that has only transformers and torch opens a published folder."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import loopback_hub
import pytest
import torch
from client_of_hub import client_of
from huggingface_hub import HfApi
from loopback_hub import LoopbackHub
from small_backbones import SENTENCES, SMALL, stirred
from transformers.dynamic_module_utils import get_relative_import_files

from lira_hf import LiraForPreTraining, modeling

FOLDER = Path(modeling.__file__).parent
SHIPPED = sorted(path for path in FOLDER.glob("*.py") if path.name != "__init__.py")
INPUT = {
    "text": SENTENCES[6:10], "translations": [["tv 55 inch", "black tv"], ["red dress"], [], ["rice cooker", "pot"]],
    "scores": [[[9, 8, 7], [5, 5, 5]], [None], None, [[3, 3, 3], [8, 8, 8]]], "language": ["th", "th", "vi", "tlh"],
}  # fmt: skip

# Run by a Python that does not see this project: -I ignores the environment's paths and the working directory.
OPEN = """
import json, sys
sys.modules["sentence_transformers"] = None  # as where it is not installed
import torch
from transformers import AutoConfig, AutoModel, AutoModelForPreTraining, AutoModelForSequenceClassification, AutoProcessor

source, target, given = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
found = {}
for name, folder in (("published", source), ("saved again", target)):
    trusted = dict(trust_remote_code=True)
    config = AutoConfig.from_pretrained(folder, **trusted)
    processor = AutoProcessor.from_pretrained(folder, **trusted)
    model, report = AutoModel.from_pretrained(folder, output_loading_info=True, **trusted)
    stage_1 = AutoModelForPreTraining.from_pretrained(folder, **trusted)
    ranker = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, **trusted)
    batch = processor(**given)
    with torch.no_grad():
        found[name] = {
            "embeddings": model(**batch).embeddings.tolist(),
            "encoded": model.encode(given["text"], processor=processor, **{k: given[k] for k in ("translations", "scores", "language")}).tolist(),
            "logits": stage_1(**batch, return_loss=False).actor_logits.nan_to_num(neginf=-99.0).tolist(),
            "loss": stage_1(**batch).loss.item(),
            "predicted": ranker.predict(given["text"], given["text"][::-1], processor=processor, language=given["language"])[:, 0].tolist(),
        }
    found[name]["classes"] = [type(each).__name__ for each in (config, processor, model, stage_1, ranker)]
    found[name]["report"] = [sorted(keys) for keys in report.values()]
    found[name]["modules"] = sorted({type(each).__module__.split(".")[0] for each in (config, processor, model, stage_1, ranker)})
    if name == "published":
        model.save_pretrained(target)
        processor.save_pretrained(target)
found["lira_hf"] = "lira_hf" in sys.modules
print("FOUND" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def opened(backbones, processor, tmp_path_factory):
    """What a clean process found in a published folder and in its own copy of it; and what is expected."""
    folder, workplace = tmp_path_factory.mktemp("published"), tmp_path_factory.mktemp("elsewhere")
    torch.manual_seed(0)
    stage_1 = stirred(LiraForPreTraining.from_backbones(backbones["xlm-r"], backbones["bert"], **SMALL))
    stage_1.save_pretrained(folder)
    processor.save_pretrained(folder)
    environment = {**os.environ, "HF_MODULES_CACHE": str(workplace / "modules"), "HF_HOME": str(workplace / "home")}
    result = subprocess.run(
        [sys.executable, "-I", "-c", OPEN, str(folder), str(workplace / "again"), json.dumps(INPUT)],
        cwd=workplace, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    found = json.loads(next(line for line in result.stdout.splitlines() if line.startswith("FOUND"))[5:])
    found["warned"] = [line for line in result.stderr.splitlines() if line.startswith("[transformers]")]
    return found, stage_1, folder, workplace / "again"


def test_a_clean_process_opens_every_auto_class_without_this_package(opened):
    found = opened[0]
    assert found["lira_hf"] is False
    for name in ("published", "saved again"):
        assert found[name]["classes"] == ["LiraConfig", "LiraProcessor", "LiraForRetrieval", "LiraForPreTraining", "LiraForSequenceClassification"]
        assert found[name]["modules"] == ["transformers_modules"]
        assert not any(found[name]["report"])


def test_a_clean_process_is_warned_of_nothing_but_heads_that_were_not_trained(opened):
    assert all("newly initialized" in line or "LOAD REPORT" in line for line in opened[0]["warned"]), opened[0]["warned"]


def test_a_clean_process_computes_what_this_one_does(opened, processor):
    found, stage_1, _, _ = opened
    batch = processor(**INPUT)
    with torch.no_grad():
        expected = stage_1.lira(**batch).embeddings
        ranked = torch.nn.functional.cosine_similarity(
            *(stage_1.lira(**processor(list(INPUT["text"])[::way], language=INPUT["language"])).embeddings for way in (1, -1))
        )
        loss, logits = stage_1(**batch).loss.item(), stage_1(**batch).actor_logits.nan_to_num(neginf=-99.0)
    for name in ("published", "saved again"):
        torch.testing.assert_close(torch.tensor(found[name]["embeddings"]), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(torch.tensor(found[name]["encoded"]), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(torch.tensor(found[name]["logits"]), logits, atol=1e-5, rtol=0)
        torch.testing.assert_close(torch.tensor(found[name]["predicted"]), ranked, atol=1e-5, rtol=0)  # an untrained head: the cosine
        assert found[name]["loss"] == pytest.approx(loss, abs=1e-5)


def test_both_folders_hold_the_code_and_the_whole_auto_map(opened):
    *_, folder, again = opened
    for each in (folder, again):
        assert {path.name for path in each.glob("*.py")} == {path.name for path in SHIPPED}
        for path in SHIPPED:
            assert (each / path.name).read_text() == path.read_text()
        assert json.loads((each / "config.json").read_text())["auto_map"] == modeling.AUTO_MAP
        assert json.loads((each / "processor_config.json").read_text())["auto_map"]["AutoProcessor"] == modeling.AUTO_MAP["AutoProcessor"]
    assert {path.name for path in folder.iterdir()} == {path.name for path in again.iterdir()}


# ---- a wrong byte on the way ---------------------------------------------------------------------------------------------

FROM_THE_HUB = """
from transformers import AutoModel, AutoProcessor
trusted, found = dict(trust_remote_code=True), []
for _ in range({calls}):
    try:
        processor = AutoProcessor.from_pretrained("org/lira", **trusted) if {first!r} == "processor" else None
        model = AutoModel.from_pretrained("org/lira", **trusted)
        processor = processor or AutoProcessor.from_pretrained("org/lira", **trusted)
        found.append(model.encode({texts!r}, processor=processor, language="th").tolist())
    except OSError as error:
        found.append(str(error))
answer(found)
"""


@pytest.fixture(scope="module")
def hub(opened, tmp_path_factory):
    with LoopbackHub(tmp_path_factory.mktemp("hub")) as hub:
        with client_of(hub, tmp_path_factory.mktemp("publisher")):
            api = HfApi(endpoint=hub.endpoint, token=hub.token)
            api.create_repo("org/lira")
            api.upload_folder(repo_id="org/lira", folder_path=opened[2])
        yield hub


def from_the_hub(hub, home, first="model", calls=1, **variables):
    return hub.client(FROM_THE_HUB.format(first=first, calls=calls, texts=INPUT["text"]), home, **{"HF_HUB_OFFLINE": "0"} | variables)


CONFIGURED = ("config.json", b'"correction_scale": 1.0', b'"correction_scale": 0.0')
COMPUTED = ("lasr_lira.py", b"base + self", b"base - self")
DEFAULT = ("configuration_lira.py", b"correction_scale: float = 1.0", b"correction_scale: float = 0.0")
PROCESSED = ("processing_lira.py", b"index(row.language) + 1", b"index(row.language) - 1")


@pytest.mark.parametrize(
    "wrong, first, refused",
    [((CONFIGURED, COMPUTED), "model", False), ((DEFAULT,), "model", True), ((PROCESSED,), "processor", True)],
    ids=["before it is used", "configuration in use", "processor in use"],
)
def test_a_wrong_byte_of_what_transformers_downloads_gives_no_other_vectors(wrong, first, refused, hub, opened, processor, tmp_path, monkeypatch):
    def flipped(data: bytes) -> bytes:
        for _, right, other in wrong:
            data = data.replace(right, other, 1)
        return data

    monkeypatch.setattr(loopback_hub, "flipped", flipped)
    hub.reset()
    met = [hub.add_fault("corrupt", match=f"/resolve/.*/{file}", method="GET") for file, _, _ in wrong]
    found = from_the_hub(hub, tmp_path, first, 2 if refused else 1)
    assert [fault.hits for fault in met] == [1] * len(wrong) and all(right in (opened[2] / file).read_bytes() for file, right, _ in wrong)
    if refused:  # it was imported before any code of ours could look at it
        assert f"{wrong[0][0]}: not whole when it was imported" in found[0]
    expected = opened[1].lira(**processor(INPUT["text"], language="th")).embeddings.detach()
    torch.testing.assert_close(torch.tensor(found[-1]), expected, atol=1e-5, rtol=0)
    if not refused:
        assert from_the_hub(hub, tmp_path, HF_HUB_OFFLINE="1") == found  # what was kept is right


# ---- the files themselves ------------------------------------------------------------------------------------------------

ALLOWED = {"torch", "transformers", "huggingface_hub"} | sys.stdlib_module_names


MODULE_OF_SENTENCE_TRANSFORMERS = "sentence_transformer_lira"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_files_import_nothing_that_a_clean_process_lacks(path):
    tree = ast.parse(path.read_text())
    top = set(map(id, tree.body))
    never_run = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    named = {id(inner) for node in never_run for inner in node.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= ALLOWED, ast.unparse(node)
        elif isinstance(node, ast.ImportFrom) and path.stem == MODULE_OF_SENTENCE_TRANSFORMERS and node.module.startswith("sentence_transformers."):
            continue
        elif isinstance(node, ast.ImportFrom) and node.level:
            assert id(node) in (named if node.module == MODULE_OF_SENTENCE_TRANSFORMERS else top), ast.unparse(node)
            assert id(node) in top | named, f"not at the top of the file: {ast.unparse(node)}"
            assert node.level == 1 and node.module and "." not in node.module and all(alias.name != "*" for alias in node.names), ast.unparse(node)
            assert (path.parent / f"{node.module}.py") in SHIPPED, ast.unparse(node)
        elif isinstance(node, ast.ImportFrom):
            assert node.module.split(".")[0] in ALLOWED, ast.unparse(node)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_transformers_own_scan_for_relative_imports_finds_existing_files_only(path):
    found = [Path(file) for file in get_relative_import_files(path)]
    assert set(found) <= set(SHIPPED), found
    if path.name == "modeling_lira.py":
        assert {file.name for file in found} == {file.name for file in SHIPPED} - {"modeling_lira.py", "processing_lira.py", "tokenizers_lira.py"}


def test_the_auto_map_names_classes_that_exist():
    for entry in modeling.AUTO_MAP.values():
        module, name = entry.split(".")
        tree = ast.parse((FOLDER / f"{module}.py").read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
