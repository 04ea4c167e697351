"""The rules of the house, checked: imports, names, documents, what is never used."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
from documents import ROOT, needs_adapter, pages, python_blocks, run_page
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import nopokedb
from nopokedb import distribution, where
from nopokedb.distribution import install_hint
from release.notes import notes_of

PACKAGE = ROOT / "src" / "nopokedb"
MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, wherever the statement stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


FORBIDDEN = [
    # (importer, imported, why)
    ("nopokedb.embedded.storage", "nopokedb.embedded.search", "what is true does not know what is derived"),
    ("nopokedb.embedded.search", "nopokedb.embedded.storage", "what is derived does not know where it is kept"),
    ("nopokedb.embedded.storage", "nopokedb.embedded.engine", "the engine joins the parts, not they it"),
    ("nopokedb.embedded.search", "nopokedb.embedded.engine", "the engine joins the parts, not they it"),
    ("nopokedb.embedded", "nopokedb.database", "engines stand below the class that checks"),
    ("nopokedb.embedded", "nopokedb.asynchronous", "engines stand below the class that checks"),
    ("nopokedb.embedded", "nopokedb.intake", "arguments are checked above the engine"),
    ("nopokedb.postgres", "nopokedb.database", "engines stand below the class that checks"),
    ("nopokedb.postgres", "nopokedb.intake", "arguments are checked above the engine"),
    ("nopokedb.postgres", "nopokedb.embedded.engine", "engines do not know each other"),
    ("nopokedb.postgres", "nopokedb.embedded.storage", "engines do not know each other"),
    ("nopokedb.embedded", "nopokedb.postgres", "engines do not know each other"),
    ("nopokedb.records", "nopokedb.embedded", "what a record is does not depend on an engine"),
    ("nopokedb.errors", "nopokedb.", "errors stand alone"),
    ("nopokedb", "bench", "the package stands alone"),
    ("nopokedb.embedded", "nopokedb.cli", "the library works without the command line"),
    ("nopokedb.embedded", "nopokedb.server", "the library works without the server"),
    ("nopokedb.embedded", "nopokedb.maintenance", "engines stand below what opens folders"),
    ("nopokedb.embedded", "nopokedb.legacy", "the original's files are read above the engine"),
    ("nopokedb.legacy", "hnswlib", "foreign index files are never loaded by native code"),
    ("nopokedb.moving", "hnswlib", "foreign index files are never loaded by native code"),
    ("nopokedb.moving", "faiss", "foreign index files are never loaded by native code"),
    ("nopokedb.moving", "usearch", "foreign index files are never loaded by native code"),
    ("nopokedb", "pickle", "stored bytes are never executed"),
    ("nopokedb", "marshal", "stored bytes are never executed"),
    ("nopokedb", "urllib.request", "nothing is fetched"),
    ("nopokedb.embedded", "socket", "nothing is fetched"),
    ("nopokedb.cli", "socket", "nothing is fetched"),
    ("nopokedb.embedded", "nopokedb.remote", "a folder is opened without a server"),
    ("nopokedb.remote", "nopokedb.embedded", "a client needs no native library"),
    ("nopokedb.remote", "nopokedb.database", "engines stand below the class that checks"),
]


@pytest.mark.parametrize(("importer", "imported", "why"), FORBIDDEN)
def test_import_directions(importer: str, imported: str, why: str) -> None:
    """Each concern has one room, and doors open one way only."""
    for path in MODULES:
        if (name_of(path) + ".").startswith(importer + "."):
            wrong = {name for name in imports_of(path) if (name + ".").startswith(imported.rstrip(".") + ".")}
            assert not wrong, f"{name_of(path)} imports {sorted(wrong)}: {why}"


def test_search_knows_only_itself() -> None:
    """What is derived can be tried, replaced and tested without the rest of the package."""
    for path in (PACKAGE / "embedded" / "search").glob("*.py"):
        ours = {name for name in imports_of(path) if name.startswith("nopokedb.")}
        wrong = {
            name
            for name in ours
            if not name.startswith(("nopokedb.embedded.search", "nopokedb.text_query", "nopokedb.distances"))
        }
        assert not wrong, f"{name_of(path)} imports {sorted(wrong)}"


def test_only_the_entry_point_imports_the_command_line() -> None:
    """Whoever does not call it does not need its extra."""
    for path in MODULES:
        if "cli" not in path.parts and path.name != "__main__.py":
            assert not any(name.startswith("nopokedb.cli") for name in imports_of(path)), path


FRAMEWORKS = ("nopokedb.adapters", "langchain", "llama_index", "haystack")


def test_nothing_imports_an_adapter() -> None:
    """Adapters stand on the public class; nothing stands on them but the command that is one."""
    for path in MODULES:
        if "adapters" not in path.parts and path.parts[-2:] != ("cli", "mcp.py"):
            wrong = {name for name in imports_of(path) if name.startswith(FRAMEWORKS)}
            assert not wrong, f"{path} imports {sorted(wrong)}"


def test_public_names() -> None:
    """`__all__` is what the package offers: sorted, real, documented, and nothing public besides."""
    names = nopokedb.__all__
    assert names == sorted(names)
    for name in names:
        assert getattr(nopokedb, name).__doc__, f"{name} has no docstring"
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module != "typing"]
    assert {alias.name for node in froms for alias in node.names} == set(names)


def test_public_methods_are_documented() -> None:
    """Every public method says what it does."""
    for cls in (nopokedb.NoPokeDB, nopokedb.AsyncNoPokeDB, nopokedb.Batch, nopokedb.View):
        for name, member in inspect.getmembers(cls):
            if not name.startswith("_") and callable(member):
                assert member.__doc__, f"{cls.__name__}.{name}"


def test_versions_agree() -> None:
    """pyproject.toml and the package name one version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == nopokedb.__version__ == "1.0.0.dev0"


