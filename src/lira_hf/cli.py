"""The command line: a table of commands. What a command needs is imported inside it, so that `--help` answers at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, help="LiRA for Hugging Face: search in seven languages.")
data = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="LazRetrieval, the product-search data set: synthetic, from hand-written words.")
app.add_typer(data, name="data")

Languages = Annotated[str | None, typer.Option(help="Codes with commas, such as th,vi; all seven by default.")]
Input = Annotated[
    Path,
    typer.Argument(metavar="INPUT", help="Folder of a data set, a CSV, TSV, JSONL or Parquet file (text, language[, id]), or an earlier OUTPUT."),
]
Output = Annotated[Path, typer.Argument(metavar="OUTPUT", help="Folder for the store and the result; the same command goes on where it was killed.")]
Model = Annotated[str, typer.Option(help="A Hub id or folder; with --endpoint the model's name there.")]
EndpointUrl = Annotated[
    str | None, typer.Option(help="Base URL of an OpenAI-compatible server, such as http://localhost:8000/v1; key in OPENAI_API_KEY.")
]
Concurrency = Annotated[int, typer.Option(min=1, help="Requests in flight at the endpoint.")]
Timeout = Annotated[float, typer.Option(help="Seconds for a request.")]
Shard = Annotated[str | None, typer.Option(metavar="I/N", help="Only the I-th (from 0) of N equal parts of the texts, and only the store.")]
Merge = Annotated[list[Path] | None, typer.Option(help="OUTPUT of another run, such as of another shard; may be repeated.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Ask again for what failed in earlier runs.")]
PriceIn = Annotated[float | None, typer.Option(help="Price of a million tokens read.")]
PriceOut = Annotated[float | None, typer.Option(help="Price of a million tokens written.")]


@app.command()
def quickstart(
    output: Annotated[Path, typer.Option(help="Folder for everything that is made.")] = Path("lira-quickstart"),
    seeds: Annotated[int, typer.Option(min=1, help="How often training is repeated, each time with another seed.")] = 1,
    multilingual: Annotated[str | None, typer.Option(help="Multilingual backbone, a Hub id or folder, instead of the tiny one.")] = None,
    english: Annotated[str | None, typer.Option(help="English backbone, a Hub id or folder, instead of the tiny one.")] = None,
    languages: Languages = None,
) -> None:
    """The main job from nothing, on the CPU: data, backbones, training, table, plot, reload, search."""
    from lira_hf.quickstart import quickstart

    quickstart(output, seeds=seeds, multilingual=multilingual, english=english, languages=codes(languages))


@data.command()
def build(
    output: Annotated[Path, typer.Option(help="New folder for the data set.")],
    size: Annotated[str, typer.Option(help="small, standard (10,000 rows a language) or mega (a million).")] = "small",
    languages: Languages = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes; the bytes written do not depend on it.")] = 1,
    noise: Annotated[Path | None, typer.Option(help="YAML with other simulated translators or another critic; see `data noise`.")] = None,
) -> None:
    """Builds LazRetrieval: the same seed gives the same bytes. A build that was stopped goes on where it was."""
    from lira_hf.catalogue import build
    from lira_hf.catalogue.desk import read_desk

    typer.echo(f"built {build(output, size, codes(languages), seed, workers, desk=read_desk(noise))}")


@data.command()
def similarity(
    output: Annotated[Path, typer.Option(help="New folder for the data set.")],
    rows: Annotated[int, typer.Option(min=20, help="Pairs of each language, over all splits.")] = 2000,
    languages: Languages = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Builds LazSimilarity: pairs of queries with a graded similarity from 0 to 5, for ranking. The same seed gives the same bytes."""
    from lira_hf.catalogue.similarity_builder import build_similarity

    typer.echo(f"built {build_similarity(output, rows, codes(languages), seed)}")


@data.command()
def noise() -> None:
    """Prints the simulated translators and their critic as YAML, to be changed and given to `data build --noise`."""
    from lira_hf.catalogue.candidates import Desk
    from lira_hf.catalogue.desk import write_desk

    typer.echo(write_desk(Desk()), nl=False)


