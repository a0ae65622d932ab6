"""Compares two runs: medians over the second half of each log, and the random-feature Fréchet distances.

Run: python3 two_runs.py RUN OTHER     (Python 3.11)

Prints a table in Markdown. Both arguments are run folders of `dcgan-train run`, with the same data and length.
"""

import json
import statistics
import sys
from pathlib import Path

COLUMNS = ["loss_d", "loss_g", "d_x", "d_gz_after", "images_per_s"]


def read(run):
    lines = [json.loads(line) for line in (Path(run) / "stats.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["event"] == "step"]
    second_half = steps[len(steps) // 2 :]
    medians = [statistics.median(line[column] for line in second_half) for column in COLUMNS]
    frechet = [line["frechet"] for line in lines if line["event"] == "checkpoint" and line["frechet"] is not None]
    alarms = sum(line["event"] == "alarm" for line in lines)
    return [steps[-1]["step"], *medians, frechet[-1], min(frechet), alarms]


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    names = ["run", "steps", *COLUMNS, "random-feature Fréchet distance at the end", "lowest", "alarms"]
    print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}")
    for run in sys.argv[1:]:
        cells = [f"{value:,.4g}" if isinstance(value, float) else str(value) for value in read(run)]
        print(f"| {Path(run).name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