def test_every_dependency_has_a_reason() -> None:
    """Each run-time dependency stands on its own line with the reason beside it."""
    text = (ROOT / "pyproject.toml").read_text()
    block = text[text.index("dependencies = [") : text.index("]", text.index("dependencies = ["))]
    lines = [line for line in block.splitlines()[1:] if line.strip()]
    assert lines and all("#" in line for line in lines)


def test_no_dangerous_calls() -> None:
    """No eval, no exec, no pickled arrays, no blanket except that goes on without a stated reason."""
    for path in MODULES:
        text = path.read_text()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec", "compile"), path
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant) and node.value.value is False, path
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"{path}:{node.lineno}: bare except"


def test_files_stay_small() -> None:
    """A file over 500 lines needs another cut."""
    for path in MODULES:
        assert len(path.read_text().splitlines()) <= 500, path


def test_importing_is_light() -> None:
    """`import nopokedb` loads no native library but NumPy's and orjson's, and nothing of an extra, nor asyncio."""
    heavy = (
        *("faiss", "rabitqlib", "apsw", "google_crc32c", "sqlite3", "tqdm", "tantivy", "wordllama", "click", "rich"),
        *("httpx", "grpc", "google.protobuf", "fastapi", "uvicorn", "prometheus_client", "opentelemetry", "pyarrow"),
        *("pandas", "polars", "h5py", "matplotlib", "psycopg", "langchain_core", "mcp", "nopokedb.embedded.engine"),
        *("asyncio", "ssl"),
    )
    code = f"import sys, nopokedb; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_release_notes_are_the_part_of_the_changelog() -> None:
    """What stands between two headings, and an error that names the versions for one that there is not."""
    text = "# Changelog\n\n## Unreleased\n\n## 1.1.0 (2030-01-02)\n\n### Added\n\n- two\n\n## [1.0.0]\n- one\n"
    assert notes_of(text, "1.1.0") == "### Added\n\n- two"
    assert notes_of(text, "1.0.0") == "- one"
    for version, words in (("1.2.0", "Unreleased, 1.1.0, 1.0.0"), ("Unreleased", "found none")):
        with pytest.raises(ValueError, match=words):
            notes_of(text, version)
    command = [sys.executable, "-m", "release.notes"]
    run = subprocess.run([*command, "Unreleased"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == notes_of((ROOT / "CHANGELOG.md").read_text(), "Unreleased")
    for wrong in (["9.9"], [], [""]):
        run = subprocess.run([*command, *wrong], cwd=ROOT, capture_output=True, text=True, check=False)
        assert run.returncode == 2 and "expected" in run.stderr and not run.stdout


def test_the_lock_holds_what_the_tests_need() -> None:
    """requirements-dev.lock pins each requirement of the package and of the extra test, to versions that pyproject.toml
    allows, every one with hashes and none from elsewhere than the index; `make lock` writes it."""
    text = (ROOT / "requirements-dev.lock").read_text()
    pins = re.findall(
        r"^([a-z0-9-]+)(?:\[[a-z,]+\])?==(\S+)(?: ; .*?)? \\\n((?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.M
    )
    starts = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert len(pins) == len(starts) > 50
    versions: dict[str, set[str]] = {}
    for name, version, _ in pins:
        versions.setdefault(name, set()).add(version)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for line in project["dependencies"] + project["optional-dependencies"]["test"]:
        requirement = Requirement(line)
        found = versions.get(canonicalize_name(requirement.name), set())
        assert found and all(requirement.specifier.contains(version, prereleases=True) for version in found), line
    assert "://" not in text and "file:" not in text and " @ " not in text


# --- documents ----------------------------------------------------------------------------------------------


def test_the_architecture_names_every_module() -> None:
    """Nobody has to guess what a file is for."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    for path in MODULES:
        if path.name != "__init__.py":
            assert path.name in text, f"ARCHITECTURE.md does not mention {path.relative_to(PACKAGE)}"


def test_the_readme_names_every_public_method_and_error() -> None:
    """What can be called is found on the first page."""
    text = (ROOT / "README.md").read_text()
    for name, member in inspect.getmembers(nopokedb.NoPokeDB):
        if not name.startswith("_") and callable(member):
            assert re.search(rf"`{name}\b", text), f"README.md does not mention {name}"


def test_the_changelog_has_an_unreleased_part() -> None:
    assert "## Unreleased" in (ROOT / "CHANGELOG.md").read_text()


def test_documents_link_to_files_that_exist() -> None:
    """No dead links between the documents."""
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text()):
            if "://" not in target:
                assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_the_readme_code_runs(tmp_path: Path) -> None:
    """Every Python block of the README runs, one after the other, in an empty folder, and its assertions hold."""
    assert len(python_blocks(ROOT / "README.md")) >= 3
    assert "'score':" in run_page(ROOT / "README.md", tmp_path)


EXECUTED = [page for page in pages() if python_blocks(page)]


@pytest.mark.parametrize("page", EXECUTED, ids=lambda page: page.name)
def test_the_code_of_the_documents_runs(tmp_path: Path, page: Path) -> None:
    """Every document with Python in it runs from top to bottom in an empty folder, and its assertions hold."""
    if needs_adapter(page):
        for framework in ("langchain_core", "llama_index", "haystack"):
            pytest.importorskip(framework, reason=f"make test-adapters runs it: {install_hint('test-adapters')}")
    run_page(page, tmp_path)


def test_no_code_of_the_documents_escapes() -> None:
    """Blocks name a language; Python is written `python`, which is run; engines.md shows a server that is not there."""
    known = {"python", "sh", "console", "text", "json", "{toctree}", "{eval-rst}", "{include}"}
    for page in pages():
        languages = set(re.findall(r"^```(\S+)", page.read_text(), re.M))
        assert languages <= known | ({"py"} if page.name == "engines.md" else set()), page.name


def test_the_small_database_has_150_lines() -> None:
    """docs/from-scratch.md keeps what its title says: the blocks that define something, blank lines not counted."""
    blocks = [b for b in python_blocks(ROOT / "docs" / "from-scratch.md") if re.search(r"^(class|def) ", b, re.M)]
    lines = [line for block in blocks for line in block.splitlines() if line.strip()]
    assert 130 <= len(lines) <= 150


def test_every_operator_is_documented() -> None:
    """docs/filters.md has each operator of the table, and names none that does not exist."""
    text = (ROOT / "docs" / "filters.md").read_text()
    named = set(re.findall(r"\$[a-z_]+", text)) - {"$id"}
    assert named == set(where.OPERATORS)


def test_every_option_of_queries_is_documented() -> None:
    """docs/search.md has each argument of `query`."""
    text = (ROOT / "docs" / "search.md").read_text()
    for name in set(inspect.signature(nopokedb.NoPokeDB.query).parameters) - {"self", "where", "include", "k"}:
        assert re.search(rf"\b{name}\b", text), f"docs/search.md does not mention {name}"


def test_the_readme_names_the_commands() -> None:
    """The two commands, and how to install from a clone as every message says it."""
    text = (ROOT / "README.md").read_text()
    assert "make demo" in text and "make test" in text
    assert distribution.install_hint() in text
    for extra in ("text", "embed", "all"):
        assert distribution.install_hint(extra) in text
    targets = set(re.findall(r"`make ([a-z-]+)`", text))
    makefile = (ROOT / "Makefile").read_text()
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.M), f"README.md names make {target}"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for path in [*MODULES, *(ROOT / "examples").glob("*.py")]:
        for extra in re.findall(r"install_hint\([\"']([a-z-]+)[\"']\)", path.read_text()):
            assert extra in extras, f"{path.name} asks for the extra {extra}"


def test_the_source_archive_and_the_wheel_install_and_work(tmp_path: Path) -> None:
    """An archive of the source holds what is needed to build, test and document; the wheel that is built from it, not
    from the tree, installs, carries its types, and works away from the tree. The environment sees the installed
    dependencies; only the package itself is installed into it."""
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(tmp_path), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (archive,) = tmp_path.glob("nopokedb-1.0.0.dev0.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    for file in ("Makefile", "LICENSE", "CHANGELOG.md", "requirements-dev.lock", "docs/conf.py", "tests/conftest.py"):
        assert file in names, file
    assert {"src/nopokedb/insight/page.html", "release/licences.toml", "typing_tests/library.py"} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith((".venv", "build"))]
    (wheel,) = tmp_path.glob("nopokedb-1.0.0.dev0-*.whl")
    target = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)],
        check=True,
        capture_output=True,
    )
    assert (target / "nopokedb" / "py.typed").exists()
    assert (target / "nopokedb" / "insight" / "page.html").exists()
    ours = PACKAGE / "server" / "console"
    for file in ours.rglob("*"):
        assert (target / "nopokedb" / "server" / "console" / file.relative_to(ours)).exists(), file
    code = (
        "import nopokedb, pathlib, sys; assert pathlib.Path(nopokedb.__file__).is_relative_to(sys.argv[1]);"
        "db = nopokedb.NoPokeDB(dim=2, path='db'); db.add([1, 2], {'a': 1}); print(db.query([1, 2]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(target)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(target), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "'metadata': {'a': 1}" in run.stdout


def test_every_log_record_says_its_event() -> None:
    """Each call of the library's logger carries `extra={"event": ...}`, and docs/operations.md lists just these."""
    events = set()
    for path in sorted((ROOT / "src" / "nopokedb").rglob("*.py")):
        if "server" in path.parts:
            continue  # has a table of its own
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if isinstance(node.func.value, ast.Name) and node.func.value.id == "_log":
                extra = next((word.value for word in node.keywords if word.arg == "extra"), None)
                assert extra is not None, f"{path}:{node.lineno}"
                events.add(ast.literal_eval(extra)["event"])
    section = (ROOT / "docs" / "operations.md").read_text().split("## Logs")[1].split("## A server")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == events