@data.command("import")
def import_files(
    products: Annotated[Path, typer.Option(help="CSV, TSV, JSONL (each also .gz) or Parquet.")],
    judgements: Annotated[Path, typer.Option(help="Grades, or clicks, impressions, purchases.")],
    language: Annotated[str, typer.Option(help="One code, such as th.")],
    output: Annotated[Path, typer.Option(help="New folder for the data set.")],
    queries: Annotated[Path | None, typer.Option(help="Not needed where the judgements hold the queries' text.")] = None,
    column: Annotated[list[str] | None, typer.Option(help="A column of your own, as products.title=ten_san_pham; may be repeated.")] = None,
    grade: Annotated[list[str] | None, typer.Option(help="A label of your own, as good=3; may be repeated.")] = None,
    locale: Annotated[str | None, typer.Option(help="The one locale to keep, where the files hold several.")] = None,
    validation: Annotated[float, typer.Option(help="Share of the queries, where the files give no such split.")] = 0.1,
    test: Annotated[float, typer.Option(help="As --validation.")] = 0.1,
    share_products: Annotated[bool, typer.Option("--share-products", help="Leave a product in the corpus of every split that judges it.")] = False,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Imports a shop's own products, queries and judgements; says what it refused and why."""
    from lira_hf.catalogue.imports import import_shop

    grades = {label: int(value) if value.isdecimal() else value for label, value in assignments("grade", grade).items()}
    shares = {"validation": validation, "test": test, "share_products": share_products}
    options = {"columns": assignments("column", column), "grades": grades, "locale": locale, "seed": seed, **shares}
    typer.echo(import_shop(products, queries, judgements, language, output, **options))


@data.command()
def problems(
    output: Annotated[Path, typer.Option(help="New folder for the data set.")],
    rows: Annotated[int, typer.Option(min=1, help="Training rows of each language; English has ten times as many.")] = 2000,
    languages: Languages = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Builds word problems about prices and quantities, for the reasoning stage; the same seed gives the same bytes."""
    from lira_hf.catalogue.problems import build_problems

    typer.echo(f"built {build_problems(output, rows, codes(languages), seed)}")


@data.command()
def validate(folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a data set, built or imported.")]) -> None:
    """Looks for damage in a data set; exit code 1 where there is any."""
    from lira_hf.catalogue.validation import render_report, validate

    damages = validate(folder)
    typer.echo("\n".join(render_report(damages)))
    raise typer.Exit(1 if damages else 0)


@data.command()
def samples(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of `lira-hf data build`.")],
    output: Annotated[Path, typer.Option(help="New folder for the pages.")],
    count: Annotated[int, typer.Option(min=1, help="Rows of each language.")] = 50,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Writes a page of test rows for each language, for a speaker to judge in five minutes."""
    from lira_hf.catalogue.samples import write_samples

    typer.echo(f"open {write_samples(folder, output, count, seed) / 'index.html'}")


@data.command()
def publish(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of `lira-hf data build`.")],
    repo_id: Annotated[str, typer.Argument(metavar="ORG/NAME", help="Dataset repository, such as org/laz-retrieval; created if missing.")],
    private: Annotated[bool, typer.Option("--private", help="Create it for its owners only.")] = False,
) -> None:
    """Pushes a data set to the Hub in one commit; needs `hf auth login` or HF_TOKEN."""
    from lira_hf.hub import publish_dataset

    typer.echo(f"published {publish_dataset(folder, repo_id, private)}")


@app.command()
def translate(
    input: Input,
    output: Output,
    model: Model,
    endpoint: EndpointUrl = None,
    candidates: Annotated[int, typer.Option(min=1, max=64, help="Distinct translations of each text, at most.")] = 4,
    languages: Languages = None,
    decoding: Annotated[str, typer.Option(help="Of a local model: beams or sampling.")] = "beams",
    brands: Annotated[Path | None, typer.Option(help="File with names to look for in the translations, one a line.")] = None,
    concurrency: Concurrency = 8,
    timeout: Timeout = 60.0,
    shard: Shard = None,
    merge: Merge = None,
    retry_failed: RetryFailed = False,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
) -> None:
    """Translates queries and products into English, several candidates each; several translators may share an OUTPUT."""
    from lira_hf.translation.endpoint import Endpoint
    from lira_hf.translation.running import translate
    from lira_hf.translation.summary import render_summary
    from lira_hf.translation.translators import LocalTranslator, PromptedTranslator

    options = common(languages, shard, merge, retry_failed, price_in, price_out)
    names = lines("brands", brands)
    if endpoint is None:
        translator = LocalTranslator.from_pretrained(model, decoding=decoding)
    else:
        translator = PromptedTranslator(Endpoint(endpoint, model, concurrency=concurrency, timeout=timeout))
    typer.echo("\n".join(render_summary(translate(input, output, translator, candidates, brands=names, **options))))


@app.command()
def judge(
    input: Input,
    output: Output,
    model: Model,
    endpoint: EndpointUrl = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each candidate is judged; from 2 on, agreement is reported.")] = 1,
    decisions: Annotated[
        bool, typer.Option("--decisions", help="Ask `transformers serve` for typed decisions instead of a written verdict.")
    ] = False,
    languages: Languages = None,
    concurrency: Concurrency = 8,
    timeout: Timeout = 60.0,
    shard: Shard = None,
    merge: Merge = None,
    retry_failed: RetryFailed = False,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
) -> None:
    """Has a language model score the candidate translations in INPUT from 1 to 10 on three axes."""
    from lira_hf.translation.critic import DecidingCritic, PromptedCritic
    from lira_hf.translation.endpoint import Endpoint
    from lira_hf.translation.local import LocalChat
    from lira_hf.translation.running import judge
    from lira_hf.translation.summary import render_summary

    options = common(languages, shard, merge, retry_failed, price_in, price_out)
    if decisions and endpoint is None:
        raise ValueError("--decisions: only an endpoint of `transformers serve` takes them; give --endpoint too")
    chat = LocalChat.from_pretrained(model) if endpoint is None else Endpoint(endpoint, model, concurrency=concurrency, timeout=timeout)
    critic = DecidingCritic(chat) if decisions else PromptedCritic(chat)
    typer.echo("\n".join(render_summary(judge(input, output, critic, rounds, **options))))


@app.command()
def cluster(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.yaml", help="What to run and where; configs/cluster.yaml explains every field.")],
) -> None:
    """Runs translate, judge or the feature cache as many tasks: on this machine, on Slurm or on Ray. Started again, it goes on."""
    from lira_hf.cluster import launch, load_recipe

    typer.echo(launch(load_recipe(recipe)))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def features(context: typer.Context, config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="A recipe, as for train.")]) -> None:
    """Fills a recipe's feature cache without training; under accelerate launch or torchrun, by several processes."""
    from lira_hf.training import fill_features, load_parts, load_recipe

    recipe = load_recipe(config, overrides(context.args))
    model, processor, train, validation = load_parts(recipe)
    fill_features(recipe, model, processor, [*train, *validation])


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def train(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="A recipe; configs/tiny.yaml explains every field.")],
    resume: Annotated[bool, typer.Option(help="Go on where an earlier run of the same recipe stopped.")] = False,
) -> None:
    """Trains a recipe. Any field of it can be given as --field value, nested ones by dots (--retrieval.max_steps 50)."""
    from accelerate import PartialState

    from lira_hf.training import load_recipe, run

    folder = run(load_recipe(config, overrides(context.args)), resume)
    if PartialState().is_main_process:
        typer.echo(f"trained {folder}")


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="Folder or Hub id: a LiRA model, or an encoder or language model to measure as a baseline.")],
    benchmark: Annotated[str, typer.Option(help="laz, belebele, mlqa, sts22, mgsm or xcsqa.")] = "laz",
    data: Annotated[
        Path | None, typer.Option(help="laz: folder of `lira-hf data build`. Else a folder with the schema of the benchmark's Hub data set.")
    ] = None,
    translations: Annotated[
        Path | None, typer.Option(help="OUTPUT of `lira-hf translate` or `judge`, or a table (text, language, translations).")
    ] = None,
    languages: Annotated[
        str | None, typer.Option(help="Codes with commas, such as th,vi; ours by default; all: every subset of the benchmark.")
    ] = None,
    systems: Annotated[str | None, typer.Option(help="Systems with commas, such as concat,lira; all that the model allows by default.")] = None,
    split: Annotated[str, typer.Option(help="Of laz: train, validation or test.")] = "test",
    batch_size: Annotated[int | None, typer.Option(min=1, help="Texts read together; 64 by default, 16 by a language model.")] = None,
    features: Annotated[bool, typer.Option(help="Run the backbones once for all systems; needs room in OUTPUT.")] = True,
    write_texts: Annotated[Path | None, typer.Option(help="Write the benchmark's texts to this file, for `lira-hf translate`, and stop.")] = None,
    output: Annotated[Path, typer.Option(help="Folder for results.json; the same command goes on where it was killed.")] = Path("lira-results"),
) -> None:
    """Measures a model, and the frozen systems around it, on one of six benchmarks."""
    from lira_hf.evaluation.benchmarks import evaluate

    more = {"split": split, "batch_size": batch_size, "features": features, "texts": write_texts}
    given = {"translations": translations, "languages": codes(languages), "systems": codes(systems)}
    evaluate(model, benchmark, data=data, output=output, **given, **more)


