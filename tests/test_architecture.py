"""The shape of the source: imports point down the ranks, files and functions stay short, nothing runs what it reads."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[1] / "src" / "ganlib"
FILES = sorted(SRC.rglob("*.py"))
RANKS = [
    {"__init__", "core", "spec", "errors", "files", "recipe"},
    {
        "augment",
        "losses",
        "likelihoods",
        "penalties",
        "weights",
        "networks",
        "data",
        "metrics",
        "training",
    },
    {"tasks", "evaluation"},
    {
        "recipes",
        "remedies",
        "sampling",
        "tiling",
        "stopping",
        "pace",
        "session",
        "saving",
        "fitting",
        "looking",
        "diagnosis",
        "progress",
        "model",
        "opening",
        "reading",
        "predicting",
        "editing",
        "picturing",
        "latents",
        "assess",
        "gan",
        "comparison",
    },
    {"cli", "commands", "doors", "exploring", "launching", "__main__"},
]
RANK = {part: rank for rank, parts in enumerate(RANKS) for part in parts}
SIBLINGS_APART = {0: False, 1: True, 2: True, 3: False, 4: False}
every_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(SRC).as_posix())


def part_of(file: Path) -> str:
    """The module or package just under ganlib that a file belongs to."""
    return file.relative_to(SRC).parts[0].removesuffix(".py")


def imports(file: Path) -> Iterator[str]:
    """What a file imports from ganlib, also inside functions and for type checking."""
    for node in ast.walk(ast.parse(file.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name}:{node.lineno}: write absolute imports"
            # `from ganlib import x` may mean a module; a name that is none, __version__, is of __init__.
            names = [f"ganlib.{alias.name}" for alias in node.names] if node.module == "ganlib" else [node.module or ""]
        for name in names:
            if name.split(".")[0] == "ganlib":
                part = name.split(".")[1] if "." in name else "__init__"
                yield part if part in RANK else "__init__" if part == "__version__" else f"unknown part {part}"


@every_file
def test_imports_point_down(file: Path):
    own = part_of(file)
    assert own in RANK, f"give {own} a rank in RANKS of tests/test_architecture.py"
    for part in imports(file):
        assert part in RANK, part
        if own == "__init__" or part == own:
            continue  # the front door looks up to `gan`, when it is first used
        assert RANK[part] <= RANK[own], f"{own} (rank {RANK[own]}) imports {part} (rank {RANK[part]})"
        assert RANK[part] < RANK[own] or not SIBLINGS_APART[RANK[own]], f"the siblings {own} and {part} must stay apart"


@every_file
def test_files_and_functions_are_short(file: Path):
    lines = file.read_text().splitlines()
    assert len(lines) <= 400
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (
                (node.end_lineno or node.lineno) - node.lineno + 1 - len((ast.get_docstring(node) or "").splitlines())
            )
            assert length <= 60, f"{node.name} has {length} lines besides its docstring"


@every_file
def test_public_functions_take_no_kwargs(file: Path):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            allowed = file.name == "recipe.py" and node.name == "with_options"
            assert node.args.kwarg is None or allowed, f"{node.name} takes **{node.args.kwarg.arg}"  # type: ignore[union-attr]


FORBIDDEN_IMPORTS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
# Published weights are pickles: one file reads them, restricted to tensors, and only where their SHA-256 is known.
READS_PUBLISHED_PICKLES = "metrics/weights.py"
FORBIDDEN_CALLS = {"eval", "exec", "torch.load", "torch.save", "yaml.load", "os.system", "os.popen", "__import__"}


@every_file
def test_nothing_runs_what_it_reads(file: Path):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            assert not FORBIDDEN_IMPORTS & {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in FORBIDDEN_IMPORTS
            found = {f"{node.module}.{alias.name}" for alias in node.names}
            assert not FORBIDDEN_CALLS & found, "imported by name, it would escape the check of calls"
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            words = {ast.unparse(keyword) for keyword in node.keywords}
            restricted = name == "torch.load" and "weights_only=True" in words
            if not (restricted and file.relative_to(SRC).as_posix() == READS_PUBLISHED_PICKLES):
                assert name not in FORBIDDEN_CALLS, f"{file.name}:{node.lineno} calls {name}"
            for keyword in node.keywords:
                risky = keyword.arg in ("shell", "allow_pickle", "trust_remote_code")
                safe = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                assert not risky or safe, f"{file.name}:{node.lineno} passes {keyword.arg}"


def test_importing_the_package_imports_no_torch():
    code = "import sys, ganlib; print(*sorted({'torch', 'numpy', 'PIL', 'matplotlib', 'rich'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
