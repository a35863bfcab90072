"""What the repository promises about itself: the wheel holds the model code, the README's numbers come from results."""

import subprocess
import sys
from pathlib import Path

import pytest

from lira_hf.catalogue.lexicon import load_catalogue
from lira_hf.catalogue.validation import KINDS
from lira_hf.reporting.readme import RENDERED, render

ROOT = Path(__file__).parents[1]


def test_what_documents_say_of_results_is_rendered_from_the_files():
    documents = [ROOT / "README.md", ROOT / "docs" / "comparisons.md"]
    for document in documents:
        assert render(document, ROOT / "docs" / "results") == document.read_text()
    assert all(any(f"<!-- {place} -->" in document.read_text() for document in documents) for place in RENDERED)


def test_readme_and_changelog_count_what_the_catalogue_holds():
    catalogue = load_catalogue()
    counted = f"{len(catalogue.types)} product types in {{}}{len(catalogue.departments)} departments"
    values = sum(len(values) for axis, values in catalogue.values.items() if axis != "measure")
    brands = len({brand for brands in catalogue.brands.values() for brand in brands})
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert counted.format("") in (ROOT / "README.md").read_text()
    assert counted.format("a two-level tree of ") in changelog and f"{values} attribute values and {brands} invented brands" in changelog
    assert f"{len(KINDS)} kinds of damage" in (ROOT / "README.md").read_text()


@pytest.mark.slow
def test_the_wheel_works_in_a_clean_environment(tmp_path):
    run = lambda *command, **options: subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True, **options)  # noqa: E731
    run("git", "clone", "--quiet", ROOT, tmp_path / "clone")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "dist", tmp_path / "clone")
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    python, wheel = tmp_path / "venv" / "bin" / "python", next((tmp_path / "dist").glob("*.whl"))
    run(python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel)
    code = (
        "import lira_hf.modeling, pathlib, importlib.resources as r; from lira_hf import LiraForRetrieval; from lira_hf.catalogue import build;"
        "assert (r.files('lira_hf.configs') / 'tiny.yaml').is_file(); print(pathlib.Path(lira_hf.modeling.__file__).parent)"
    )
    done = run(python, "-c", code, cwd=tmp_path)
    assert str(tmp_path / "venv") in done.stdout
    run(tmp_path / "venv" / "bin" / "lira-hf", "data", "build", "--output", tmp_path / "data", "--languages", "fil", cwd=tmp_path)