@app.command()
def certify(
    model: Annotated[Path, typer.Argument(help="Folder of a trained LiRA model.")],
    data: Annotated[Path, typer.Option(help="Folder of `lira-hf data build`, or other data with perfect translations.")],
    output: Annotated[Path, typer.Option(help="Folder for certificate.json and certificate.png.")],
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    languages: Languages = None,
    anchors: Annotated[int, typer.Option(min=2, help="English sentences of another split in the bank of anchors, at most.")] = 512,
    temperature: Annotated[float | None, typer.Option(help="Of the softmax over anchors; by default the model's contrast_temperature.")] = None,
    q: Annotated[float, typer.Option(help="Quantile of L, above 0 and up to 1.")] = 0.95,
    delta: Annotated[int, typer.Option(min=1, help="Tokens that an edit changes.")] = 1,
    edits: Annotated[int, typer.Option(min=1, help="Edits of each row.")] = 4,
    k: Annotated[int, typer.Option(min=1, help="Of the top-k order that must not change.")] = 10,
    resamples: Annotated[int, typer.Option(min=1, help="Of the bootstrap.")] = 200,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    batch_size: Annotated[int, typer.Option(min=1)] = 256,
) -> None:
    """How far a model's vectors are, and can be, from those of a perfect translation, per language and slice."""
    from lira_hf.certificate import certify

    options = {"anchors": anchors, "temperature": temperature, "q": q, "delta": delta, "edits": edits, "k": k, "resamples": resamples}
    certify(model, data, output, split=split, languages=codes(languages), **options, seed=seed, batch_size=batch_size)


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a trained model.")],
    repo_id: Annotated[str, typer.Argument(metavar="ORG/NAME", help="Model repository, such as org/lira-shop; created if missing.")],
    backbones: Annotated[str | None, typer.Option(help="embedded or reference; as saved by default.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Create it for its owners only.")] = False,
) -> None:
    """Pushes a model to the Hub in one commit, with its card, checksums and vectors; needs `hf auth login` or HF_TOKEN."""
    from lira_hf.hub import publish_model

    publication = publish_model(folder, repo_id, backbones=backbones, private=private)
    typer.echo(f"published {publication.url}" if publication.changed else f"nothing new; the Hub has all of it: {publication.url}")


