"""Run as a file by lira_hf.hub.verification, in a Python of its own: opens a published model as a stranger does, and compares.

python -I clean_room.py HUB_LIRA REPO_ID REVISION REPORT: HUB_LIRA is the file with `fetch`, REVISION may be empty, REPORT is written as JSON:
{"commit", "versions", "refused": why nothing could be had, or None, "rows": [[what, found, difference or None, failure or None]]}.
Imports only torch, transformers, the standard library."""

import importlib.util
import json
import sys

import torch
import transformers

CLASSES = ("AutoModel", "AutoModelForPreTraining", "AutoModelForSequenceClassification", "AutoModelForCausalLM")


def main(hub_lira: str, repo_id: str, revision: str, report: str) -> None:
    sys.modules["lira_hf"] = None  # importing it fails, also where it is installed
    spec = importlib.util.spec_from_file_location("hub_lira", hub_lira)
    hub = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hub)
    found = {"versions": {"torch": torch.__version__, "transformers": transformers.__version__}, "commit": None, "refused": None, "rows": []}
    try:
        folder = hub.fetch(repo_id, revision=revision or None)
    except OSError as error:
        if hub.refused(error.__cause__ or error):
            found["refused"] = str(error)
        else:
            found["rows"].append(["download", "", None, str(error)])
    else:
        found["commit"] = folder.name
        compare(hub, folder, repo_id, found["rows"])
    with open(report, "w", encoding="utf-8") as file:
        json.dump(found, file)


def compare(hub, folder, repo_id: str, rows: list) -> None:
    where = {"revision": folder.name, "trust_remote_code": True}
    config = processor = None

    def row(what: str, attempt) -> None:
        try:
            rows.append([what, *attempt(), None])
        except Exception as error:  # whatever a published file makes happen belongs in the report
            rows.append([what, "", None, f"{type(error).__name__}: {' '.join(str(error).split())}"])

    def checksums():
        if not (folder / hub.CHECKSUMS).is_file():
            raise ValueError("missing; push with `lira-hf push`")
        hub.check_files(folder)
        return f"{len(json.loads((folder / hub.CHECKSUMS).read_text(encoding='utf-8'))['sha256'])} files", None

    def expected():
        nonlocal vectors
        if not (folder / "vectors.json").is_file():
            raise ValueError("missing, so there is nothing to compare with; push with `lira-hf push`")
        vectors = json.loads((folder / "vectors.json").read_text(encoding="utf-8"))
        if not vectors["rows"] or len(vectors["rows"]) != len(vectors["embeddings"]):
            raise ValueError(f"{len(vectors['rows'])} rows and {len(vectors['embeddings'])} embeddings")
        return f"{len(vectors['rows'])} embeddings", None

    def opened(name: str):
        nonlocal config, processor
        part = getattr(transformers, name).from_pretrained(repo_id, **where)
        if type(part).__module__.split(".")[0] != "transformers_modules":
            raise RuntimeError(f"{type(part)} is not of the repository's own code")
        config, processor = (part, processor) if name == "AutoConfig" else (config, part)
        return type(part).__name__, None

    def model(name: str):
        model = getattr(transformers, name).from_pretrained(repo_id, dtype=torch.float32, **where).eval()
        return type(model).__name__, difference(model.lira, processor, vectors)

    vectors = None
    row(hub.CHECKSUMS, checksums)
    row("vectors.json", expected)
    for name in ("AutoConfig", "AutoProcessor"):
        row(name, lambda name=name: opened(name))
    for name in CLASSES:
        if name != "AutoModelForCausalLM" or getattr(config, "llm_config", None) is not None:
            row(name, lambda name=name: model(name))


def difference(lira, processor, vectors: dict | None) -> float | None:
    """The largest absolute difference between the published embeddings and those that are found here, one row at a time."""
    if processor is None or vectors is None:
        return None
    found = []
    with torch.no_grad():
        for row in vectors["rows"]:
            lists = {name: value if name == "prompt_name" or value is None else [value] for name, value in row.items()}
            found.append(lira(**processor(**lists)).embeddings[0])
    expected = torch.tensor(vectors["embeddings"])
    found = torch.stack(found)
    if found.shape != expected.shape:
        raise ValueError(f"embeddings are {list(found.shape)}, and those in vectors.json {list(expected.shape)}")
    return (found - expected).abs().max().item()


if __name__ == "__main__":
    main(*sys.argv[1:])
