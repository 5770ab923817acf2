"""The last stage: takes the newest generation of `train` and measures it. A plain program, as `prepare` is."""

import json
import os
from pathlib import Path

import numpy as np

import hpcresume as hr


def main() -> None:
    run = Path(os.environ["HPCRESUME_RUN"])
    run.mkdir(parents=True, exist_ok=True)
    data = np.load(Path(os.environ["HPCRESUME_STAGE_PREPARE_RUN"]) / "data.npz")
    generation, state = hr.load(os.environ["HPCRESUME_STAGE_TRAIN_RUN"])  # the newest one that verifies
    weights = state["objects"]["weights"]
    error = float(np.mean((data["inputs"] @ weights - data["targets"]) ** 2))
    result = {"generation": generation.name, "error": error, "weights": [value.hex() for value in weights.tolist()]}
    (run / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    print(f"{generation.name}: mean square error {error:.4f}")


if __name__ == "__main__":
    main()
