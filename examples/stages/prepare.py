"""The first stage: makes the data. A plain program without a session: it is done when it ends well."""

import os
from pathlib import Path

import numpy as np

ROWS, COLUMNS = 2000, 20


def main() -> None:
    run = Path(os.environ["HPCRESUME_RUN"])
    run.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(1)
    inputs = random.standard_normal((ROWS, COLUMNS))
    targets = inputs @ random.standard_normal(COLUMNS) + 0.1 * random.standard_normal(ROWS)
    # Under another name first: a stage that was killed while it wrote leaves nothing that looks whole.
    np.savez(run / "data.part.npz", inputs=inputs, targets=targets)
    (run / "data.part.npz").rename(run / "data.npz")
    print(f"{ROWS} rows in {run / 'data.npz'}")


if __name__ == "__main__":
    main()
