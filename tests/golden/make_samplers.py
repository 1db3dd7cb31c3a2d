# SPDX-License-Identifier: Apache-2.0
"""Makes samplers.json and samplers.safetensors, for tests/models/sampler_test.cpp.

    ~/.cache/lockstep/peers/bin/python tests/golden/make_samplers.py      (environment: bench/peers/install)

Runs diffusers' schedulers with a closed-form model and closed-form noise, both of which C++ repeats in the same float32
operations, over the product of the axes of each group of GROUPS.

samplers.json: `schedules`, scheduler configs whose alphas_cumprod is tensor `alphas_cumprod.I`; `files`, texts of
scheduler_config.json; `groups`, each with its axes (or the name of a file) and one letter a combination, the last axis
running fastest: '.' done, 'r' diffusers raised an exception, 'n' the sample is not finite.
samplers.safetensors: `finals.GROUP`, [done combinations, 9]: eight of the final sample's elements (every 12th of 96) and
its greatest magnitude.
"""

import functools
import itertools
import json
import pathlib
import warnings

import diffusers
import numpy as np
import safetensors.numpy
import torch
from diffusers.schedulers import (
    scheduling_ddim,
    scheduling_ddpm,
    scheduling_dpmsolver_multistep,
    scheduling_euler_ancestral_discrete,
    scheduling_euler_discrete,
)

HERE = pathlib.Path(__file__).parent
SHAPE = (2, 3, 4, 4)
NUMBER = int(np.prod(SHAPE))
OWN = torch.tensor([(37 * i % 64) / 64 - 0.5 for i in range(NUMBER)]).reshape(SHAPE)


def each(key, *values):
    return [{key: value} for value in values]


SPACING = each("timestep_spacing", "leading", "linspace", "trailing")
PREDICTION = each("prediction_type", "epsilon", "v_prediction", "sample")
FEW, MANY, STEPS = each("steps", 10, 50), each("steps", 1000), each("steps", 10, 50, 1000)
VARIANCES = each("variance_type", "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log")
SOLVERS = [{"solver_order": 1}, {"solver_order": 2}, {"solver_order": 2, "solver_type": "heun"}]
LIMITS = [
    {},
    {"clip_sample": False},
    {"clip_sample_range": 1.5},
    {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.5},
]
# sigmoid is DDPMScheduler's alone; the others get its betas, as trained_betas.
SCHEDULES = [
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"beta_schedule": "sigmoid"},
    {"rescale_betas_zero_snr": True},
    {"beta_schedule": "squaredcos_cap_v2", "rescale_betas_zero_snr": True},
    {"trained_betas": [round(0.001 * (i % 7) + 0.0002 * i, 7) for i in range(60)], "num_train_timesteps": 60},
]
DPM, EULER = "DPMSolverMultistepScheduler", "EulerDiscreteScheduler"
ANCESTRAL, PNDM = "EulerAncestralDiscreteScheduler", "PNDMScheduler"
OTHERS = ["DDPMScheduler", "DDIMScheduler", DPM, EULER, ANCESTRAL]
ALL = [*OTHERS, PNDM]
KARRAS = each("use_karras_sigmas", False, True)
PRK = each("skip_prk_steps", True, False)
# scheduler_config.json of models in use, to the letter: Stable Diffusion 1.4 (written by an early diffusers), 1.5, 2.1 and
# XL. The last two are what diffusers makes of 1.5's when another scheduler is chosen and saved.
SD14 = '''{
  "_class_name": "PNDMScheduler",
  "_diffusers_version": "0.4.0.dev0",
  "beta_end": 0.012,
  "beta_schedule": "scaled_linear",
  "beta_start": 0.00085,
  "num_train_timesteps": 1000,
  "set_alpha_to_one": false,
  "skip_prk_steps": true,
  "steps_offset": 1,
  "trained_betas": null
}
'''
SD15 = '''{
  "_class_name": "PNDMScheduler",
  "_diffusers_version": "0.7.0.dev0",
  "beta_end": 0.012,
  "beta_schedule": "scaled_linear",
  "beta_start": 0.00085,
  "num_train_timesteps": 1000,
  "set_alpha_to_one": false,
  "skip_prk_steps": true,
  "steps_offset": 1,
  "trained_betas": null,
  "clip_sample": false
}
'''
SD21 = '''{
  "_class_name": "DDIMScheduler",
  "_diffusers_version": "0.8.0",
  "beta_end": 0.012,
  "beta_schedule": "scaled_linear",
  "beta_start": 0.00085,
  "clip_sample": false,
  "num_train_timesteps": 1000,
  "prediction_type": "v_prediction",
  "set_alpha_to_one": false,
  "skip_prk_steps": true,
  "steps_offset": 1,
  "trained_betas": null
}
'''
SDXL = '''{
  "_class_name": "EulerDiscreteScheduler",
  "_diffusers_version": "0.19.0.dev0",
  "beta_end": 0.012,
  "beta_schedule": "scaled_linear",
  "beta_start": 0.00085,
  "clip_sample": false,
  "interpolation_type": "linear",
  "num_train_timesteps": 1000,
  "prediction_type": "epsilon",
  "sample_max_value": 1.0,
  "set_alpha_to_one": false,
  "skip_prk_steps": true,
  "steps_offset": 1,
  "timestep_spacing": "leading",
  "trained_betas": null,
  "use_karras_sigmas": false
}
'''


