#!/usr/bin/env python3
"""Reads the event files of a run folder with TensorBoard's own loader and compares them with metrics.jsonl.

    tests/tensorboard_check.py RUN_FOLDER     (needs tensorboard)

To see a resumed run, stop one with SIGKILL, resume it, and check its folder.
"""
import json
import math
import os
import struct
import sys

from tensorboard.backend.event_processing import event_accumulator


def as_float32(x):
    return math.nan if x is None else struct.unpack("<f", struct.pack("<f", x))[0]


def main(run):
    expected = {}
    with open(os.path.join(run, "metrics.jsonl")) as lines:
        for row in map(json.loads, lines):
            group = row.get("eval", "train")
            for key, value in row.items():
                if key not in ("step", "eval"):
                    expected.setdefault(f"{group}/{key}", []).append((row["step"], as_float32(value)))
    events = event_accumulator.EventAccumulator(run, size_guidance={event_accumulator.SCALARS: 0})
    events.Reload()
    tags = events.Tags()["scalars"]
    assert sorted(tags) == sorted(expected), (sorted(tags), sorted(expected))
    for tag in tags:
        found = events.Scalars(tag)
        assert [e.step for e in found] == [step for step, _ in expected[tag]], (tag, "steps differ")
        for e, (step, value) in zip(found, expected[tag]):
            assert e.value == value or (math.isnan(e.value) and math.isnan(value)), (tag, step, e.value, value)
        assert all(a.wall_time <= b.wall_time for a, b in zip(found, found[1:])), (tag, "wall times go back")
    steps = len(expected.get("train/loss", []))
    print(f"tensorboard_check: {len(tags)} tags, {steps} steps, {len(expected.get('validation/mse', []))} evaluations: equal")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
