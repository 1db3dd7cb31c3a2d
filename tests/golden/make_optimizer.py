# SPDX-License-Identifier: Apache-2.0
"""Makes optimizer.json, optimizer.safetensors, lr_schedule.json and ema_decay.json, for tests/runtime/training/golden_test.cpp.

    ~/.cache/lockstep/peers/bin/python tests/golden/make_optimizer.py      (environment: bench/peers/install)

optimizer.safetensors: `params` [P], `grads` [T, P] and for each case of optimizer.json the parameters after each step,
[T, P], computed by PyTorch in float64 and rounded once; `CASE.ema`: their moving average, by diffusers' EMAModel.
ema_decay.json: EMAModel's decays. lr_schedule.json: the learning rates of torch.optim.lr_scheduler.
"""

import json
import pathlib
import warnings

import safetensors.torch
import torch
from diffusers.training_utils import EMAModel
from torch.optim import lr_scheduler

HERE = pathlib.Path(__file__).parent
P, STEPS = 200, 30

# Keys are those of a job file; lr, clip_grad_norm, ema and param_groups as there, groups as [begin, end, settings].
OPTIMIZERS = {
    "sgd": {"name": "sgd", "lr": 0.1},
    "sgd_weight_decay": {"name": "sgd", "lr": 0.1, "weight_decay": 0.01},
    "momentum": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
    "momentum_dampening": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.001},
    "nesterov": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.001},
    "momentum_clip": {"name": "sgd", "lr": 0.1, "momentum": 0.5, "clip_grad_norm": 1.0},
    "adam": {"name": "adam", "lr": 0.01},
    "adam_weight_decay": {"name": "adam", "lr": 0.01, "weight_decay": 0.1, "betas": [0.8, 0.95], "eps": 1e-3},
    "adamw": {"name": "adamw", "lr": 0.01, "weight_decay": 0.1},
    "adamw_clip": {"name": "adamw", "lr": 0.01, "weight_decay": 0.01, "clip_grad_norm": 0.5},
    "sgd_groups": {
        "name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "clip_grad_norm": 2.0,
        "param_groups": [[0, 70, {"lr_scale": 0.5, "weight_decay": 0}], [70, 110, {"frozen": True}]],
    },
    "adamw_groups": {
        "name": "adamw", "lr": 0.01, "weight_decay": 0.1,
        "param_groups": [[0, 70, {"lr_scale": 2}], [70, 110, {"weight_decay": 0}]],
    },
    "adamw_ema": {"name": "adamw", "lr": 0.01, "weight_decay": 0.1, "ema": {"decay": 0.9, "power": 0.75}},
    "momentum_ema_ratio": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "ema": {"decay": 0.999, "warmup": False}},
    "sgd_ema_late": {
        "name": "sgd", "lr": 0.1, "param_groups": [[0, 70, {"lr_scale": 0.5}], [70, 110, {"frozen": True}]],
        "ema": {"decay": 0.95, "min_decay": 0.3, "update_after_step": 5, "inv_gamma": 2, "power": 1},
    },
}  # fmt: skip


def ema_of(parameters, ema):
    ema = {"warmup": True, **ema}
    return EMAModel(parameters, use_ema_warmup=ema.pop("warmup"), **ema)


def trajectory(settings, params, grads):
    settings = dict(settings)
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.pop("name")]
    clip = settings.pop("clip_grad_norm", 0)
    ema_settings = settings.pop("ema", None)
    groups = settings.pop("param_groups", [])
    lr, decay = settings.pop("lr"), settings.pop("weight_decay", 0)
    end = max((g[1] for g in groups), default=0)
    pieces, torch_groups = [], []
    for begin, end_, special in [*groups, [end, P, {}]]:
        piece = params[begin:end_].clone().double().requires_grad_(not special.get("frozen"))
        pieces.append((begin, end_, piece))
        if piece.requires_grad:
            scale, own_decay = special.get("lr_scale", 1), special.get("weight_decay", decay)
            torch_groups.append({"params": [piece], "lr": lr * scale, "weight_decay": own_decay})
    optimizer = kind(torch_groups, lr=lr, **settings)
    ema = ema_settings and ema_of([p for *_, p in pieces], ema_settings)
    steps, averages = [], []
    for step in range(STEPS):
        for begin, end_, piece in pieces:
            if piece.requires_grad:
                piece.grad = grads[step, begin:end_].double()
        if clip:
            torch.nn.utils.clip_grad_norm_([p for *_, p in pieces if p.requires_grad], clip)
        optimizer.step()
        steps.append(torch.cat([piece.detach() for *_, piece in pieces]))
        if ema:
            ema.step([p for *_, p in pieces])
            averages.append(torch.cat(ema.shadow_params))
    return torch.stack(steps).float(), torch.stack(averages).float() if ema else None


