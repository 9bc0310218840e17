#!/usr/bin/env python3
"""Peak memory of `strobe decode` and `strobe encode` against the number of frames.

Makes random Wan 2.1 autoencoders (a narrow one, and one of the published width) around a tiny transformer, decodes
random latents and encodes the clip again; prints the peak resident memory of each run, less that of the same command on
one frame of 16x16 (program, libraries, weights).

Needs the Python of bench_diffusers.py.
    /tmp/peer/bin/python tools/dev/vae_memory.py [--cases narrow,wide]
"""
import argparse
import os
import shutil
import subprocess
import tempfile

import bench_diffusers

# base width of the VAE, residual blocks a level, clip lengths, height, width
CASES = {"narrow": (16, 2, (17, 81, 161), 480, 832), "wide": (96, 2, (5, 9, 13), 240, 416)}


def run(command):
    """Peak resident memory in MiB and seconds."""
    result = subprocess.run(["/usr/bin/time", "-f", "%M %e"] + command, capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(result.stderr)
    kilobytes, seconds = result.stderr.strip().splitlines()[-1].split()
    return int(kilobytes) / 1024, float(seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strobe", default="build/release/tools/strobe")
    parser.add_argument("--cases", default=",".join(CASES))
    args = parser.parse_args()
    import torch
    from safetensors.torch import save_file

    strobe = os.path.abspath(args.strobe)
    work = tempfile.mkdtemp(prefix="strobe_memory_")
    os.environ["XDG_CACHE_HOME"] = work
    subprocess.run([strobe, "models"], check=True, capture_output=True)
    print("| VAE | frames | decode, peak | less program and weights | time | encode, peak | less program and weights | time |")
    print("|---|---|---|---|---|---|---|---|")
    for name in args.cases.split(","):
        width, blocks, lengths, height, clip_width = CASES[name]
        model = os.path.join(work, name)
        bench_diffusers.make_model(model, dict(heads=2, head=64, ffn=256, layers=2, vae=width, res=blocks))
        base = None
        for frames in (1,) + lengths:
            h, w = (16, 16) if base is None else (height, clip_width)
            latents, clip = os.path.join(work, "latents.safetensors"), os.path.join(work, "clip.mkv")
            save_file({"latents": torch.randn(16, (frames - 1) // 4 + 1, h // 8, w // 8)}, latents)
            decode = run([strobe, "decode", latents, "-o", clip, "--lossless", "--overwrite", "--model", model, "-q"])
            encode = run([strobe, "encode", clip, "-o", latents, "--overwrite", "--model", model, "-q"])
            if base is None:
                base = (decode[0], encode[0])
                continue
            cells = [f"{peak:.0f} MiB | {peak - least:.0f} MiB | {seconds:.1f} s"
                     for (peak, seconds), least in zip((decode, encode), base)]
            print(f"| {name}, base {width}, {clip_width}x{height} | {frames} | {' | '.join(cells)} |", flush=True)
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
