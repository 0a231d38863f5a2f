"""Commands of docs/ that no other test runs, as they are written."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.launch import ROOT, run

ACCEPT = """
import argparse, json, runpy, sys

class Parsed(BaseException):
    pass

parse = argparse.ArgumentParser.parse_args
def accept(parser, arguments=None, namespace=None):
    parse(parser, arguments, namespace)
    raise Parsed

argparse.ArgumentParser.parse_args = accept
for sys.argv in json.load(sys.stdin):
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
        print("does not parse its command line:", *sys.argv)
    except Parsed:
        pass
    except SystemExit:
        print("refused:", *sys.argv)
"""


def blocks(page: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text()
    return re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)


def commands(page: str) -> list[str]:
    """Return the commands of a page, a line each, without comments."""
    lines = "\n".join(blocks(page)).replace("\\\n", " ").splitlines()
    return [re.sub(r"  +#.*", "", line) for line in lines if line.strip()]


def shell(script: str, folder: Path) -> None:
    script = script.replace("python jobs/", f"python {ROOT}/jobs/")
    result = run(["bash", "-ec", f"cd {shlex.quote(str(folder))}\n{script}"])
    assert result.code == 0, result.text


@pytest.mark.parametrize("command", commands("pipeline.md"))
def test_commands_of_the_pipeline(command: str, tmp_path: Path) -> None:
    shell(f"{command} --max-steps 10", tmp_path)


@pytest.mark.parametrize("command", commands("performance.md"))
def test_commands_of_performance(command: str, tmp_path: Path) -> None:
    shell(command, tmp_path)
    assert list(tmp_path.glob("runs/scaling/**/events.*"))


RESULTS = [command for command in commands("results.md") if "benchmarks/" in command]


def test_benchmarks_accept_the_commands_of_the_results() -> None:
    """Only that: they take hours. What benchmarks do is tested with smaller work."""
    lines = [shlex.split(command[command.index("benchmarks/") :]) for command in RESULTS]
    assert all(flags or script.endswith("codec.py") for script, *flags in lines)
    commands = json.dumps([[str(ROOT / script), *flags] for script, *flags in lines])
    accept = [sys.executable, "-c", ACCEPT]  # one process: each would import torch
    done = subprocess.run(accept, input=commands, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


@pytest.mark.slow
def test_measuring_memory_by_stages(tmp_path: Path) -> None:
    block = next(b for b in blocks("results.md") if "four.json" in b)
    shell(block.replace("--width 1", "--width 0.1"), tmp_path)
    assert (tmp_path / "one.json").exists()
    assert (tmp_path / "four.json").exists()


@pytest.mark.slow
def test_measuring_memory_over_many_steps(tmp_path: Path) -> None:
    command = next(c for c in commands("results.md") if "memory.json" in c)
    assert "--max-steps 10000" in command
    command = command.replace("-np 2", "--oversubscribe -np 2")  # one core may be all
    shell(command.replace("--max-steps 10000", "--max-steps 10"), tmp_path)
    assert (tmp_path / "memory.json").exists()
