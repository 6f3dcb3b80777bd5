"""TensorFlow's and LiteRT's Python interpreters with the operators of Larq Compute Engine and ours.

The host library is an external delegate (``runtime/tflite/delegate.c``), which is how their stock packages take operators
that they do not have: :func:`tflite_interpreter` loads it for them. Their interface is C and grows at its end only, but it
is not promised to: with a version that was not tested a small model runs in a process of its own first.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

from bdnet_deploy.errors import MissingPackageError, ModelFileError, UsageError, unknown_name
from bdnet_deploy.hostlib import host_library
from bdnet_deploy.peers import PeerError
from bdnet_deploy.peers.jobs import Runtime

#: Runtime -> its distributions on the package index, the module of its interpreter, and the versions that were tested.
RUNTIMES: dict[str, tuple[tuple[str, ...], str, tuple[str, ...]]] = {
    "litert": (("ai-edge-litert",), "ai_edge_litert", ("1.4.0", "2.0.3", "2.3.0")),
    "tensorflow": (("tensorflow", "tensorflow-cpu"), "tensorflow", ("2.19.1",)),
}
_WORKER = Path(__file__).with_name("tensorflow_lite_check.py")
_TIMEOUT = 120.0


def tflite_interpreter(
    source: str | os.PathLike[str] | bytes, runtime: str = "auto", *, num_threads: int = 1, xnnpack: bool = True
) -> Any:
    """An interpreter of TensorFlow or LiteRT that runs a ``.tflite`` of profile "stock" or "extended".

    Use it as theirs: ``allocate_tensors``, ``set_tensor``, ``invoke``, ``get_tensor``. The binary operators run on one thread.

    Args:
        source: a ``.tflite`` file or its content.
        runtime: ``"litert"`` (package ai-edge-litert), ``"tensorflow"``, or ``"auto"``: the first that is installed.
        num_threads: for the built-in operators.
        xnnpack: let XNNPACK run the built-in operators that it has. It is faster, and may round their floats differently.

    Raises:
        MissingPackageError: the package is not installed.
        ModelFileError: no such file.
        PeerError: the interpreter refused the model, or its version failed the check.
        UsageError: unknown runtime, or no thread.
    """
    name = find_runtime(runtime)
    if num_threads < 1:
        raise UsageError(f"{num_threads} threads", fix="give num_threads of 1 or more")
    content = source if isinstance(source, bytes) else _read(Path(source))
    check_runtime(name)
    interpreter, load_delegate, resolvers = _interface(name)
    kind = resolvers.AUTO if xnnpack else resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        with warnings.catch_warnings():
            # TensorFlow announces that LiteRT takes over.
            warnings.filterwarnings("ignore", message=r"\s*Warning: tf.lite.Interpreter is deprecated")
            made = interpreter(
                model_content=content,
                num_threads=num_threads,
                experimental_op_resolver_type=kind,
                experimental_delegates=[load_delegate(str(host_library()))],
            )
    except (ValueError, RuntimeError) as error:
        raise PeerError(f"the interpreter of {name} refused the model", why=str(error)) from error
    return made


def process(runtime: str = "auto", *, xnnpack: bool = True) -> Runtime:
    """Such an interpreter in a process of its own.

    Without ``xnnpack`` the built-in operators are TensorFlow Lite's own; XNNPACK rounds int8 in another way.

    Raises:
        MissingPackageError: the package is not installed.
        UsageError: unknown runtime.
    """
    try:
        name = find_runtime(runtime)
    except MissingPackageError as error:
        error.why = "the .tflite has operators of bdnet-deploy's own, which Larq Compute Engine does not know"
        error.fix = f"{error.fix}, or export with --profile stock"
        raise
    return Runtime("TensorFlow Lite with bdnet-deploy's operators", "tflite", (("runtime", name), ("xnnpack", xnnpack)))


def find_runtime(runtime: str) -> str:
    """``runtime``, or for "auto" the first that is installed.

    Raises:
        MissingPackageError: it is not installed.
        UsageError: there is none of that name.
    """
    if runtime not in ("auto", *RUNTIMES):
        raise unknown_name("TensorFlow Lite runtime", runtime, ("auto", *RUNTIMES))
    for name in RUNTIMES if runtime == "auto" else (runtime,):
        if importlib.util.find_spec(RUNTIMES[name][1]) is not None:
            return name
    package = RUNTIMES["litert" if runtime == "auto" else runtime][0][0]
    raise MissingPackageError(f"this needs the Python package {package}", fix=f"pip install {package}")


def runtime_version(name: str) -> str:
    """The installed version of a runtime, "unknown" if its package does not say."""
    for distribution in RUNTIMES[name][0]:
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"


@functools.cache
def check_runtime(name: str) -> None:
    """Run a model with all operators in a process of its own, unless this version was tested; at most once a process.

    Warns:
        UserWarning: the version is not one of the tested, but passed.

    Raises:
        PeerError: it crashed, or its output is wrong.
    """
    version, tested = runtime_version(name), RUNTIMES[name][2]
    if version in tested:
        return
    try:
        done = subprocess.run(
            [sys.executable, str(_WORKER), name, str(host_library())],
            capture_output=True,
            timeout=_TIMEOUT,
            check=False,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        failure = "" if done.returncode == 0 else done.stderr.decode("utf-8", "replace").strip()[-500:]
        failed = done.returncode != 0
        if failed and done.returncode < 0:
            failure = f"killed by signal {-done.returncode}"
    except subprocess.TimeoutExpired:
        failed, failure = True, f"no answer within {_TIMEOUT:g} s"
    if failed:
        raise PeerError(
            f"the operators of bdnet-deploy do not work in {name} {version}",
            why=failure,
            fix=f"pip install {RUNTIMES[name][0][0]}=={tested[-1]}",
        )
    warnings.warn(
        f"{name} {version} was not tested with the operators of bdnet-deploy ({', '.join(tested)} were); a check of them passed",
        stacklevel=3,
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelFileError("the model cannot be read", where=str(path), why=error.strerror) from error


def _interface(name: str) -> tuple[Any, Any, Any]:
    """Interpreter, load_delegate, OpResolverType."""
    try:
        if name == "tensorflow":
            module = importlib.import_module("tensorflow").lite
            return module.Interpreter, module.experimental.load_delegate, module.experimental.OpResolverType
        module = importlib.import_module("ai_edge_litert.interpreter")
        return module.Interpreter, module.load_delegate, module.OpResolverType
    except (ImportError, AttributeError) as error:
        raise MissingPackageError(
            f"the Python package of {name} cannot be imported",
            why=str(error),
            fix=f"pip install {RUNTIMES[name][0][0]}",
        ) from error
