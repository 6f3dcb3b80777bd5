"""The distribution: metadata, what the wheel holds, and that it works without the source tree."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import bdnet_deploy

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@pytest.fixture(scope="module")
def project(root: Path) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))


def test_core_dependencies_are_lean(project: dict) -> None:
    names = {requirement.split(">")[0].split(";")[0] for requirement in project["project"]["dependencies"]}
    assert names == {"numpy", "click", "rich", "flatbuffers", "tomli"}


def test_extras(project: dict) -> None:
    extras = project["project"]["optional-dependencies"]
    assert {"torch", "onnx", "larq", "keras", "emulate", "images", "flash", "all", "dev"} == set(extras)
    for extra in ("larq", "keras"):
        assert all("python_version < '3.13'" in requirement for requirement in extras[extra])


def test_installed_metadata_agrees_with_the_package() -> None:
    distribution = metadata.distribution("bdnet-deploy")
    assert distribution.version == bdnet_deploy.__version__
    assert {entry.name: entry.value for entry in distribution.entry_points} == {"bdnet-deploy": "bdnet_deploy.cli:main"}


def test_exporters_are_importable_inside_the_package() -> None:
    import bdnet_deploy.export

    assert bdnet_deploy.export.__name__ == "bdnet_deploy.export"


def test_public_names_resolve_and_import_nothing_before() -> None:
    for name in bdnet_deploy.__all__:
        assert getattr(bdnet_deploy, name) is not None
    assert set(bdnet_deploy.__all__) <= set(dir(bdnet_deploy))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = bdnet_deploy.no_such_name
    code = (
        "import bdnet_deploy, sys\n"
        "heavy = {'numpy', 'torch', 'onnx', 'rich', 'click'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def clean_environment(**changes: str) -> dict[str, str]:
    """This process's environment without what would lead Python back into the source tree."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return {**kept, **changes}


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"),
            f"--config-settings=build-dir={folder / 'build'}",
            *("--wheel-dir", str(folder), str(root)),
        ],
        check=True,
    )
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_wheel_serves_every_python_of_a_platform(wheel: Path) -> None:
    name, version, python, abi, platform = wheel.stem.split("-")
    assert (name, version, python, abi) == ("bdnet_deploy", bdnet_deploy.__version__, "py3", "none")
    assert platform != "any"


@pytest.mark.slow
def test_wheel_holds_the_source_tree_s_files_and_nothing_else(wheel: Path, root: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())

    def expected(source: str, patterns: tuple[str, ...], target: str) -> set[str]:
        folder = root / source
        return {
            f"{target}/{path.relative_to(folder).as_posix()}"
            for pattern in patterns
            for path in folder.rglob(pattern)
            if path.is_file() and "__pycache__" not in path.parts
        }

    wanted = {
        *expected("bdnet_deploy", ("*.py", "*.toml", "*.c", "py.typed"), "bdnet_deploy"),
        *expected("export", ("*.py",), "bdnet_deploy/export"),
        *expected("runtime/include", ("*",), "bdnet_deploy/runtime/include"),
        *expected("runtime/src", ("*",), "bdnet_deploy/runtime/src"),
        *expected("runtime/kernels", ("*",), "bdnet_deploy/runtime/kernels"),
        *expected("runtime/threads", ("*",), "bdnet_deploy/runtime/threads"),
        *expected("runtime/host", ("*",), "bdnet_deploy/runtime/host"),
        *expected("runtime/tflite", ("*",), "bdnet_deploy/runtime/tflite"),
        *expected("firmware_examples", ("*",), "bdnet_deploy/firmware_examples"),
        *expected("examples/digits", ("model.pt", "*.npz", "train.py"), "bdnet_deploy/examples/digits"),
    }
    inside = {name for name in names if name.startswith("bdnet_deploy/") and "/_host/" not in name}
    assert inside == wanted
    (library,) = (name for name in names if "/_host/" in name)
    assert library.startswith("bdnet_deploy/_host/libbdnet.")
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in names)


class Environment:
    """A virtual environment outside the source tree, with the wheel and nothing of this one."""

    def __init__(self, folder: Path, requirement: str) -> None:
        self.folder = folder
        venv.create(folder / "venv", with_pip=True)
        self.scripts = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
        self.run("python", "-m", "pip", "install", "--quiet", requirement)

    def run(self, program: str, *arguments: str, encoding: str = "cp1252") -> str:
        """Run an installed program in the environment's folder; its stdout."""
        done = subprocess.run(
            [str(self.scripts / program), *arguments],
            cwd=self.folder,
            env=clean_environment(PYTHONIOENCODING=encoding),
            capture_output=True,
            encoding=encoding,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.mark.slow
def test_lean_install_works_outside_the_source_tree(wheel: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path, str(wheel))
    where = environment.run("python", "-c", "import bdnet_deploy.export as e; print(e.__file__)").strip()
    assert Path(where).is_relative_to(tmp_path)
    assert bdnet_deploy.__version__ in environment.run("bdnet-deploy", "--version")
    assert "cortex-m4" in environment.run("bdnet-deploy", "cores")
    assert "host library" in environment.run("bdnet-deploy", "doctor")


@pytest.mark.slow
def test_full_install_exports_verifies_profiles_and_demonstrates(wheel: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path, f"bdnet-deploy[torch,onnx,larq,emulate] @ {wheel.as_uri()}")
    code = "from bdnet_deploy import resources as r; print(r.examples_dir() / 'digits' / 'model.pt')"
    model = environment.run("python", "-c", code).strip()
    assert Path(model).is_relative_to(tmp_path)
    environment.run("bdnet-deploy", "export", model, "--target", "tflite")
    assert (tmp_path / "model.tflite").is_file()
    environment.run("bdnet-deploy", "verify", model, "model.tflite")
    environment.run("bdnet-deploy", "profile", model, "--core", "cortex-m4", "--format", "json")
    environment.run("bdnet-deploy", "demo")