def switched(class_name, **options):
    return getattr(diffusers, class_name).from_config(json.loads(SD15), **options).to_json_string()


FILES = {
    "sd14": SD14,
    "sd15": SD15,
    "sd21": SD21,
    "sdxl": SDXL,
    "sd15_dpm": switched(DPM, use_karras_sigmas=True, algorithm_type="dpmsolver++"),
    "sd15_unipc": switched("UniPCMultistepScheduler"),
}
# A group: the class that makes the folder's config, or one of FILES; the class that samples, axes.
GROUPS = {
    "ddpm": ["DDPMScheduler", "DDPMScheduler", [VARIANCES, LIMITS, SPACING, PREDICTION, FEW]],
    "ddpm_1000": ["DDPMScheduler", "DDPMScheduler", [VARIANCES, SPACING, PREDICTION, MANY]],
    "ddim": ["DDIMScheduler", "DDIMScheduler",
             [each("eta", 0, 0.5, 1), each("set_alpha_to_one", True, False), LIMITS, SPACING, PREDICTION, FEW]],
    "ddim_1000": ["DDIMScheduler", "DDIMScheduler", [each("eta", 0, 1), SPACING, PREDICTION, MANY]],
    "dpm_solver": [DPM, DPM,
                   [SOLVERS, each("final_sigmas_type", "zero", "sigma_min"),
                    [{}, {"lower_order_final": False}, {"euler_at_final": True}],
                    KARRAS, [LIMITS[0], LIMITS[3]], SPACING, PREDICTION, FEW]],
    "dpm_solver_1000": [DPM, DPM, [SOLVERS, KARRAS, SPACING, PREDICTION, MANY]],
    "euler": [EULER, EULER, [each("final_sigmas_type", "zero", "sigma_min"), KARRAS, SPACING, PREDICTION, FEW]],
    "euler_1000": [EULER, EULER, [KARRAS, SPACING, PREDICTION, MANY]],
    "euler_ancestral": [ANCESTRAL, ANCESTRAL, [SPACING, PREDICTION, STEPS]],
    "cosine_clipped": [DPM, DPM, [[{"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1}],
                                  KARRAS, SPACING, PREDICTION, FEW]],
    **{f"schedules_{c}": [c, c, [SCHEDULES, SPACING, PREDICTION, each("steps", 1, 7, 30)]] for c in OTHERS},
    **{f"karras_{c}": [c, c, [SCHEDULES, each("use_karras_sigmas", True), PREDICTION, each("steps", 1, 7, 30)]]
       for c in (DPM, EULER)},
    **{f"offset_{c}": [c, c, [each("steps_offset", 1), SPACING, STEPS]] for c in OTHERS},
    **{f"folder_{a}_{b}": [a, b, [each("steps", 20)]] for a, b in itertools.product(ALL, ALL)},
    "pndm": [PNDM, PNDM, [PRK, each("set_alpha_to_one", True, False), SPACING, PREDICTION, FEW]],
    "pndm_few": [PNDM, PNDM, [PRK, SPACING, PREDICTION[:2], each("steps", 1, 2, 3, 4, 5, 7, 13, 40)]],
    "pndm_1000": [PNDM, PNDM, [PRK, SPACING, PREDICTION, MANY]],
    "schedules_PNDMScheduler": [PNDM, PNDM, [[s for s in SCHEDULES if "rescale_betas_zero_snr" not in s], PRK, SPACING,
                                             PREDICTION, each("steps", 1, 7, 30)]],
    "offset_PNDMScheduler": [PNDM, PNDM, [each("steps_offset", 1), PRK, SPACING, STEPS]],
    **{f"{a}_{b}": [a, b, [each("steps", 1, 20, 50)]] for a, b in itertools.product(FILES, ALL)},
}  # fmt: skip


def model(x, t):
    """Smooth, nonlinear, within [-1.2 |x| - 0.4, 1.2 |x| + 0.4]."""
    u = t.to(torch.float32) * 0.001
    return x * (0.3 + 0.6 * u) + OWN * (1 - u) * 0.5 + (0.25 * x) / (1 + x * x)


@functools.cache
def noise(draw):
    """Draw 0 starts, draw i + 1 is step i's."""
    index = np.arange(NUMBER, dtype=np.uint64) + np.uint64(NUMBER * draw)
    bits = ((index * np.uint64(2654435761) + np.uint64(12345)) * np.uint64(40503)) % np.uint64(2**32)
    unit = torch.from_numpy((bits >> np.uint64(8)).astype(np.float32)) * 2**-24
    return ((unit * 2 - 1) * 1.7320508).reshape(SHAPE)


class Noise:
    """Stands in for randn_tensor in the schedulers' modules."""

    draw = None
    used = False

    def __call__(self, shape, **_):
        assert tuple(shape) == SHAPE and self.draw is not None
        self.used = True
        return noise(self.draw)


step_noise = Noise()
for module in (scheduling_ddim, scheduling_ddpm, scheduling_dpmsolver_multistep, scheduling_euler_ancestral_discrete,
               scheduling_euler_discrete):  # fmt: skip
    module.randn_tensor = step_noise


# PyTorch's sqrt on CPUs is MKL's, which errs by up to 0.75 ulp: with AVX-512 one result in five is not the nearest number.
# Rescaling to zero terminal SNR takes roots of numbers next to 1 whose distance from 1 matters. With betas that begin as
# small as squaredcos_cap_v2's, their last bit changes samples by up to 5e-5, after a single step or with Karras sigmas by up
# to 2e-3. PNDM's steps from the last timesteps, where the signal is small, multiply such an error by as much. So that the
# reference is the same on every processor, these roots are rounded to nearest, as IEEE 754 and C++ do.
torch.Tensor.sqrt = lambda x: torch.from_numpy(np.asarray(np.sqrt(x.numpy())))
power = torch.Tensor.__pow__


def pndm_power(x, exponent):
    return x.sqrt() if exponent == 0.5 else power(x, exponent)


def saved_config(class_name, config):
    """What save_pretrained leaves of a config."""
    return json.loads(getattr(diffusers, class_name)(**config).to_json_string())


def config_of(class_name, options):
    config = {key: value for key, value in options.items() if key not in ("steps", "eta")}
    if config.get("beta_schedule") == "sigmoid" and class_name != "DDPMScheduler":
        config["trained_betas"] = diffusers.DDPMScheduler(beta_schedule="sigmoid").betas.tolist()
    return config


def sample(class_name, saved, steps, eta):
    scheduler = getattr(diffusers, class_name).from_config(saved)
    scheduler.set_timesteps(steps)
    torch.Tensor.__pow__ = pndm_power if class_name == PNDM else power
    stochastic = class_name in ("DDPMScheduler", ANCESTRAL) or eta
    extra = {"eta": eta} if class_name == "DDIMScheduler" else {}
    x = noise(0) * scheduler.init_noise_sigma
    for i, t in enumerate(scheduler.timesteps):
        output = model(scheduler.scale_model_input(x, t), t)
        step_noise.draw, step_noise.used = i + 1, False
        x = scheduler.step(output, t, x, **extra).prev_sample
        assert step_noise.used == bool(stochastic and not (class_name == "DDPMScheduler" and t == 0))
        if not torch.isfinite(x).all():
            return None
    return x


def run(group, finals):
    made_by, class_name, axes = GROUPS[group]
    is_file = made_by in FILES
    outcomes, rows = "", []
    for combination in itertools.product(*axes):
        options = {key: value for part in combination for key, value in part.items()}
        try:
            saved = json.loads(FILES[made_by]) if is_file else saved_config(made_by, config_of(made_by, options))
            x = sample(class_name, saved, options["steps"], options.get("eta", 0))
        except (IndexError, ValueError, NotImplementedError):
            outcomes += "r"
            continue
        outcomes += "n" if x is None else "."
        if x is not None:
            rows.append(np.append(x.flatten()[::12].numpy(), x.abs().max()))
    finals[f"finals.{group}"] = np.array(rows, np.float32).reshape(-1, 9)
    entry = {"class": class_name, "axes": axes, "outcomes": outcomes}
    if is_file or group.startswith("folder"):
        entry["file"] = made_by
    print(group, {letter: outcomes.count(letter) for letter in ".rn"}, flush=True)
    return entry


def main():
    warnings.filterwarnings("ignore")
    diffusers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)
    schedules = [{}, *SCHEDULES, {"num_train_timesteps": 100}, {"beta_schedule": "sigmoid", "beta_end": 0.5}]
    tensors = {
        f"alphas_cumprod.{i}": diffusers.DDPMScheduler(**config).alphas_cumprod.numpy()
        for i, config in enumerate(schedules)
    }
    groups = {group: run(group, tensors) for group in GROUPS}
    safetensors.numpy.save_file(tensors, HERE / "samplers.safetensors")
    files = FILES | {c: getattr(diffusers, c)().to_json_string() for c in ALL}
    text = json.dumps({"schedules": schedules, "files": files, "groups": groups}, separators=(",", ":"))
    for key in ("files", "groups"):
        text = text.replace(f'"{key}"', f'\n"{key}"')
    (HERE / "samplers.json").write_text(text.replace('},"', '},\n"') + "\n")


if __name__ == "__main__":
    main()