@app.command()
def verify(
    repo_id: Annotated[str, typer.Argument(metavar="ORG/NAME", help="Model repository.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit; main by default.")] = None,
    venv: Annotated[bool, typer.Option("--venv", help="In a new virtual environment with only torch and transformers; pip installs them.")] = False,
) -> None:
    """Opens a published model in a clean process, and compares its files and vectors with what was published; exit code 1 where they differ."""
    from lira_hf.hub import verify

    verification = verify(repo_id, revision, venv=venv)
    typer.echo(verification)
    raise typer.Exit(0 if verification.right else 1)


@app.command()
def report(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="Folder of results: of evaluate, study, certify, quickstart, or of all.")],
    output: Annotated[Path, typer.Option(help="Folder for index.html, report.md and drawings.")] = Path("lira-report"),
) -> None:
    """One page of everything measured in a folder, beside published scores: HTML that needs no other file, and Markdown."""
    from lira_hf.reporting.page import report

    typer.echo(f"wrote {report(results, output)}")


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="Folder of a trained LiRA model.")],
    output: Annotated[Path | None, typer.Option(help="Folder for the graphs; MODEL/onnx by default, which is published with the model.")] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Also with the backbones' weights in 8 bits.")] = False,
    data: Annotated[Path | None, typer.Option(help="Folder of `lira-hf data build` to measure on: MODEL/results/onnx.json.")] = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    languages: Languages = None,
) -> None:
    """Writes the model as one ONNX graph for onnxruntime, and checks that it gives the model's vectors."""
    from lira_hf.export import export

    made = export(model, output, int8=int8, data_folder=data, split=split, languages=codes(languages))
    sizes = ", ".join(f"{name} {size / 2**20:.1f} MB" for name, size in made["files"].items())
    typer.echo(f"exported {made['folder']}: {sizes}; the largest difference of any embedding is {made['difference']:.1e}")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def study(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="STUDY", help="ablation, noise, few-shot or backbones.")],
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="A recipe; configs/study.yaml explains what a study adds to it.")],
    output: Annotated[Path, typer.Option(help="Folder that the studies of one file share; the same command goes on where it was killed.")],
    seeds: Annotated[int | None, typer.Option(min=1, help="How often each training is repeated, instead of the file's.")] = None,
) -> None:
    """Trains the arms of a study and compares them, with intervals. Any field of the file can be given as --field value, as for train."""
    from lira_hf.evaluation.studies import run_study
    from lira_hf.evaluation.studies.tables import render_study

    typer.echo("\n".join(render_study(run_study(name, config, output, seeds, overrides(context.args)))))


