#!/usr/bin/env python3
"""Strobe against diffusers on random checkpoints of many shapes: final latents and decoded frames of whole runs.

For every case of CASES: makes a checkpoint with random weights in diffusers layout, runs WanPipeline in float32 on the
CPU, runs `strobe generate` with the same settings, and compares. Exit code 1 if a case is beyond the limits
(latents: relative L2 5e-5; frames: 70 dB).

Needs a Python with torch, diffusers, transformers, sentencepiece and ftfy (the head of bench_diffusers.py says how).
    /tmp/peer/bin/python tools/dev/check_against_diffusers.py [--cases a,b] [--keep DIR]
"""
import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile

import numpy
import torch

PROMPT = "A cat\u2019s  walk &amp; the \u201cred\u201d ball, 한국어 <extra_id_0> na\u00efve"
LIMIT_L2 = 5e-5
LIMIT_DB = 70.0

# heads, head: of the transformer; levels, blocks: of the VAE; everything else as the pipelines call it.
BASE = dict(heads=2, head=32, layers=3, ffn=120, text=40, text_heads=3, text_kv=8, text_layers=2, base=4,
            levels=[1, 2, 4, 4], blocks=2, z=16, residual=False, frames=9, height=64, width=80, steps=4, guidance=5.0,
            guidance_2=None, shift=3.0, scheduler="unipc", negative="blurry", prompt=PROMPT, seed=7, boundary=None,
            token_timesteps=False, shard=None, bf16=False, original=False)
CASES = {
    "wide_head": dict(heads=1, head=128, layers=4, ffn=333, frames=17, height=96, width=160, shift=5.0, guidance=4.5),
    "head_20": dict(heads=3, head=20, levels=[1, 1, 1, 1], blocks=1, base=6, frames=5, height=48, width=208, steps=7),
    "euler": dict(scheduler="euler", shift=7.0, steps=6, head=24),
    "euler_one_step": dict(scheduler="euler", shift=3.0, steps=1),
    "two_experts": dict(boundary=0.875, guidance=4.0, guidance_2=3.0, shift=12.0, steps=8),
    "two_experts_euler": dict(boundary=0.9, guidance=3.5, shift=5.0, steps=5, scheduler="euler"),
    "ti2v": dict(token_timesteps=True, residual=True, z=48, base=4, frames=13, height=96, width=64, shift=5.0,
                 levels=[1, 2, 4, 4]),
    "residual_small": dict(residual=True, z=8, base=4, levels=[1, 2, 4, 4], blocks=1, frames=5, height=64, width=96),
    "no_guidance_one_frame": dict(frames=1, guidance=1.0, steps=3, height=128, width=16),
    "many_steps": dict(steps=25, shift=8.0, frames=5, height=32, width=32),
    "long_prompt": dict(prompt=" ".join(["a red circle moves over the blue sea"] * 90), frames=5, negative=None),
    "sharded": dict(shard="60KB", text_layers=3, frames=5),
    "stored_bf16": dict(bf16=True, frames=5),
    "original_names": dict(original=True, frames=9, head=128, heads=1, shift=5.0),
    "original_residual": dict(original=True, residual=True, z=48, frames=5, height=64, width=64, head=128, heads=1,
                              token_timesteps=True, shift=5.0),
}


