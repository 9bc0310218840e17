#!/usr/bin/env python3
"""Strobe against diffusers on one machine, in one run: seconds a denoising step and seconds from start to written mp4.

Makes random Wan checkpoints (see CASES), runs `strobe generate` and a fresh Python process with diffusers in turn,
ROUNDS times each, float32, the same number of threads, the same seed; prints medians, ratios and their spread.

Needs a Python with torch 2.11.0, diffusers, transformers, sentencepiece, ftfy, imageio and imageio-ffmpeg:
    python3 -m venv /tmp/peer && /tmp/peer/bin/pip install torch==2.11.0 diffusers==0.37.0 transformers==4.57.6 \
        sentencepiece ftfy imageio imageio-ffmpeg accelerate protobuf
    /tmp/peer/bin/python tools/dev/bench_diffusers.py --strobe build/release/tools/strobe
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

PROMPT = "a large red circle moving left on a white background"
# name: transformer heads, head width, layers, ffn; VAE base width; clip frames, height, width; steps
CASES = {
    "tiny": dict(heads=2, head=64, layers=2, ffn=256, vae=8, res=1, frames=17, height=128, width=128, steps=20),
    "small": dict(heads=4, head=64, layers=6, ffn=1024, vae=24, res=1, frames=33, height=128, width=128, steps=10),
    "wide": dict(heads=12, head=128, layers=4, ffn=8960, vae=96, res=2, frames=9, height=128, width=128, steps=4),
}

PEER = r"""
import json, sys, time
start = float(sys.argv[3])
import torch
torch.set_num_threads(int(sys.argv[2]))
from diffusers import WanPipeline
from diffusers.utils import export_to_video
job = json.loads(sys.argv[1])
pipe = WanPipeline.from_pretrained(job["model"], torch_dtype=torch.float32)
pipe.set_progress_bar_config(disable=True)
stamps = []
def stamp(pipe, step, t, kwargs):
    stamps.append(time.time())
    return kwargs
frames = pipe(prompt=job["prompt"], negative_prompt="", num_frames=job["frames"], height=job["height"], width=job["width"],
              num_inference_steps=job["steps"], guidance_scale=4.0, generator=torch.Generator().manual_seed(0),
              callback_on_step_end=stamp).frames[0]
export_to_video(frames, job["output"], fps=16)
print(json.dumps({"total": time.time() - start, "step": (stamps[-1] - stamps[0]) / (len(stamps) - 1)}))
"""


def make_model(folder, case):
    """A checkpoint with random weights; the tokenizer and text encoder come from strobe's default model."""
    import torch
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanTransformer3DModel
    from transformers import T5TokenizerFast, UMT5EncoderModel
    from diffusers import WanPipeline

    torch.manual_seed(0)
    base = os.path.join(os.environ["XDG_CACHE_HOME"], "strobe", "models", "tiny-random-v1")
    transformer = WanTransformer3DModel(num_attention_heads=case["heads"], attention_head_dim=case["head"], in_channels=16,
                                        out_channels=16, text_dim=64, freq_dim=256, ffn_dim=case["ffn"],
                                        num_layers=case["layers"], cross_attn_norm=True,
                                        qk_norm="rms_norm_across_heads", eps=1e-6, rope_max_seq_len=1024)
    vae = AutoencoderKLWan(base_dim=case["vae"], z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=case["res"],
                           temperal_downsample=[False, True, True])
    pipe = WanPipeline(tokenizer=T5TokenizerFast.from_pretrained(os.path.join(base, "tokenizer")),
                       text_encoder=UMT5EncoderModel.from_pretrained(os.path.join(base, "text_encoder")), vae=vae,
                       scheduler=UniPCMultistepScheduler.from_pretrained(os.path.join(base, "scheduler")),
                       transformer=transformer)
    pipe.save_pretrained(folder)


def run_strobe(args, model, case, output):
    start = time.time()
    result = subprocess.run([args.strobe, "generate", "--model", model, "-p", PROMPT, "-n", "", "-o", output, "--overwrite",
                             "--num-frames", str(case["frames"]), "--height", str(case["height"]), "--width",
                             str(case["width"]), "--steps", str(case["steps"]), "--cfg-scale", "4", "--threads",
                             str(args.threads), "--dtype", "fp32", "-v"], capture_output=True, text=True, check=True)
    total = time.time() - start
    denoise = float(re.search(r"denoise ([0-9.]+)ms", result.stderr).group(1)) / 1e3
    return {"total": total, "step": denoise / case["steps"]}


def run_peer(args, model, case, output):
    job = json.dumps(dict(case, model=model, prompt=PROMPT, output=output))
    result = subprocess.run([sys.executable, "-c", PEER, job, str(args.threads), str(time.time())], capture_output=True,
                            text=True, check=True)
    return json.loads(result.stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strobe", default="build/release/tools/strobe")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", default=",".join(CASES))
    args = parser.parse_args()
    args.strobe = os.path.abspath(args.strobe)
    work = tempfile.mkdtemp(prefix="strobe_bench_")
    os.environ["XDG_CACHE_HOME"] = work
    subprocess.run([args.strobe, "models"], check=True, capture_output=True)
    print("| case | tokens | step strobe | step diffusers | ratio (spread) | clip strobe | clip diffusers | ratio (spread) |")
    print("|---|---|---|---|---|---|---|---|")
    for name in args.cases.split(","):
        case = CASES[name]
        model = os.path.join(work, name)
        make_model(model, case)
        rows = {"strobe": [], "peer": []}
        for round_number in range(args.rounds + 1):
            ours = run_strobe(args, model, case, os.path.join(work, "a.mp4"))
            theirs = run_peer(args, model, case, os.path.join(work, "b.mp4"))
            if round_number > 0:  # the first round warms the page cache
                rows["strobe"].append(ours)
                rows["peer"].append(theirs)
        line = [name, str(((case["frames"] - 1) // 4 + 1) * (case["height"] // 16) * (case["width"] // 16))]
        for key in ("step", "total"):
            ours = [row[key] for row in rows["strobe"]]
            theirs = [row[key] for row in rows["peer"]]
            ratios = sorted(a / b for a, b in zip(ours, theirs))
            line += [f"{statistics.median(ours):.3f} s", f"{statistics.median(theirs):.3f} s",
                     f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})"]
        print("| " + " | ".join(line) + " |", flush=True)


if __name__ == "__main__":
    main()
