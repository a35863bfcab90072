"""The card of a model: rendered from what its folder holds, so that no number is typed and nothing unmeasured is claimed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

import yaml
from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from safetensors import safe_open

from lira_hf.languages import ENGLISH, LANGUAGES
from lira_hf.modeling import LiraConfig
from lira_hf.reporting.tables import label, markdown, plain, table

PATHS = {"multilingual": "multilingual encoder", "english": "English model", "llm": "language model"}
TASKS = {  # head: its task on the Hub, and the benchmarks that measure it
    "LiraForRetrieval": ("sentence-similarity", ("laz", "belebele", "mlqa", "sts22")),
    "LiraForSequenceClassification": ("text-classification", ("sts22",)),
    "LiraForCausalLM": ("text-generation", ("mgsm", "xcsqa")),
    "LiraForPreTraining": ("feature-extraction", ()),
}
METRICS = {  # start of a metric's name in results.json: its task type and its own type in a model index
    "ndcg@10": ("information-retrieval", "ndcg_at_10"),
    "pearson": ("semantic-similarity", "pearson_cosine"),
    "accuracy": ("text-generation", "accuracy"),
}

TINY = 5_000_000  # parameters; no encoder that people search with is as small


@dataclass(frozen=True)
class Published:
    """What a model's folder says of itself. results: by benchmark; certificate, export (what its ONNX graphs measured), recipe, log: None
    where there is none."""

    folder: Path
    config: LiraConfig
    results: dict[str, dict]
    certificate: dict | None
    export: dict | None
    recipe: dict | None
    log: list[dict] | None

    @classmethod
    def read(cls, folder: Path) -> Published:
        """Raises ValueError for a folder that holds no LiRA model, and for a file of it that is not what it should be."""

        def load(name: str):
            try:
                text = (folder / name).read_text(encoding="utf-8")
                return json.loads(text) if name.endswith(".json") else yaml.safe_load(text)
            except FileNotFoundError:
                return None
            except (ValueError, yaml.YAMLError) as error:
                raise ValueError(f"folder: {name} in {str(folder)!r} cannot be read ({' '.join(str(error).split())})") from error

        if (load("config.json") or {}).get("model_type") != "lira":
            raise ValueError(f"folder: {str(folder)!r} is no LiRA model (it has no config.json with model_type lira)")
        config = LiraConfig.from_pretrained(folder)
        if not config.architectures or config.architectures[0] not in TASKS:
            raise ValueError(f"folder: {str(folder)!r} holds {config.architectures}, not one of {', '.join(TASKS)}")
        results = {path.stem: load(f"results/{path.name}") for path in sorted((folder / "results").glob("*.json"))}
        certificate, export = results.pop("certificate", None), results.pop("onnx", None)
        for name, found in {**results, **({"onnx": export} if export else {})}.items():
            if not {"benchmark", "metric", "systems"} <= set(found):
                raise ValueError(f"folder: results/{name}.json in {str(folder)!r} lacks benchmark, metric or systems")
        return cls(folder, config, results, certificate, export, load("recipe.yaml"), load("training_log.json"))

    @property
    def head(self) -> str:
        return self.config.architectures[0]

    @property
    def languages(self) -> list[str]:
        """Codes of the languages it was trained for."""
        named = (self.recipe or {}).get("languages") or self.config.languages
        return [code for code in named if code != ENGLISH.code]

    @property
    def ways(self) -> list[str]:
        """Libraries beside transformers that can run it. Any folder has modules.json, but only embeddings are what sentence-transformers gives."""
        kept = {"sentence-transformers": "modules.json", "onnx": "onnx/model.onnx"} if self.head == "LiraForRetrieval" else {}
        return [way for way, file in kept.items() if (self.folder / file).is_file()]

    def backbones(self) -> dict[str, str]:
        """The name of each backbone: a Hub id, or the folder it came from."""
        held = {path: getattr(self.config, f"{path}_config") for path in PATHS}
        return {path: self.reference(path).get("repo_id") or config._name_or_path for path, config in held.items() if config is not None}

    def reference(self, path: str) -> dict:
        """{"repo_id", "revision"} of a backbone that came from the Hub; empty of another."""
        return (getattr(self.config, "backbone_references", None) or {}).get(path) or {}


def model_card(folder: str | Path, repo_id: str, license: str = "apache-2.0") -> str:
    """The README.md of a model folder as it is published under `repo_id` (ORG/NAME), YAML front matter included.

    Rendered from config.json, results/*.json, recipe.yaml, training_log.json and the weights' headers; what is missing is said to be
    missing. Raises ValueError for a folder that holds no LiRA model or a damaged one of these files."""
    model = Published.read(Path(folder))
    what, load = part(model.head).split("<!-- load -->\n")
    loading = [load, *(part(way.replace("-", "_")) for way in model.ways)]
    values = {
        "repo_id": repo_id,
        "width": model.config.hidden_size,
        "num_labels": "one number" if model.config.num_labels == 1 else f"{model.config.num_labels} classes",
    }
    return Template(part("README")).substitute(
        front=front_matter(model, repo_id, license),
        name=repo_id.split("/")[-1],
        what=Template(what).substitute(values).strip() + f" Languages: {', '.join(map(language_name, model.languages))}.",
        warnings=warnings(model),
        parts=parts(model),
        loading=Template("\n".join(loading)).substitute(values).strip(),
        results="\n\n".join(measured(model, found) for found in model.results.values()) or "None were recorded with this model.",
        export=exported(model.export),
        certificate=certificate(model.certificate),
        training=training(model),
        limits="\n".join(f"- {limit}" for limit in limits(model)),
        license=license,
    )


def part(name: str) -> str:
    return (files("lira_hf.reporting") / "model_card" / f"{name}.md").read_text(encoding="utf-8")


def language_name(code: str) -> str:
    return f"{LANGUAGES[code].name} ({code})" if code in LANGUAGES else code


def on_the_hub(name: str) -> bool:
    """Whether a name is a Hub id, as far as one can see: ORG/NAME that is no folder here."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1 and not Path(name).exists()


def place(name: str) -> str:
    """A Hub id, or the last name of a folder: where else it lay on somebody's disk is nobody's business."""
    return name if on_the_hub(name) else Path(name).name


def without_places(value):
    """JSON or YAML content with the last names alone of what is an absolute path in it; prompts stay as they are."""
    if isinstance(value, dict):
        return {name: part if name in ("prompts", "llm_prompt") else without_places(part) for name, part in value.items()}
    if isinstance(value, list):
        return [without_places(part) for part in value]
    return place(value) if isinstance(value, str) and (Path(value).is_absolute() or value.startswith("~/")) else value


def public_recipe(file: Path) -> str:
    """A recipe.yaml for everybody: of folders their last names alone, the comment above it as it is."""
    text = file.read_text(encoding="utf-8")
    recipe, made = without_places(yaml.safe_load(text)), text.partition("\n")[0]
    names = {name: place(value) for name, value in recipe.items() if name in ("data", "output", "features")}
    names["backbones"] = {path: place(name) for path, name in recipe["backbones"].items()}
    comment = f"{made}\n" if made.startswith("#") else ""
    return comment + yaml.safe_dump(recipe | names, sort_keys=False, allow_unicode=True)


def public_config(file: Path) -> dict:
    """A config.json for everybody: of folders that backbones came from their last names alone."""

    def named(part: dict) -> dict:
        return part | {name: place(part[name]) for name in ("_name_or_path",) if part.get(name)}

    return json.loads(file.read_text(encoding="utf-8"), object_hook=named)


def shown(name: str, kind: str = "") -> str:
    """A backbone, or with kind "datasets/" a data set, for a reader."""
    return f"[{name}](https://huggingface.co/{kind}{name})" if on_the_hub(name) else f"`{place(name)}` (a folder, not on the Hub)"


def own(found: dict) -> tuple[str, dict]:
    """The published model among the systems of a results.json: `lira`, or the only one."""
    systems = found["systems"]
    name = "lira" if "lira" in systems else next(iter(systems))
    return name, systems[name]


def front_matter(model: Published, repo_id: str, license: str) -> str:
    """The metadata that the Hub reads."""
    bases = [name for name in model.backbones().values() if on_the_hub(name)]
    trained = model.config.trainable_backbones or (model.recipe or {}).get("lora")
    relation = "finetune" if trained else "adapter" if getattr(model.config, "backbones", "embedded") == "reference" else "merge"
    data = (model.recipe or {}).get("data", "")
    return ModelCardData(
        language=[*model.languages, ENGLISH.code],
        license=license,
        library_name="transformers",
        pipeline_tag=TASKS[model.head][0],
        tags=["lira", "multilingual", *model.ways],
        base_model=bases or None,
        base_model_relation=relation if bases else None,
        datasets=[data] if on_the_hub(data) else None,
        model_name=repo_id.split("/")[-1],
        eval_results=[result for name, found in model.results.items() for result in index(name, found)] or None,
    ).to_yaml(line_break="\n")


def index(name: str, found: dict) -> list[EvalResult]:
    """The model's scores of one benchmark for the model index, by language."""
    seeds = len(found.get("seeds") or [])
    called = found["metric"] + (f", mean of {seeds} seeds of training" if seeds > 1 else "")
    task, metric = next((types for start, types in METRICS.items() if found["metric"].startswith(start)), ("other", found["metric"]))
    source = found.get("data") or {}
    data = {"dataset_type": name}
    if on_the_hub(source.get("path", "")):
        data = {"dataset_type": source["path"], "dataset_revision": source.get("revision")}
    return [
        EvalResult(
            task_type=task, **data, dataset_name=found["benchmark"], dataset_config=code, dataset_split=found.get("split", "test"),
            metric_type=metric, metric_name=called, metric_value=score,
        )
        for code, score in own(found)[1]["languages"].items()
    ]  # fmt: skip


def warnings(model: Published) -> str:
    """What a reader must know before any number."""
    said = " ".join(found["benchmark"] for found in model.results.values())
    lines, sizes = [], parameters(model.folder)
    if "synthetic" in said:
        lines.append(
            "> **Measured on synthetic data**, made by a program from hand-written words: the scores say nothing about a real shop's queries."
        )
    if any(sizes.get(path, TINY) < TINY for path in model.backbones()):
        lines.append("> **The backbones are tiny**, which is for trying things out: this model is a demonstration.")
    return "\n>\n".join(lines)


def parts(model: Published) -> str:
    """A table of backbones and LiRA's own part."""
    sizes = parameters(model.folder)
    by_reference = getattr(model.config, "backbones", "embedded") == "reference"
    body = []
    for path, name in model.backbones().items():
        config = getattr(model.config, f"{path}_config").get_text_config()
        learns = path in model.config.trainable_backbones or path in ((model.recipe or {}).get("lora") or {})
        held = "loaded from its own repository" if by_reference else f"{sizes.get(path, 0):,}"
        commit = model.reference(path).get("revision", "")
        origin = shown(name) + (f" at `{commit[:12]}`" if commit else "")
        sizes_of = [config.model_type, str(config.num_hidden_layers), str(config.hidden_size)]
        body.append([PATHS[path], origin, *sizes_of, held, "trained" if learns else "frozen"])
    body.append(["LiRA's own", "", "", str(model.config.fusion_layers), str(model.config.width), f"{sizes.get('lira', 0):,}", "trained"])
    return table(["part", "from", "kind", "layers", "width", "parameters", "weights"], body)


def parameters(folder: Path) -> dict[str, int]:
    """Parameters in the folder's safetensors: of each backbone, and as `lira` of the rest."""
    counts: dict[str, int] = {}
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="np") as tensors:
            for name in tensors.keys():
                path = next((path for path in PATHS if path in name.split(".")[:2]), "lira")
                size = 1
                for length in tensors.get_slice(name).get_shape():
                    size *= length
                counts[path] = counts.get(path, 0) + size
    return counts


def measured(model: Published, found: dict) -> str:
    """One benchmark: how it was measured, the table by language, the table by query slice where there is one."""
    name, system = own(found)
    seeds, seed = found.get("seeds") or [], (model.recipe or {}).get("seed")
    if len(seeds) > 1:
        how = f"Means over {len(seeds)} seeds of training, ± the standard deviation; what is frozen has none."
        if seed in seeds and "seeds" in system:
            how += f" The weights here are those of seed {seed}, whose own average is {system['seeds'][seeds.index(seed)]:.1f}."
    else:
        how = "These weights, measured once: no spread over seeds is known."
    made = found.get("environment", {})
    versions = ", ".join(f"{package} {made[package]}" for package in ("lira-hf", "commit", "torch", "transformers", "python") if made.get(package))
    tables = [markdown(found)]
    if system.get("slices"):
        tables += ["By kind of query:", markdown(found, slices=True)]
    return "\n\n".join([f"### {plain(found['benchmark'])}", f"{how}{f' Measured with {versions}.' if versions else ''}", *tables])


def exported(found: dict | None) -> str:
    """What was measured of the ONNX graphs, as a section of its own; nothing where nothing was."""
    if found is None:
        return ""
    ratios = found.get("speed", {}).get("ratio", {})
    speed = "; ".join(f"{label(name)}: {ratio['median']:.2f} ({ratio['lowest']:.2f} to {ratio['highest']:.2f})" for name, ratio in ratios.items())
    said = [f"How many times as fast as torch, on {found['environment']['cores']} cores: {speed}."] if speed else []
    return "\n\n".join(["### ONNX graphs", f"On {plain(found['benchmark'])}:", markdown(found), *said]) + "\n\n"


def certificate(found: dict | None) -> str:
    """What `lira-hf certify` says of a model: its table and the lines below it."""
    if found is None:
        return "None was made for this model (`lira-hf certify`)."
    shown = found["card"]
    header, *body = [[plain(text) for text in row] for row in (shown["header"], *shown["rows"])]
    return "\n\n".join([plain(shown["title"]), table(header, body), *map(plain, shown["notes"])])


def training(model: Published) -> str:
    """The recipe as trained and how it ended."""
    lines = []
    evaluations = [entry for entry in model.log or [] if "eval_loss" in entry]
    if model.log:
        steps = max(entry.get("step", 0) for entry in model.log)
        last = {name.removeprefix("eval_"): value for name, value in (evaluations[-1] if evaluations else {}).items() if name.startswith("eval_")}
        figures = ", ".join(
            f"{name} {value:.3g}" for name, value in last.items() if isinstance(value, float) and "per_second" not in name and name != "runtime"
        )
        lines.append(f"The last stage took {steps:,} steps" + (f"; its last validation: {figures}." if figures else "; it has no validation."))
    if model.recipe is None:
        return "\n\n".join([*lines, "No recipe was recorded with this model."])
    lines.append(f"Data: {shown(model.recipe['data'], 'datasets/')}. The recipe as it was trained (`lira-hf train recipe.yaml`):")
    return "\n\n".join([*lines, f"```yaml\n{public_recipe(model.folder / 'recipe.yaml').strip()}\n```"])


def limits(model: Published) -> list[str]:
    """What was not measured, and what is known not to hold."""
    lines = []
    missing = [name for name in TASKS[model.head][1] if name not in model.results]
    if missing:
        lines.append(f"Not measured: {', '.join(missing)} (`lira-hf evaluate --benchmark NAME`).")
    for found in model.results.values():
        unmeasured = [code for code in model.languages if code not in own(found)[1]["languages"]]
        if unmeasured:
            lines.append(f"Not measured on {found['benchmark']}: {', '.join(map(language_name, unmeasured))}.")
    if model.certificate is None:
        lines.append("How far a bad translation can move its embeddings is not certified.")
    lines.append("A text without a translation goes down the multilingual path alone; languages other than those above are read as unknown.")
    return lines
