"""A byte-level GPT trained on the standard library's source, that survives preemption.

The same training as plain.py; what hpcresume adds are the lines with `hr.` and `s.` in them.
"""

from __future__ import annotations

from pathlib import Path

from common import Trace, build, dataset, parser, save_final, train_step

import hpcresume as hr


def main() -> None:
    """Train; stop when warned; go on where the last attempt stopped."""
    options = parser(__doc__)
    options.add_argument("--run", type=Path, required=True, help="the run's directory")
    options.add_argument("--every", default="20 steps", help='how often to save: "20 steps", "5min", "auto"')
    options.add_argument("--workers", type=int, default=0, help="DataLoader workers")
    args = options.parse_args()
    model, optimizer, scheduler = build(args.steps, args.seed)
    trace = Trace(args.out)

    with hr.session(args.run, every=args.every) as s:
        s.track(model=model, optimizer=optimizer, scheduler=scheduler)
        batches = s.batches(
            dataset(args.text_bytes),
            batch_size=args.batch_size,
            shuffle=True,
            seed=args.seed,
            num_workers=args.workers,
        )
        for step in s.steps(args.steps):
            outcome = train_step(model, optimizer, scheduler, batches)
            trace.step(step, outcome)
            s.log(loss=outcome[0])
    save_final(args.out, model, optimizer, scheduler)


if __name__ == "__main__":
    main()
