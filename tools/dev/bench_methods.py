#!/usr/bin/env python3
"""Whole generate runs, dense against every sparse method, interleaved; a Markdown table of ratios.

usage: bench_methods.py [--rounds N] [--size WxH] [--num-frames N] [--steps N] [--json FILE]

Every clip starts as a program of its own, from the command to the video file. A ratio under 1 means faster than dense;
the spread is over rounds. Density is what the side-car says was computed over all steps and layers.
"""
import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STROBE = ROOT / "build/release/tools/strobe"
# Options that bring each method to a density of at most 0.3 on the default grid, 18 x 16 x 16 tokens.
METHODS = {
    "dense": "dense",
    "radial": "radial:block_size=64,decay_factor=0.2,decimation=512,dense_steps=1,dense_layers=0",
    "vmoba": "vmoba:chunk_1d=1,chunk_2d=8/8,chunk_3d=3/8/8,topk=4/1/5,dense_steps=1",
    "psa": "psa:block_size=64,query_block=64,rule=quota,ends=.1/.2/.3/.5,cap=off,dense_steps=1",
    "adaspa": "adaspa:sparsity=0.8,search_steps=0/10",
    "sparsed": "sparsed:keep=0.2,block_size=64,skip=0.05",
    "window": "window:window=1/6/6,block_size=64,dense_steps=1",
}


def run(method, args, folder):
    output = folder / f"{method}.mp4"
    command = [str(STROBE), "generate", "-p", "a large red circle moving left", "-o", str(output), "--overwrite", "-q",
               "--size", args.size, "--num-frames", str(args.num_frames), "--steps", str(args.steps),
               "--attention", METHODS[method]]
    start = time.monotonic()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    seconds = time.monotonic() - start
    ran = json.loads(output.with_suffix(".json").read_text())
    rows = [r for r in ran["ran"]["attention"] if r["kind"] == "self"]
    calls = sum(r["calls"] for r in rows)
    density = sum(r["density"] * r["calls"] for r in rows) / calls
    sparse = [r for r in rows if r["density"] < 1]
    sparse_calls = sum(r["calls"] for r in sparse)
    return {"seconds": seconds, "denoise": ran["times_ms"]["denoise"] / 1e3, "density": density,
            "sparse_density": sum(r["density"] * r["calls"] for r in sparse) / sparse_calls if sparse else 1.0}


def spread(values):
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", default="256x256")
    parser.add_argument("--num-frames", type=int, default=69)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results = {method: [] for method in METHODS}
    with tempfile.TemporaryDirectory() as name:
        run("dense", args, Path(name))  # the model and the file cache are warm afterwards
        for _ in range(args.rounds):
            for method in METHODS:
                results[method].append(run(method, args, Path(name)))
    print("| method | density, sparse calls | density, whole run | denoise / dense | start to mp4 / dense |")
    print("|---|---|---|---|---|")
    for method, runs in results.items():
        ratios = {key: [r[key] / d[key] for r, d in zip(runs, results["dense"])] for key in ("denoise", "seconds")}
        print(f"| {method} | {runs[0]['sparse_density']:.3f} | {runs[0]['density']:.3f} | {spread(ratios['denoise'])} |"
              f" {spread(ratios['seconds'])} |")
    dense = results["dense"]
    print(f"\ndense: denoise {statistics.median(r['denoise'] for r in dense):.1f} s, "
          f"start to mp4 {statistics.median(r['seconds'] for r in dense):.1f} s")
    if args.json:
        args.json.write_text(json.dumps({"settings": vars(args) | {"json": str(args.json)}, "methods": METHODS,
                                         "runs": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
