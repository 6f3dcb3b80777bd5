"""``python tflite_zoo_worker.py litert|tensorflow <library> <folder>``: runs every .tflite of the folder on its samples.

Needs numpy and the runtime only. XNNPACK is off: it fuses operators, and not the same ones in two files.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np


def main(runtime: str, library: str, folder: Path) -> None:
    if runtime == "tensorflow":
        from tensorflow.lite.python.interpreter import Interpreter, OpResolverType, load_delegate
    else:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType, load_delegate
    for file in sorted(folder.glob("*.tflite")):
        interpreter = Interpreter(
            model_content=file.read_bytes(),
            num_threads=1,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            experimental_delegates=[load_delegate(library)],
        )
        interpreter.allocate_tensors()
        rows = []
        for x in np.load(folder / f"{file.name.partition('.')[0]}.npy"):
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x[None])
            interpreter.invoke()
            rows.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
        np.save(file.with_suffix(".out.npy"), np.concatenate(rows))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
