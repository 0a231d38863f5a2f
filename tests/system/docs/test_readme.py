"""What README and docs tell a user to type works as written."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent

ONE_STEP = """
torch.manual_seed(0)
before = [p.detach().clone() for p in model.parameters()]
for _ in range(3):
    optimizer.zero_grad()
    x, y = torch.randn(8, 784), torch.randint(10, (8,))
    torch.nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
assert all((p != q).any() for p, q in zip(before, model.parameters()))
own = torch.cat([p.detach().reshape(1, -1) for p in model.parameters()], 1)
total = hvd.allgather(own)
assert torch.equal(total[0], total[1]), "ranks differ"
print("STEPPED", hvd.size())
"""


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def run(command: list[str], **options: object) -> str:
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    environment |= {"OMP_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1"}
    environment |= {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    done = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **options,  # type: ignore[call-overload]
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


@pytest.mark.parametrize("index", [0, 1])
def test_use_trains_on_two_ranks(index: int, tmp_path: Path) -> None:
    block = code_blocks("python")[index]
    assert len(block.strip().splitlines()) <= 10
    script = tmp_path / "use.py"
    script.write_text(block + ONE_STEP)
    command = ["mpirun", "--oversubscribe", "-np", "2", "--mca", "mpi_yield_when_idle"]
    output = run([*command, "1", sys.executable, str(script)])
    assert output.count("STEPPED 2") == 2


@pytest.mark.parametrize(
    ("job", "summary", "seen"),
    [
        ("train_data_parallel.py", "ternary.json", "histograms"),
        ("train_pipeline.py", "local.json", "scalars"),
    ],
)
def test_job_and_tensorboard_commands(job: str, summary: str, seen: str, tmp_path: Path) -> None:
    block = next(b for b in code_blocks("bash") if job in b)
    assert len(block.strip().splitlines()) <= 10
    lines = [line for line in block.splitlines() if not line.startswith("source")]
    script = "\n".join(lines).replace("python jobs/", f"python {ROOT}/jobs/")
    # A server would not return: --inspect reads the same files and ends.
    script = script.replace("tensorboard --logdir runs", "tensorboard --inspect --logdir runs")
    output = run(["bash", "-ec", script], cwd=tmp_path)
    assert "test accuracy" in output
    assert seen in output
    assert (tmp_path / "runs" / summary).exists()


def test_two_commands_are_make_targets() -> None:
    block = next(b for b in code_blocks("bash") if "make demo" in b)
    for target in re.findall(r"^make (\w+)", block, flags=re.MULTILINE):
        run(["make", "--dry-run", target], cwd=ROOT)


def test_diagnosis_names_the_kernels_in_use() -> None:
    output = run([sys.executable, "-m", "knet_hvd"])
    assert re.search(r"codec kernels, CPU +(avx512|avx2|portable|pytorch)", output)
    assert re.search(r"horovod +0\.28\.1", output)


@pytest.mark.parametrize(
    "page",
    ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))],
)
def test_links_point_to_files(page: str) -> None:
    text = (ROOT / page).read_text()
    links = re.findall(r"\]\(([^)#]+)\)", text)
    missing = [
        link
        for link in links
        if "://" not in link and not (ROOT / page).parent.joinpath(link).exists()
    ]
    assert not missing


def test_tour_names_five_files() -> None:
    tour = README.split("## Five files to read")[1].split("\n\n")[1]
    assert len(tour.strip().splitlines()) == 5