def schedule(name, lr, total, warmup=0, step_size=None, gamma=None, final_lr_scale=0.0, **one_cycle):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    if name == "cosine":
        main = lr_scheduler.CosineAnnealingLR(optimizer, total - warmup, eta_min=lr * final_lr_scale)
    elif name == "linear":
        main = lr_scheduler.LinearLR(optimizer, 1.0, final_lr_scale, total_iters=total - warmup)
    elif name == "step":
        main = lr_scheduler.StepLR(optimizer, step_size, gamma)
    elif name == "one_cycle":
        shape = {"anneal_strategy" if key == "anneal" else key: value for key, value in one_cycle.items()}
        main = lr_scheduler.OneCycleLR(optimizer, lr, total, cycle_momentum=False, **shape)
    else:
        main = lr_scheduler.ConstantLR(optimizer, 1.0)
    if warmup:
        # From lr / warmup at step 0 to lr at the last step of the warm-up.
        rise = lr_scheduler.LinearLR(optimizer, 1 / warmup, 1.0, total_iters=warmup - 1)
        if name == "step":  # counts its steps from the start, warm-up included
            main = lr_scheduler.ChainedScheduler([rise, main])
        else:
            main = lr_scheduler.SequentialLR(optimizer, [rise, main], milestones=[warmup])
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(rates) < total:  # OneCycleLR counts
            main.step()
    return rates


def main():
    warnings.simplefilter("ignore")  # SequentialLR's own use of a deprecated argument
    torch.manual_seed(1)
    params = 0.3 * torch.randn(P)
    # Gradients over four orders of magnitude, some exactly zero: where Adam's eps and sqrt are tried.
    grads = torch.randn(STEPS, P) * 10 ** (4 * torch.rand(P) - 4)
    grads[torch.rand(STEPS, P) < 0.05] = 0
    tensors = {"params": params, "grads": grads}
    for name, settings in OPTIMIZERS.items():
        tensors[name], average = trajectory(settings, params, grads)
        if average is not None:
            tensors[name + ".ema"] = average
    safetensors.torch.save_file(tensors, HERE / "optimizer.safetensors")
    lines = ",\n".join(f'"{name}": {json.dumps(settings)}' for name, settings in OPTIMIZERS.items())
    (HERE / "optimizer.json").write_text("{" + lines + "}\n")

    steps = [*range(1, 40), 100, 1000, 31600, 1000000]
    decays = [
        {"ema": ema, "steps": steps, "decays": [ema_of([], ema).get_decay(step) for step in steps]}
        for ema in (
            {"decay": 0.9999},
            {"decay": 0.9999, "power": 0.75, "inv_gamma": 10},
            {"decay": 0.9, "warmup": False},
            {"decay": 0.95, "min_decay": 0.3, "update_after_step": 5, "power": 1},
        )
    ]
    (HERE / "ema_decay.json").write_text("[" + ",\n".join(map(json.dumps, decays)) + "]\n")

    cases = [
        {"name": "constant", "lr": 0.1, "total": 12},
        {"name": "constant", "lr": 0.1, "total": 12, "warmup": 5},
        {"name": "cosine", "lr": 0.05, "total": 50},
        {"name": "cosine", "lr": 0.05, "total": 50, "warmup": 7, "final_lr_scale": 0.1},
        {"name": "linear", "lr": 0.3, "total": 40},
        {"name": "linear", "lr": 0.3, "total": 40, "warmup": 10, "final_lr_scale": 0.25},
        {"name": "step", "lr": 0.1, "total": 35, "step_size": 10, "gamma": 0.3},
        {"name": "step", "lr": 0.1, "total": 35, "step_size": 10, "gamma": 0.5, "warmup": 6},
        {"name": "one_cycle", "lr": 0.1, "total": 50},
        {"name": "one_cycle", "lr": 0.2, "total": 41, "pct_start": 0.23, "anneal": "linear"},
        {"name": "one_cycle", "lr": 0.1, "total": 30, "pct_start": 0.5, "div_factor": 10, "final_div_factor": 100},
        {"name": "one_cycle", "lr": 0.1, "total": 20, "pct_start": 0.0},
        {"name": "one_cycle", "lr": 0.1, "total": 20, "pct_start": 1.0, "anneal": "linear"},
    ]
    text = ",\n".join(json.dumps({**case, "rates": schedule(**case)}) for case in cases)
    (HERE / "lr_schedule.json").write_text("[" + text + "]\n")


if __name__ == "__main__":
    main()