def randomise(module, generator):
    """Weights that keep activations near unit scale, so that a mistake anywhere shows in the result."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name and parameter.dim() == 1 and name.endswith("weight") or name.endswith("gamma"):
                parameter.copy_(1 + 0.1 * noise)
            elif "scale_shift_table" in name:
                parameter.copy_(0.3 * noise)
            elif parameter.dim() >= 2:
                fan_in = parameter.numel() / parameter.shape[0]
                parameter.copy_(noise * (0.9 / math.sqrt(fan_in)))
            else:
                parameter.copy_(0.05 * noise)


def make_pipeline(case, tokenizer_folder):
    from diffusers import (AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler, WanPipeline,
                           WanTransformer3DModel)
    from transformers import AutoTokenizer, UMT5Config, UMT5EncoderModel

    generator = torch.Generator().manual_seed(case["seed"] * 1000 + 17)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)

    def transformer():
        return WanTransformer3DModel(
            patch_size=(1, 2, 2), num_attention_heads=case["heads"], attention_head_dim=case["head"],
            in_channels=case["z"], out_channels=case["z"], text_dim=case["text"], freq_dim=256, ffn_dim=case["ffn"],
            num_layers=case["layers"], cross_attn_norm=True, qk_norm="rms_norm_across_heads", eps=1e-6,
            rope_max_seq_len=1024)

    keys = dict(base_dim=case["base"], z_dim=case["z"], dim_mult=case["levels"], num_res_blocks=case["blocks"],
                temperal_downsample=[False, True, True])
    if case["residual"]:
        keys.update(decoder_base_dim=2 * case["base"], is_residual=True, patch_size=2, in_channels=12, out_channels=12,
                    scale_factor_temporal=4, scale_factor_spatial=16)
    if case["z"] == 48:
        from diffusers.models.autoencoders import autoencoder_kl_wan  # noqa: F401  (the 48 statistics are data)
        spec = WAN22_STATISTICS
        keys.update(latents_mean=spec[0], latents_std=spec[1])
    elif case["z"] != 16:
        keys.update(latents_mean=[0.1 * i for i in range(case["z"])], latents_std=[1.0 + 0.05 * i for i in range(case["z"])])
    vae = AutoencoderKLWan(**keys)
    text_encoder = UMT5EncoderModel(UMT5Config(
        vocab_size=704, d_model=case["text"], d_kv=case["text_kv"], d_ff=72, num_layers=case["text_layers"],
        num_heads=case["text_heads"], feed_forward_proj="gated-gelu", layer_norm_epsilon=1e-6))
    models = [transformer()] + ([transformer()] if case["boundary"] else []) + [vae, text_encoder]
    for model in models:
        randomise(model, generator)
        model.eval()
    if case["scheduler"] == "euler":
        scheduler = FlowMatchEulerDiscreteScheduler(shift=case["shift"])
    else:
        scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True,
                                            num_train_timesteps=1000, flow_shift=case["shift"])
    return WanPipeline(tokenizer=tokenizer, text_encoder=text_encoder, vae=vae, scheduler=scheduler,
                       transformer=models[0], transformer_2=models[1] if case["boundary"] else None,
                       boundary_ratio=case["boundary"], expand_timesteps=case["token_timesteps"])


def reference(pipe, case):
    steps = []
    pipe.set_progress_bar_config(disable=True)

    def keep(pipe, step, timestep, values):
        steps.append(values["latents"].clone())
        return values

    generator = torch.Generator().manual_seed(case["seed"])
    frames = pipe(prompt=case["prompt"], negative_prompt=case["negative"], num_frames=case["frames"],
                  height=case["height"], width=case["width"], num_inference_steps=case["steps"],
                  guidance_scale=case["guidance"], guidance_scale_2=case["guidance_2"], generator=generator,
                  output_type="np", callback_on_step_end=keep).frames[0]
    return steps[-1], numpy.round(numpy.clip(frames, 0, 1) * 255.0).astype(numpy.uint8)


# Original names, by undoing wan.md 2.2, 4.1 and the VAE's table.
def original_transformer(name):
    pairs = [("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
             ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
             ("condition_embedder.time_proj", "time_projection.1"),
             ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
             ("condition_embedder.text_embedder.linear_2", "text_embedding.2"), ("attn1", "self_attn"),
             ("attn2", "cross_attn"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "o"),
             ("norm2", "norm3"), ("ffn.net.0.proj", "ffn.0"), ("ffn.net.2", "ffn.2"), ("proj_out", "head.head")]
    if name == "scale_shift_table":
        return "head.modulation"
    for new, old in pairs:
        name = name.replace(new, old)
    return name.replace("scale_shift_table", "modulation")


def original_text(name):
    if name == "shared.weight":
        return "token_embedding.weight"
    if name == "encoder.final_layer_norm.weight":
        return "norm.weight"
    pairs = [("encoder.block.", "blocks."), ("layer.0.layer_norm", "norm1"),
             ("layer.0.SelfAttention.relative_attention_bias", "pos_embedding.embedding"),
             ("layer.0.SelfAttention", "attn"), ("layer.1.layer_norm", "norm2"),
             ("layer.1.DenseReluDense.wi_0", "ffn.gate.0"), ("layer.1.DenseReluDense.wi_1", "ffn.fc1"),
             ("layer.1.DenseReluDense.wo", "ffn.fc2")]
    for new, old in pairs:
        name = name.replace(new, old)
    return name


def original_vae(name, case):
    import re
    for new, old in [("norm1.", "residual.0."), ("conv1.", "residual.2."), ("norm2.", "residual.3."),
                     ("conv2.", "residual.6."), ("conv_shortcut.", "shortcut.")]:
        if re.search(r"(resnets|down_blocks)\.", name):
            name = re.sub(r"\." + re.escape(new), "." + old, name)
    name = re.sub(r"mid_block\.resnets\.0", "middle.0", name)
    name = re.sub(r"mid_block\.attentions\.0", "middle.1", name)
    name = re.sub(r"mid_block\.resnets\.1", "middle.2", name)
    name = name.replace(".conv_in.", ".conv1.").replace(".norm_out.", ".head.0.").replace(".conv_out.", ".head.2.")
    if name.startswith("quant_conv"):
        return name.replace("quant_conv", "conv1")
    if name.startswith("post_quant_conv"):
        return name.replace("post_quant_conv", "conv2")
    blocks = case["blocks"]
    if case["residual"]:
        name = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"downsamples.\1.downsamples.\2", name)
        name = re.sub(r"down_blocks\.(\d+)\.downsampler", rf"downsamples.\1.downsamples.{blocks}", name)
        name = re.sub(r"up_blocks\.(\d+)\.resnets\.(\d+)", r"upsamples.\1.upsamples.\2", name)
        name = re.sub(r"up_blocks\.(\d+)\.upsampler", rf"upsamples.\1.upsamples.{blocks + 1}", name)
        return name
    name = name.replace("down_blocks.", "downsamples.")
    match = re.match(r"decoder\.up_blocks\.(\d+)\.(resnets\.(\d+)|upsamplers\.0)(.*)", name)
    if match:
        place = int(match[3]) if match[3] else blocks + 1
        name = f"decoder.upsamples.{int(match[1]) * (blocks + 2) + place}{match[4]}"
    return name


def save_original(pipe, case, folder):
    os.makedirs(os.path.join(folder, "google"))
    pipe.tokenizer.save_pretrained(os.path.join(folder, "google", "umt5-xxl"))
    json.dump({"_class_name": "WanModel", "dim": case["heads"] * case["head"], "ffn_dim": case["ffn"],
               "num_heads": case["heads"], "num_layers": case["layers"], "in_dim": case["z"], "out_dim": case["z"],
               "freq_dim": 256, "text_len": 512, "eps": 1e-6, "model_type": "ti2v" if case["residual"] else "t2v"},
              open(os.path.join(folder, "config.json"), "w"))
    from safetensors.torch import save_file
    save_file({original_transformer(k): v.contiguous() for k, v in pipe.transformer.state_dict().items()
               if not k.startswith("rope.")}, os.path.join(folder, "diffusion_pytorch_model.safetensors"))
    torch.save({original_vae(k, case): v for k, v in pipe.vae.state_dict().items()},
               os.path.join(folder, "Wan2.2_VAE.pth" if case["residual"] else "Wan2.1_VAE.pth"))
    torch.save({original_text(k): v for k, v in pipe.text_encoder.state_dict().items()
                if k != "encoder.embed_tokens.weight"}, os.path.join(folder, "models_t5_umt5-xxl-enc-bf16.pth"))


def save(pipe, case, folder):
    if case["original"]:
        save_original(pipe, case, folder)
        return
    pipe.save_pretrained(folder, **({"max_shard_size": case["shard"]} if case["shard"] else {}))


def run_strobe(args, case, model, work):
    command = [args.strobe, "generate", "--model", model, "-p", case["prompt"], "--num-frames", str(case["frames"]),
               "--height", str(case["height"]), "--width", str(case["width"]), "--steps", str(case["steps"]), "-s",
               str(case["seed"]), "--guidance-scale", str(case["guidance"]), "--save-latents",
               os.path.join(work, "latents.safetensors"), "-o", os.path.join(work, "frames/"), "--strict"]
    if case["negative"] is not None:
        command += ["-n", case["negative"]]
    if case["guidance_2"] is not None:
        command += ["--guidance-scale-2", str(case["guidance_2"])]
    if case["original"]:
        command += ["--flow-shift", str(case["shift"])]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(result.stderr.strip())
    from PIL import Image
    from safetensors.torch import load_file
    folder = os.path.join(work, "frames")
    frames = numpy.stack([numpy.asarray(Image.open(os.path.join(folder, name)).convert("RGB"))
                          for name in sorted(os.listdir(folder))])
    return load_file(os.path.join(work, "latents.safetensors"))["latents"].unsqueeze(0), frames


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strobe", default="build/release/tools/strobe")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--keep", help="folder in which checkpoints stay")
    args = parser.parse_args()
    args.strobe = os.path.abspath(args.strobe)
    tokenizer = os.path.abspath("tests/goldens/wan_a/checkpoint/tokenizer")
    torch.set_num_threads(2)
    root = args.keep or tempfile.mkdtemp(prefix="strobe_check_")
    is_bad = False
    print("| case | latents, relative L2 | frames, dB | bytes that differ |\n|---|---|---|---|")
    for name in args.cases.split(","):
        case = dict(BASE, **CASES[name])
        work = os.path.join(root, name)
        shutil.rmtree(work, ignore_errors=True)
        os.makedirs(work)
        pipe = make_pipeline(case, tokenizer)
        if case["bf16"]:
            # As published: bf16 but for the parts that diffusers keeps in float32; both sides then compute in float32.
            for module in (pipe.transformer, pipe.text_encoder):
                for key, parameter in module.named_parameters():
                    if not any(part in key for part in ("time_embedder", "scale_shift_table", "norm")):
                        parameter.data = parameter.data.to(torch.bfloat16)
        model = os.path.join(work, "model")
        save(pipe, case, model)
        if case["bf16"]:
            pipe.transformer.float(), pipe.text_encoder.float()
        latents, frames = reference(pipe, case)
        try:
            ours, our_frames = run_strobe(args, case, model, work)
            distance = ((ours - latents).norm() / latents.norm()).item()
            difference = (our_frames.astype(numpy.float64) - frames)
            error = float((difference ** 2).mean())
            decibels = 10 * math.log10(255 ** 2 / error) if error > 0 else math.inf
            is_bad |= not (distance <= LIMIT_L2 and decibels >= LIMIT_DB)
            print(f"| {name} | {distance:.1e} | {decibels:.1f} | {int((difference != 0).sum())} of {difference.size} |",
                  flush=True)
        except RuntimeError as error:
            is_bad = True
            print(f"| {name} | failed: {error} |", flush=True)
    if not args.keep:
        shutil.rmtree(root)
    sys.exit(1 if is_bad else 0)


WAN22_STATISTICS = (
    [-0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891, 0.1570,
     -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502, -0.2055, -0.0322,
     0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.0520,
     0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667],
    [0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901, 0.6885, 0.6165,
     0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659, 0.7069, 0.5338, 0.4889, 0.4917,
     0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600,
     0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744])

if __name__ == "__main__":
    main()