def codes(text: str | None) -> list[str] | None:
    return None if text is None else [code.strip() for code in text.split(",")]


def part(text: str | None) -> tuple[int, int]:
    """The shard that I/N names: (I, N); None is the whole, (0, 1)."""
    first, slash, count = (text or "0/1").partition("/")
    if not (slash and first.isdecimal() and count.isdecimal()):
        raise ValueError(f"--shard: {text!r} is not allowed; give I/N, such as 0/4")
    return int(first), int(count)


def common(
    languages: str | None, shard: str | None, merge: list[Path] | None, retry_failed: bool, price_in: float | None, price_out: float | None
) -> dict:
    """What `translate` and `judge` are told alike."""
    price = None if price_in is None and price_out is None else (price_in or 0.0, price_out or 0.0)
    return {"languages": codes(languages), "shard": part(shard), "merge": merge or (), "retry_failed": retry_failed, "price": price}


def lines(option: str, path: Path | None) -> list[str]:
    """The lines of a text file; none of None."""
    if path is None:
        return []
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--{option}: {str(path)!r} cannot be read ({error})") from None


def assignments(option: str, given: list[str] | None) -> dict[str, str]:
    """["a=b"] as {"a": "b"}; the value is what follows the last =."""
    for pair in given or []:
        if "=" not in pair:
            raise ValueError(f"--{option}: {pair!r} is not allowed; give NAME=VALUE")
    return {name: value for name, _, value in (pair.rpartition("=") for pair in given or [])}


def overrides(arguments: list[str]) -> dict:
    """`--a.b value` or `--a.b=value` pairs as {"a.b": value}, values read as YAML."""
    import yaml

    found, rest = {}, list(arguments)
    while rest:
        name = rest.pop(0)
        if not name.startswith("--") or name == "--":
            raise ValueError(f"{name}: a field is given as --field value")
        name, equals, value = name[2:].partition("=")
        if not equals and not rest:
            raise ValueError(f"--{name}: a value is missing")
        found[name] = yaml.safe_load(value if equals else rest.pop(0))
    return found


def main() -> None:
    """Runs a command; a user's mistake, or a file or repository that cannot be had, ends with one line and exit code 2."""
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except ValueError as error:
        message = str(error)
    except OSError as error:
        if error.errno is not None:  # the system's own, which nobody expected; ours name the file or repository, and the reason
            raise
        message = str(error)
    except Exception as error:
        if not hasattr(error, "format_message"):  # click's own errors have it; anything else is ours to mend, and shows its traceback
            raise
        message = error.format_message()
    typer.echo(f"lira-hf: {' '.join(message.split())}", err=True)
    sys.exit(2)
