"""What README shows is run as it stands there, section by section, each in a process of its own, against a Hub on loopback."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from client_of_hub import client_of
from huggingface_hub import HfApi
from loopback_hub import LoopbackHub
from small_data import small_data

README = Path(__file__).parents[1] / "README.md"
# The names on README's Hub, here with small backbones of the same kinds.
NAMES = {"intfloat/multilingual-e5-small": "xlm-r", "BAAI/bge-small-en-v1.5": "bert", "Qwen/Qwen3-0.6B": "qwen3-lm"}
OWNERS = ("org", *(name.split("/")[0] for name in NAMES))
# What a reader brings along: the lists that README speaks of, and the folder of a trained stage 1.
BROUGHT = {
    "Heads": """
from lira_hf import LiraForPreTraining
queries, titles, scores = ["ทีวี 55 นิ้ว", "ชุดเดรส", "รองเท้า"], ["ทีวีสีดำ", "ชุดเดรสยาว", "หม้อหุงข้าว"], __import__("torch").tensor([2.0, 3.0, 0.0])
translations, titles_in_english = [["55 inch TV"], ["dress"], []], [["black TV"], ["long dress"], ["rice cooker"]]
questions, answers = ["ทีวี 2 เครื่องราคาเท่าไร", "หม้อหุงข้าว 1.8 ลิตร", "รองเท้า 42"], ["42", "18", "1"]
LiraForPreTraining.from_pretrained("my-lira").save_pretrained("lira-run/anchoring/model")
""",
}
ALONE = {"With AutoModel", "With ONNX"}  # sections that must not need this project
ANEW = {"With ONNX"}  # sections whose reader has downloaded nothing before
NOT_RUN = {"Public benchmarks": "needs data of the Hub; tests/evaluation runs the same lines on small data"}
# Tests of what a section has left behind, after it.
LEFT = {
    "Ten lines": "assert model(**batch).embeddings.shape == (1, 56)",
    "With AutoModel": "assert (queries @ titles.T).shape == (2, 3) and model.config.backbone_references",
    "With sentence-transformers": "assert model.similarity(found, found).shape == (3, 3)",
    "With Trainer": "assert trainer.state.global_step == 2",
    "With ONNX": """
from transformers import AutoModel
assert abs(embeddings - AutoModel.from_pretrained("org/my-lira", trust_remote_code=True)(**batch).embeddings.detach().numpy()).max() < 1e-4
""",
    "Ways to train": 'assert __import__("pathlib").Path("my-adapter/adapter_model.safetensors").is_file()',
    "LazRetrieval: product search in seven languages": "assert rows['train'].num_rows and corpus['train'].num_rows",
}


def sections() -> dict[str, str]:
    """Title -> text, in the order of the page."""
    parts = re.split(r"^##+ (.+)$", README.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def fenced(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def run(command: list[str], cwd: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{shlex.join(command)[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.mark.slow
def test_what_readme_shows_runs_as_it_stands_there(backbones, llms, tmp_path):
    desk, data = tmp_path / "desk", Path(small_data(tmp_path / "data", ["th"]))
    desk.mkdir()
    (desk / "my-data").symlink_to(tmp_path / "data" / "built")
    with LoopbackHub(tmp_path / "hub", orgs=OWNERS) as hub, client_of(hub, tmp_path / "home"):
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        for name, kind in NAMES.items():
            api.create_repo(name)
            api.upload_folder(repo_id=name, folder_path=(backbones | llms)[kind])
        api.create_repo("org/laz-retrieval", repo_type="dataset")
        api.upload_folder(repo_id="org/laz-retrieval", folder_path=data, repo_type="dataset")
        environment = {**os.environ, "MTEB_CACHE": str(tmp_path / "mteb"), "HF_TOKEN": hub.token}
        ran = []
        for title, text in sections().items():
            if title in NOT_RUN:
                continue
            if title == "On the Hub":
                for line in fenced(text, "")[0].splitlines():
                    run([sys.executable, "-m", *shlex.split(line.split("#")[0].replace("lira-hf", "lira_hf", 1))], desk, environment)
            elif blocks := fenced(text, "python"):
                after = 'import sys; assert "lira_hf" not in sys.modules' if title in ALONE else ""
                code = "\n".join([BROUGHT.get(title, ""), *blocks, LEFT.get(title, ""), after])
                caches = hub.env(tmp_path / "empty") if title in ANEW else {}
                run([sys.executable, *(["-I"] if title in ALONE else []), "-c", code], desk, environment | caches)
                ran.append(title)
    assert set(LEFT) <= set(ran) and set(BROUGHT) <= set(ran)
