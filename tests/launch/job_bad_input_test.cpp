// SPDX-License-Identifier: Apache-2.0
// Everything that a job file or --set can have wrong: the exit code, the identifier, the place and the key.
#include "tests/launch/job_support.h"

#include <unistd.h>

#include <filesystem>

#include "launch/job/availability.h"

namespace lockstep::testing {
namespace {

struct BadJob {
  const char* name;
  std::string text;
  const char *id, *place, *key;
  const char* words[2] = {};  // more that the message has, or null
};
using BadJobs = std::vector<BadJob>;

std::string repeated(const std::string& text, size_t count) {
  std::string out;
  for (size_t i = 0; i < count; ++i) out += text;
  return out;
}

std::string add(const std::string& text) { return kSmallJob + text; }
std::string change(const std::string& from, const std::string& to) { return replaced(kSmallJob, from, to); }

// A job of a small painter, one thing changed.
std::string painter(const std::string& from, const std::string& to) {
  std::string job = change(
      "{name: mnist_convnet}",
      "{name: text_to_image, tokenizer: t, text_encoder: {hidden_size: 8, num_attention_heads: 2}, unet: "
      "{in_channels: 3, out_channels: 3, block_out_channels: [8], down_block_types: [DownBlock2D], "
      "up_block_types: [UpBlock2D], norm_num_groups: 4, cross_attention_dim: 8}}");
  job = replaced(job, "dataset: mnist", "dataset: captioned_digits") + "objective: {name: diffusion}\n";
  return from.empty() ? job : replaced(job, from, to);
}

std::string block_maps(size_t depth) {
  std::string out;
  for (size_t i = 0; i < depth; ++i) out += std::string(i, ' ') + "a:\n";
  return out;
}

std::string residuals(size_t depth) {
  return with_layers("[" + repeated("{residual: {layers: [", depth) + "relu" + repeated("]}}", depth) + "]");
}

// One row a line.
// clang-format off
// Unknown keys, and the nearest valid one.
BadJobs unknown_keys() {
  return {
      {"unknown_top", add("instance_cuont: 3\n"), "E_JOB_UNKNOWN_KEY", ":11:1", "instance_cuont", {"instance_count"}},
      {"unknown_nested", change("lr:", "lrr:"), "E_JOB_UNKNOWN_KEY", ":10:26", "hyperparameters.optimizer.lrr", {"hyperparameters.optimizer.lr"}},
      {"unknown_level", add("epochs: 3\n"), "E_JOB_UNKNOWN_KEY", ":11:1", "epochs", {"hyperparameters.epochs"}},
      {"unknown_far", add("zzzzzzzz: 3\n"), "E_JOB_UNKNOWN_KEY", ":11:1", "zzzzzzzz", {"valid here", "instance_count"}},
      {"unknown_dataset", change("path:", "paht:"), "E_JOB_UNKNOWN_KEY", ":6:30", "inputs.training.paht", {"inputs.training.path"}},
      {"unknown_dotted", add("\"output.dir\": x\n"), "E_JOB_UNKNOWN_KEY", ":11:1", "output.dir"},
      {"unknown_in_group", add("  param_groups: [{match: a, frozn: true}]\n"), "E_JOB_UNKNOWN_KEY", ":11:29", "hyperparameters.param_groups[0].frozn", {"frozen"}},
      {"unknown_wide_character", add("é: 1\n"), "E_JOB_UNKNOWN_KEY", ":11:1", "é"},
      {"column_in_characters", change("{name: sgd, lr: 0.1}", "{\"näme\": x}"), "E_JOB_UNKNOWN_KEY", ":10:15", "hyperparameters.optimizer.näme", {"optimizer.name"}},
  };
}

// Refused by name.
BadJobs refused_names() {
  return {
      {"batch_size", change("global_batch_size", "batch_size"), "E_JOB_UNKNOWN_KEY", ":9:3", "hyperparameters.batch_size", {"per rank", "global_batch_size"}},
      {"recompute_on_top", add("recompute: blocks\n"), "E_JOB_UNKNOWN_KEY", ":11:1", "recompute", {"hyperparameters.recompute"}},
      {"objective_unknown", add("objective: ddpm\n"), "E_JOB_CHOICE", ":11:12", "objective.name", {"diffusion"}},
      {"objective_needs_unet", add("objective: diffusion\n"), "E_JOB_CONFLICT", ":11:1", "objective", {"unet2d"}},
      {"augment_in_test", change("hyperparameters:", "  test: {augment: {flip: true}}\nhyperparameters:"), "E_JOB_UNKNOWN_KEY", ":7:10", "inputs.test.augment", {"inputs.training only"}},
      {"painter_needs_objective", change("mnist_convnet", "text_to_image, tokenizer: t"), "E_JOB_CONFLICT", ":4:9", "model.name", {"diffusion model"}},
      {"painter_without_tokenizer", painter("tokenizer: t, ", ""), "E_JOB_REQUIRED", ":4:1", "model.tokenizer"},
      {"painter_widths", painter("hidden_size: 8", "hidden_size: 16"), "E_JOB_CONFLICT", ":4:", "model.unet.cross_attention_dim", {"hidden_size is 16"}},
      {"painter_heads", painter("num_attention_heads: 2", "num_attention_heads: 3"), "E_TEXT_ENCODER", ":4:", "model.text_encoder.num_attention_heads"},
      {"painter_groups", painter("norm_num_groups: 4", "norm_num_groups: 3"), "E_UNET", ":4:", "model.unet.norm_num_groups"},
      {"painter_block", painter("[DownBlock2D]", "[SkipDownBlock2D]"), "E_JOB_CHOICE", ":4:", "model.unet.down_block_types[0]", {"DownBlock2D"}},
      {"painter_without_captions", painter("captioned_digits", "mnist"), "E_JOB_REQUIRED", ":6:", "inputs.training.captions", {"captions.template"}},
      {"painter_label_dropout", painter("name: diffusion", "name: diffusion, label_dropout: 0.1"), "E_JOB_CONFLICT", ":11:", "objective.label_dropout", {"captions.dropout"}},
      {"painter_trained", painter("", "") + "trained: [unte]\n", "E_JOB_CHOICE", ":12:", "trained[0]", {"text_encoder, unet"}},
      {"painter_frozen_from_nothing", painter("", "") + "trained: [unet]\n", "E_JOB_REQUIRED", ":12:1", "model.init_from", {"frozen"}},
      {"painter_cache_without_vae", painter("dataset: captioned_digits", "cache: latents, dataset: captioned_digits"), "E_JOB_CONFLICT", ":6:", "inputs.training.cache", {"no VAE"}},
      {"classifier_trained", add("trained: [unet]\n"), "E_JOB_CONFLICT", ":11:1", "trained", {"text_to_image"}},
      {"painter_guidance", painter("", "") + "sampling: {guidance: 2}\n", "E_JOB_CONFLICT", ":12:", "sampling.guidance", {"captions.dropout"}},
      {"prompts_of_another", add("sampling: {prompts: [a]}\n"), "E_JOB_CONFLICT", ":11:", "sampling.prompts", {"text_to_image"}},
      {"sample_every", add("sample_every: 5\n"), "E_JOB_CONFLICT", ":11:1", "sample_every", {"belongs to objective.name diffusion"}},
  };
}

// Duplicates.
BadJobs duplicates() {
  return {
      {"duplicate_top", add("job_name: again\n"), "E_JOB_DUPLICATE", ":11:1", "job_name", {":1:1"}},
      {"duplicate_nested", change("lr: 0.1", "lr: 0.1, lr: 0.2"), "E_JOB_DUPLICATE", ":10:35", "hyperparameters.optimizer.lr"},
      {"duplicate_quoted", add("\"job_name\": again\n"), "E_JOB_DUPLICATE", ":11:1", "job_name"},
  };
}

// Types.
BadJobs wrong_types() {
  return {
      {"octal", change("count: 2", "count: 010"), "E_JOB_TYPE", ":2:17", "instance_count", {"leading zero", "1..65536"}},
      {"underscore", change("count: 2", "count: 1_000"), "E_JOB_TYPE", ":2:17", "instance_count", {"integer"}},
      {"hexadecimal", change("count: 2", "count: 0x10"), "E_JOB_TYPE", ":2:17", "instance_count"},
      {"integer_as_float", change("count: 2", "count: 2.0"), "E_JOB_TYPE", ":2:17", "instance_count", {"integer"}},
      {"integer_as_exponent", change("count: 2", "count: 1e1"), "E_JOB_TYPE", ":2:17", "instance_count"},
      {"integer_overflow", change("count: 2", "count: 99999999999999999999"), "E_JOB_TYPE", ":2:17", "instance_count", {"1..65536"}},
      {"quoted_integer", change("count: 2", "count: \"2\""), "E_JOB_TYPE", ":2:17", "instance_count", {"quoted"}},
      {"quoted_boolean", add("  shuffle: 'true'\n"), "E_JOB_TYPE", ":11:12", "hyperparameters.shuffle", {"quoted"}},
      {"yes_is_no_boolean", add("  shuffle: yes\n"), "E_JOB_TYPE", ":11:12", "hyperparameters.shuffle", {"true or false"}},
      {"capital_true", add("  shuffle: True\n"), "E_JOB_TYPE", ":11:12", "hyperparameters.shuffle"},
      {"number_for_string", change("job_name: small", "job_name: 7"), "E_JOB_TYPE", ":1:11", "job_name", {"string"}},
      {"boolean_for_string", change("path: data", "path: true"), "E_JOB_TYPE", ":6:36", "inputs.training.path"},
      {"list_for_integer", change("count: 2", "count: [2]"), "E_JOB_TYPE", ":2:17", "instance_count", {"a list"}},
      {"map_for_integer", change("count: 2", "count: {a: 2}"), "E_JOB_TYPE", ":2:17", "instance_count", {"a map"}},
      {"scalar_for_map", change("{name: sgd, lr: 0.1}", "sgd"), "E_JOB_TYPE", ":10:14", "hyperparameters.optimizer", {"expected a map", "lr"}},
      {"list_for_map", change("{name: mnist_convnet}", "[name]"), "E_JOB_TYPE", ":4:8", "model", {"expected a map"}},
      {"scalar_for_dataset", change("{dataset: mnist, path: data}", "mnist"), "E_JOB_TYPE", ":6:13", "inputs.training"},
      {"null_value", change("count: 2", "count:"), "E_JOB_TYPE", ":2:1", "instance_count", {"no value"}},
      {"tilde", change("count: 2", "count: ~"), "E_JOB_TYPE", ":2:1", "instance_count", {"no value"}},
      {"null_map", change("  training: {dataset: mnist, path: data}\n", ""), "E_JOB_TYPE", ":5:1", "inputs", {"expected a map"}},
      {"empty_string", change("job_name: small", "job_name: \"\""), "E_JOB_TYPE", ":1:11", "job_name", {"empty"}},
      {"delete_in_string", change("path: data", "path: \"da\x7f" "ta\""), "E_JOB_TYPE", ":6:36", "inputs.training.path", {"control character", "\\x7f"}},
      {"delete_in_word", change("small", "sm\x7fll"), "E_JOB_CHARACTER", ":1:13", "", {"0x7f"}},
      {"control_in_string", change("path: data", "path: \"da\\x1bta\""), "E_JOB_TYPE", ":6:36", "inputs.training.path", {"control character", "\\x1b"}},
      {"nul_in_string", change("path: data", "path: \"da\\0ta\""), "E_JOB_TYPE", ":6:36", "inputs.training.path"},
      {"slash_in_name", change("job_name: small", "job_name: ../up"), "E_JOB_TYPE", ":1:11", "job_name", {"letters"}},
      {"list_key", "[a]: 1\n", "E_JOB_TYPE", ":1:1", ""},
      {"null_key", ": 1\n", "E_JOB_TYPE", ":1:1", ""},
      {"root_list", "- 1\n", "E_JOB_TYPE", ":1:1", "", {"map"}},
      {"root_scalar", "mnist\n", "E_JOB_TYPE", ":1:1", "", {"map"}},
      {"betas_one", change("{name: sgd, lr: 0.1}", "{name: adam, lr: 0.1, betas: [0.9]}"), "E_JOB_TYPE", ":10:43", "hyperparameters.optimizer.betas", {"2"}},
      {"betas_three", change("{name: sgd, lr: 0.1}", "{name: adam, lr: 0.1, betas: [0.9, 0.9, 0.9]}"), "E_JOB_TYPE", ":10:43", "hyperparameters.optimizer.betas"},
      {"hosts_scalar", add("hosts: node1\n"), "E_JOB_TYPE", ":11:8", "hosts", {"list"}},
      {"hosts_empty", add("hosts: []\n"), "E_JOB_TYPE", ":11:8", "hosts", {"empty"}},
  };
}

// Ranges.
BadJobs out_of_range() {
  return {
      {"nan", change("lr: 0.1", "lr: .nan"), "E_JOB_TYPE", ":10:30", "hyperparameters.optimizer.lr", {"finite", ".nan"}},
      {"nan_word", change("lr: 0.1", "lr: nan"), "E_JOB_TYPE", ":10:30", "hyperparameters.optimizer.lr", {"finite"}},
      {"infinity", change("lr: 0.1", "lr: .inf"), "E_JOB_TYPE", ":10:30", "hyperparameters.optimizer.lr", {"finite"}},
      {"too_large_for_double", change("lr: 0.1", "lr: 1e999"), "E_JOB_TYPE", ":10:30", "hyperparameters.optimizer.lr"},
      {"negative_lr", change("lr: 0.1", "lr: -0.1"), "E_JOB_RANGE", ":10:30", "hyperparameters.optimizer.lr", {"0..1000000"}},
      {"no_ranks", change("count: 2", "count: 0"), "E_JOB_RANGE", ":2:17", "instance_count", {"1..65536"}},
      {"too_many_ranks", change("count: 2", "count: 65537"), "E_JOB_RANGE", ":2:17", "instance_count", {"1..65536"}},
      {"no_batch", change("size: 64", "size: 0"), "E_JOB_RANGE", ":9:22", "hyperparameters.global_batch_size"},
      {"no_epochs", change("epochs: 1", "epochs: 0"), "E_JOB_RANGE", ":8:11", "hyperparameters.epochs"},
      {"whole_fraction", add("validation_fraction: 1\n"), "E_JOB_RANGE", ":11:22", "validation_fraction", {"[0, 1)"}},
      {"whole_smoothing", add("  label_smoothing: 1.0\n"), "E_JOB_RANGE", ":11:20", "hyperparameters.label_smoothing", {"[0, 1)"}},
      {"smoothing_one_in_fp32", add("  label_smoothing: 0.99999999999\n"), "E_JOB_RANGE", ":11:20", "hyperparameters.label_smoothing"},
      {"whole_beta", change("{name: sgd, lr: 0.1}", "{name: adam, lr: 0.1, betas: [0.9, 1]}"), "E_JOB_RANGE", ":10:49", "hyperparameters.optimizer.betas[1]", {"[0, 1)"}},
      {"negative_seed", add("  seed: -1\n"), "E_JOB_TYPE", ":11:9", "hyperparameters.seed", {">= 0"}},
      {"negative_warmup", add("  lr_schedule: {name: cosine, warmup_steps: -1}\n"), "E_JOB_RANGE", ":11:45", "hyperparameters.lr_schedule.warmup_steps"},
      {"zero_std", change("path: data", "path: data, normalize: {mean: 0, std: 0}"), "E_JOB_RANGE", ":6:68", "inputs.training.normalize.std", {"(0,"}},
      {"zero_std_in_list", change("path: data", "path: data, normalize: {mean: 0, std: [1, 0]}"), "E_JOB_RANGE", ":6:72", "inputs.training.normalize.std[1]"},
      {"group_scale", add("  param_groups: [{match: a, lr_scale: -1}]\n"), "E_JOB_RANGE", ":11:39", "hyperparameters.param_groups[0].lr_scale"},
  };
}

// Words that must be one of some.
BadJobs wrong_words() {
  return {
      {"optimizer_word", change("sgd", "sdg"), "E_JOB_CHOICE", ":10:21", "hyperparameters.optimizer.name", {"adamw", "nearest: sgd"}},
      {"dataset_word", change("dataset: mnist", "dataset: mnits"), "E_JOB_CHOICE", ":6:23", "inputs.training.dataset", {"nearest: mnist"}},
      {"model_word", change("mnist_convnet", "mnist_covnet"), "E_JOB_CHOICE", ":4:15", "model.name", {"nearest: mnist_convnet"}},
      {"schedule_word", add("  lr_schedule: cosin\n"), "E_JOB_CHOICE", ":11:16", "hyperparameters.lr_schedule.name", {"nearest: cosine"}},
      {"gradient_precision_word", add("gradient_precision: fp16\n"), "E_JOB_CHOICE", ":11:21", "gradient_precision", {"nearest: fp32"}},
      {"backend_word", change("backend: mpi", "backend: mpii"), "E_JOB_CHOICE", ":3:10", "backend", {"nearest: mpi"}},
  };
}

// Missing and excluding keys.
BadJobs missing_and_excluding() {
  return {
      {"no_inputs", change("inputs:\n  training: {dataset: mnist, path: data}\n", ""), "E_JOB_REQUIRED", ":1:1", "inputs.training"},
      {"no_path", change(", path: data", ""), "E_JOB_REQUIRED", ":6:3", "inputs.training.path"},
      {"no_lr", change(", lr: 0.1", ""), "E_JOB_REQUIRED", ":10:3", "hyperparameters.optimizer.lr"},
      {"no_batch_size", change("  global_batch_size: 64\n", ""), "E_JOB_REQUIRED", ":7:1", "hyperparameters.global_batch_size"},
      {"no_epochs_or_steps", change("  epochs: 1\n", ""), "E_JOB_REQUIRED", ":7:1", "hyperparameters.epochs", {"steps"}},
      {"no_model", change("{name: mnist_convnet}", "{init_from: x}"), "E_JOB_REQUIRED", ":4:1", "model.name", {"model.layers"}},
      {"no_match", add("  param_groups: [{frozen: true}]\n"), "E_JOB_REQUIRED", ":11:18", "hyperparameters.param_groups[0].match"},
      {"no_step_size", add("  lr_schedule: step\n"), "E_JOB_REQUIRED", ":11:3", "hyperparameters.lr_schedule.step_size"},
      {"half_normalize", change("path: data", "path: data, normalize: {mean: 0}"), "E_JOB_REQUIRED", ":6:42", "inputs.training.normalize.std"},
      {"epochs_and_steps", add("  steps: 5\n"), "E_JOB_EXCLUSIVE", ":11:3", "hyperparameters.steps", {"hyperparameters.epochs", ":8:3"}},
      {"name_and_layers", change("{name: mnist_convnet}", "{name: mnist_convnet, layers: [relu]}"), "E_JOB_EXCLUSIVE", ":4:30", "model.layers", {"model.name"}},
      {"hosts_and_hostfile", add("hosts: [a:2]\nhostfile: x\n"), "E_JOB_EXCLUSIVE", ":12:1", "hostfile", {"hosts"}},
      {"two_checkpoint_periods", add("checkpoint: {every_steps: 1, every_epochs: 1}\n"), "E_JOB_EXCLUSIVE", ":11:30", "checkpoint.every_epochs"},
      {"two_validations", change("  training:", "  validation: {dataset: mnist, path: v}\n  training:") + "validation_fraction: 0.1\n", "E_JOB_EXCLUSIVE", ":12:1", "validation_fraction", {"inputs.validation"}},
  };
}

// Keys that contradict one another.
BadJobs contradictions() {
  return {
      {"two_backends", add("  backend: nccl\n"), "E_JOB_CONFLICT", ":11:3", "hyperparameters.backend", {":3:1", "mpi"}},
      {"momentum_with_adam", change("{name: sgd, lr: 0.1}", "{name: adam, lr: 0.1, momentum: 0.9}"), "E_JOB_CONFLICT", ":10:36", "hyperparameters.optimizer.momentum", {"sgd"}},
      {"betas_with_sgd", change("lr: 0.1", "lr: 0.1, betas: [0.9, 0.9]"), "E_JOB_CONFLICT", ":10:35", "hyperparameters.optimizer.betas", {"adam"}},
      {"captions_of_mnist", change("path: data", "path: data, captions: {column: text}"), "E_JOB_CONFLICT", ":6:", "inputs.training.captions.column", {"image_folder"}},
      {"captions_twice", change("dataset: mnist, path: data", "dataset: image_folder, path: data, captions: {column: text, template: \"a {}\"}"), "E_JOB_EXCLUSIVE", ":6:", "inputs.training.captions.template", {"captions.column"}},
      {"caption_template", change("path: data", "path: data, captions: {template: a digit}"), "E_JOB_CONFLICT", ":6:", "inputs.training.captions.template", {"{}"}},
      {"no_captions_to_drop", change("path: data", "path: data, captions: {dropout: 0.1}"), "E_JOB_CONFLICT", ":6:", "inputs.training.captions.dropout", {"captions.column"}},
      {"caption_dropout", change("path: data", "path: data, captions: {template: \"a {}\", dropout: 1.5}"), "E_JOB_RANGE", ":6:", "inputs.training.captions.dropout"},
      {"resize_of_mnist", change("path: data", "path: data, resize: 32"), "E_JOB_CONFLICT", ":6:42", "inputs.training.resize", {"image_folder"}},
      {"stem_of_no_resnet", change("{name: mnist_convnet}", "{name: mnist_convnet, stem: cifar}"), "E_JOB_CONFLICT", ":4:30", "model.stem", {"resnet18"}},
      {"pct_start_with_cosine", add("  lr_schedule: {name: cosine, pct_start: 0.2}\n"), "E_JOB_CONFLICT", ":11:31", "hyperparameters.lr_schedule.pct_start", {"one_cycle"}},
      {"warmup_with_one_cycle", add("  lr_schedule: {name: one_cycle, warmup_steps: 5}\n"), "E_JOB_CONFLICT", ":11:34", "hyperparameters.lr_schedule.warmup_steps", {"constant"}},
      {"gamma_with_cosine", add("  lr_schedule: {name: cosine, gamma: 0.5}\n"), "E_JOB_CONFLICT", ":11:31", "hyperparameters.lr_schedule.gamma", {"step"}},
      {"nesterov_alone", change("lr: 0.1", "lr: 0.1, nesterov: true"), "E_JOB_CONFLICT", ":10:35", "hyperparameters.optimizer.nesterov", {"momentum"}},
      {"nesterov_dampened", change("lr: 0.1", "lr: 0.1, momentum: 0.9, dampening: 0.1, nesterov: true"), "E_JOB_CONFLICT", ":10:66", "hyperparameters.optimizer.nesterov", {"dampening"}},
      {"dampening_alone", change("lr: 0.1", "lr: 0.1, dampening: 0.1"), "E_JOB_CONFLICT", ":10:35", "hyperparameters.optimizer.dampening", {"momentum"}},
      {"long_warmup", change("epochs: 1", "steps: 5") + "  lr_schedule: {name: linear, warmup_steps: 6}\n", "E_JOB_CONFLICT", ":11:31", "hyperparameters.lr_schedule.warmup_steps", {"5"}},
      {"many_parts", add("  gradient_accumulation: 65\n"), "E_JOB_CONFLICT", ":11:3", "hyperparameters.gradient_accumulation", {"64"}},
      {"many_shards", add("  shards: 128\nthreads_per_rank: 1\n"), "E_JOB_CONFLICT", ":11:3", "hyperparameters.shards", {"64"}},
      {"three_shards", add("  shards: 6\nthreads_per_rank: 1\n"), "E_JOB_CONFLICT", ":11:3", "hyperparameters.shards", {"power of two"}},
      {"shards_of_few_ranks", add("  shards: 1\nthreads_per_rank: 1\n"), "E_JOB_CONFLICT", ":11:3", "hyperparameters.shards", {"2 ranks", "1 shards"}},
      {"shards_and_parts", add("  shards: 4\n  gradient_accumulation: 2\nthreads_per_rank: 1\n"), "E_JOB_CONFLICT", ":11:3", "hyperparameters.shards", {"gradient_accumulation 2"}},
      {"shards_without_threads", add("  shards: 4\n"), "E_JOB_REQUIRED", ":11:3", "threads_per_rank", {"shards"}},
      {"nll_of_logits", add("  loss: nll\n"), "E_JOB_CONFLICT", ":11:3", "hyperparameters.loss", {"log_softmax"}},
      {"few_slots", add("hosts: [\"a:1\"]\n"), "E_JOB_CONFLICT", ":11:1", "hosts", {"1 slots", "instance_count 2"}},
      {"bad_slots", add("hosts: [\"a:x\"]\n"), "E_JOB_CONFLICT", ":11:1", "hosts", {"host:slots"}},
      {"best_without_validation", add("checkpoint: {best_by: validation_loss}\n"), "E_JOB_CONFLICT", ":11:14", "checkpoint.best_by", {"validation_fraction"}},
      {"nccl_on_cpu", change("backend: mpi", "backend: nccl") + "device: cpu\n", "E_JOB_CONFLICT", ":3:1", "backend", {"cpu"}},
      {"bf16_over_mpi", add("gradient_precision: bf16\n"), "E_JOB_CONFLICT", ":11:1", "gradient_precision", {"backend is mpi", "only nccl"}},
      {"bf16_on_cpu", change("backend: mpi", "backend: auto") + "device: cpu\ngradient_precision: bf16\n", "E_JOB_CONFLICT", ":12:1", "gradient_precision", {"device is cpu", "only nccl"}},
      {"bf16_and_shards", change("backend: mpi", "backend: nccl") + "  shards: 4\nthreads_per_rank: 1\ngradient_precision: bf16\n", "E_JOB_CONFLICT", ":13:1", "gradient_precision", {"shards"}},
      {"other_normalize", change("path: data}", "path: data}\n  test: {dataset: mnist, path: data, normalize: {mean: 0.1, std: 0.2}}"), "E_JOB_CONFLICT", ":7:", "inputs.test.normalize", {"inputs.training"}},
      {"normalize_sizes", change("path: data", "path: data, normalize: {mean: [0, 0], std: [1, 1, 1]}"), "E_JOB_CONFLICT", ":6:42", "inputs.training.normalize"},
  };
}

// Layers.
BadJobs bad_layers() {
  return {
      {"layer_word", with_layers("[conv3d]"), "E_JOB_UNKNOWN_KEY", ":4:18", "model.layers[0]", {"conv2d"}},
      {"layer_key", with_layers("[relu, {conv2d: {out_channels: 1, kernl: 3}}]"), "E_JOB_UNKNOWN_KEY", ":4:51", "model.layers[1].conv2d.kernl", {"model.layers[1].conv2d.kernel"}},
      {"layer_required", with_layers("[{conv2d: {kernel: 3}}]"), "E_JOB_REQUIRED", ":4:19", "model.layers[0].conv2d.out_channels"},
      {"layer_bare_word", with_layers("[linear]"), "E_JOB_REQUIRED", ":4:18", "model.layers[0].linear.out_features"},
      {"layer_kernel_three", with_layers("[{max_pool2d: [1, 2, 3]}]"), "E_JOB_TYPE", ":4:31", "model.layers[0].max_pool2d.kernel", {"2 values"}},
      {"layer_kernel_zero", with_layers("[{max_pool2d: 0}]"), "E_JOB_RANGE", ":4:31", "model.layers[0].max_pool2d.kernel", {"1..65535"}},
      {"layer_no_short_form", with_layers("[{linear: 10}]"), "E_JOB_TYPE", ":4:27", "model.layers[0].linear", {"out_features"}},
      {"layer_null", with_layers("[{relu: }]"), "E_JOB_TYPE", ":4:19", "model.layers[0].relu"},
      {"layer_number", with_layers("[3]"), "E_JOB_UNKNOWN_KEY", ":4:18", "model.layers[0]"},
      {"layer_list", with_layers("[[relu]]"), "E_JOB_TYPE", ":4:18", "model.layers[0]"},
      {"layer_two_words", with_layers("[{relu: {}, tanh: {}}]"), "E_JOB_TYPE", ":4:29", "model.layers[0]", {"relu", "tanh"}},
      {"layer_activation_key", with_layers("[{relu: {inplace: true}}]"), "E_JOB_UNKNOWN_KEY", ":4:26", "model.layers[0].relu.inplace"},
      {"layer_same_name", with_layers("[{relu: {name: a}}, {tanh: {name: a}}]"), "E_JOB_CONFLICT", ":4:37", "model.layers[1]", {"\"a\""}},
      {"layer_name_is_index", with_layers("[{relu: {name: \"1\"}}, tanh]"), "E_JOB_CONFLICT", ":4:39", "model.layers[1]"},
      {"layer_dotted_name", with_layers("[{relu: {name: a.b}}]"), "E_JOB_TYPE", ":4:32", "model.layers[0].relu.name"},
      {"layer_inside_residual", with_layers("[{residual: {layers: [relu, {dropout: 1}]}}]"), "E_JOB_RANGE", ":4:55", "model.layers[0].residual.layers[1].dropout.p", {"[0, 1)"}},
      {"layers_empty", with_layers("[]"), "E_JOB_TYPE", ":4:17", "model.layers", {"empty"}},
      {"layers_scalar", with_layers("relu"), "E_JOB_TYPE", ":4:17", "model.layers", {"list"}},
  };
}

// YAML that is refused as such.
BadJobs refused_yaml() {
  return {
      {"second_document", add("---\njob_name: other\n"), "E_JOB_DOCUMENTS", ":11:1", ""},
      {"empty_second_document", add("---\n"), "E_JOB_DOCUMENTS", ":11:1", ""},
      {"document_after_end", add("...\nx: 1\n"), "E_JOB_DOCUMENTS", ":12:1", ""},
      {"anchor", change("small", "&a small"), "E_JOB_ALIAS", ":1:11", "job_name", {"anchors"}},
      {"alias", change("small", "&a small") + "x: *a\n", "E_JOB_ALIAS", ":1:11", "job_name"},
      {"unknown_alias", change("small", "*a"), "E_JOB_SYNTAX", ":1:11", "job_name"},
      {"merge_key", add("<<: {a: 1}\n"), "E_JOB_ALIAS", ":11:1", "<<", {"merge"}},
      {"standard_tag", change("count: 2", "count: !!int 2"), "E_JOB_TAG", ":2:17", "instance_count"},
      {"custom_tag", change("{name: mnist_convnet}", "!model {name: mnist_convnet}"), "E_JOB_TAG", ":4:8", "model", {"!model"}},
      {"tab_indent", change("  epochs", "\tepochs"), "E_JOB_CHARACTER", ":8:1", "", {"tab"}},
      {"tab_behind_indent", change("  epochs", "  \tepochs"), "E_JOB_CHARACTER", ":8:3", "", {"tab"}},
      {"tab_before_list", add("hosts:\n\t- a\n"), "E_JOB_CHARACTER", ":12:1", "", {"tab"}},
      {"tab_behind_brackets_in_quotes", add("hostfile: \"[\"\n\tx: 1\n"), "E_JOB_CHARACTER", ":12:1", "", {"tab"}},
      {"tab_behind_brackets_in_comment", add("# [ {\n\tx: 1\n"), "E_JOB_CHARACTER", ":12:1", "", {"tab"}},
      {"nbsp_indent", change("  epochs", "\xc2\xa0 epochs"), "E_JOB_CHARACTER", ":8:1", "", {"U+00A0", "no-break space"}},
      {"zero_width", change("count: 2", "count: 2\xe2\x80\x8b"), "E_JOB_CHARACTER", ":2:18", "", {"U+200B", "zero width space"}},
      {"mark_within", add("\xef\xbb\xbfhostfile: a\n"), "E_JOB_CHARACTER", ":11:1", "", {"U+FEFF", "byte order mark"}},
      {"wide_space", change("name: sgd", "name:\xe3\x80\x80sgd"), "E_JOB_CHARACTER", ":10:20", "", {"U+3000"}},
      {"escape", change("small", "sm\x1b[31mall"), "E_JOB_CHARACTER", ":1:13", "", {"0x1b"}},
      {"nul", change("small", std::string("sm\0all", 6)), "E_JOB_CHARACTER", ":1:13", ""},
      {"lone_return", change("small\n", "small\r"), "E_JOB_CHARACTER", ":1:16", ""},
      {"latin1", change("small", "sm\xe9ll"), "E_JOB_UTF8", ":1:13", "", {"0xe9"}},
      {"overlong_utf8", change("small", "\xc0\xaf"), "E_JOB_UTF8", ":1:11", ""},
      {"surrogate_utf8", change("small", "\xed\xa0\x80"), "E_JOB_UTF8", ":1:11", ""},
      {"cut_utf8", kSmallJob + "\xe2\x82", "E_JOB_UTF8", ":11:1", ""},
      {"utf16", std::string("\xff\xfe" "j\0o\0", 6), "E_JOB_UTF8", ":1:1", "", {"UTF-16"}},
      {"unclosed_list", add("hosts: [a\n"), "E_JOB_SYNTAX", ":12:1", "hosts"},
      {"unclosed_quote", add("hostfile: \"a\n"), "E_JOB_SYNTAX", ":11:11", "hostfile"},
      {"unclosed_flow_maps", repeated("{a: ", 1000), "E_JOB_DEPTH", ":1:", "a.a"},
      {"unclosed_single_quote", add("hostfile: 'a''b\n"), "E_JOB_SYNTAX", ":11:11", "hostfile"},
      {"colon_twice", add("hostfile: a: b\n"), "E_JOB_SYNTAX", ":11:12", ""},
      {"bad_indent", add("hostfile: {a: 1}\n  b: 2\n"), "E_JOB_SYNTAX", ":12:3", ""},
      {"empty", "", "E_JOB_EMPTY", ":1:1", ""},
      {"only_comments", "# nothing\n\n", "E_JOB_EMPTY", ":1:1", ""},
      {"only_a_mark", "---\n", "E_JOB_EMPTY", ":2:1", ""},
  };
}

// Size and depth: a clean error instead of an overflown stack.
BadJobs size_and_depth() {
  return {
      {"large", kSmallJob + "#" + std::string(1 << 20, 'x'), "E_JOB_SIZE", ":1:1", ""},
      {"deep_lists_1000", "a: " + repeated("[", 1000) + repeated("]", 1000), "E_JOB_DEPTH", ":1:67", "a", {"64"}},
      {"deep_lists_100000", "a: " + repeated("[", 100000) + repeated("]", 100000), "E_JOB_DEPTH", ":1:67", "a"},
      {"deep_maps_1000", repeated("{a: ", 1000) + "x" + repeated("}", 1000), "E_JOB_DEPTH", ":1:257", "a.a"},
      {"deep_maps_100000", repeated("{a: ", 100000) + "x" + repeated("}", 100000), "E_JOB_DEPTH", ":1:257", "a.a"},
      {"deep_block_maps_1000", block_maps(1000), "E_JOB_DEPTH", ":65:65", "a.a"},
      {"deep_block_lists_1000", repeated("- ", 1000) + "x", "E_JOB_DEPTH", ":1:129", "[0][0]"},
      {"deep_block_lists_100000", repeated("- ", 100000) + "x", "E_JOB_DEPTH", ":1:129", "[0][0]"},
      {"deep_keys_100000", repeated("? ", 100000) + "x", "E_JOB_DEPTH", ":1:129", ""},
      {"deep_residuals", residuals(17), "E_JOB_DEPTH", ":4:", "model.layers[0].residual.layers", {"16"}},
      {"too_deep_residuals", residuals(1000), "E_JOB_DEPTH", ":4:", "model.layers[0].residual.layers"},
  };
}

// clang-format on

struct BadGroup {
  const char* name;
  BadJobs (*rows)();
};

void PrintTo(const BadGroup& group, std::ostream* out) { *out << group.name; }

class JobBadInput : public ::testing::TestWithParam<BadGroup> {};

TEST_P(JobBadInput, NamesCodeIdentifierPlaceAndKey) {
  JobFolder folder;
  for (const BadJob& row : GetParam().rows()) {
    SCOPED_TRACE(row.name);
    const auto error = error_of([&] { folder.read(row.text); });
    if (!error) {
      ADD_FAILURE() << "accepted";
      continue;
    }
    const std::string message = error->what();
    EXPECT_EQ(error->code(), 78) << message;
    EXPECT_EQ(error->id(), row.id) << message;
    const std::string place = "job=" + folder.file() + row.place;
    const std::string key = row.key;
    const size_t at = message.find(place);
    const char next = at == std::string::npos ? '?' : message[at + place.size()];
    EXPECT_TRUE(place.back() == ':' || next == ' ' || next == ':') << message << "\nexpected " << row.place;
    EXPECT_NE(message.find(key.empty() ? "" : " key=" + key), std::string::npos) << message;
    for (const char* word : row.words)
      EXPECT_NE(message.find(word ? word : ""), std::string::npos) << message << "\n" << (word ? word : "");
    EXPECT_LT(message.size(), 1500u) << message;
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, JobBadInput,
    ::testing::Values(BadGroup{"unknown_keys", unknown_keys}, BadGroup{"refused_names", refused_names},
                      BadGroup{"duplicates", duplicates}, BadGroup{"wrong_types", wrong_types},
                      BadGroup{"out_of_range", out_of_range}, BadGroup{"wrong_words", wrong_words},
                      BadGroup{"missing_and_excluding", missing_and_excluding},
                      BadGroup{"contradictions", contradictions}, BadGroup{"bad_layers", bad_layers},
                      BadGroup{"refused_yaml", refused_yaml}, BadGroup{"size_and_depth", size_and_depth}));

TEST(JobFile, MissingFileIs66) {
  JobFolder folder;
  expect_error(
      Exit::no_input, [&] { read_job(folder.file(), {}); }, "E_JOB_MISSING", folder.file());
  expect_error(
      Exit::no_input, [&] { read_job(folder.path(), {}); }, "E_JOB_MISSING", "folder");
}

TEST(JobFile, UnreadableFileIs77) {
  if (geteuid() == 0) GTEST_SKIP() << "root reads everything";
  JobFolder folder;
  folder.read(kSmallJob);
  std::filesystem::permissions(folder.file(), std::filesystem::perms::none);
  expect_error(
      Exit::no_permission, [&] { read_job(folder.file(), {}); }, folder.file());
}

TEST(JobFile, OverridesGetTheSameErrors) {
  JobFolder folder;
  struct Row {
    std::string set, id, key;
    std::vector<std::string> words = {};
  };
  const std::vector<Row> rows = {
      {"hyperparameters.optimizer.lrr=1",
       "E_JOB_UNKNOWN_KEY",
       "hyperparameters.optimizer.lrr",
       {"hyperparameters.optimizer.lr"}},
      {"hyperparameters.optimizer.lr=.nan", "E_JOB_TYPE", "hyperparameters.optimizer.lr", {"finite"}},
      {"hyperparameters.optimizer.lr=-1", "E_JOB_RANGE", "hyperparameters.optimizer.lr", {"0..1000000"}},
      {"instance_count=010", "E_JOB_TYPE", "instance_count", {"leading zero"}},
      {"instance_count='2'", "E_JOB_TYPE", "instance_count", {"quoted"}},
      {"instance_count=", "E_JOB_EMPTY", "instance_count"},
      {"instance_count=[2", "E_JOB_SYNTAX", "instance_count"},
      {"instance_count=\t2", "E_JOB_CHARACTER", "instance_count"},
      {"instance_count=2\n--- 3", "E_JOB_DOCUMENTS", ""},
      {"instance_count=&a 2", "E_JOB_ALIAS", "instance_count"},
      {"instance_count=\xff", "E_JOB_UTF8", "instance_count"},
      {"instance_count=" + repeated("[", 100000), "E_JOB_DEPTH", "instance_count"},
      {"job_name.first=x", "E_JOB_TYPE", "job_name", {"a map"}},
      {"hyperparameters.param_groups.0.frozen=true", "E_JOB_TYPE", "hyperparameters.param_groups", {"list"}},
      {"batch_size=4", "E_JOB_UNKNOWN_KEY", "batch_size", {"global_batch_size"}},
      {"recompute=blocks", "E_JOB_UNKNOWN_KEY", "recompute", {"hyperparameters.recompute"}},
      {"hyperparameters.precision=fp16", "E_JOB_CHOICE", "hyperparameters.precision", {"nearest: fp32"}},
      {"hyperparameters.ema={power: 0.75}",
       "E_JOB_CONFLICT",
       "hyperparameters.ema.power",
       {"belongs to hyperparameters.ema.decay only"}},
      {"hyperparameters.ema={warmup: true}",
       "E_JOB_CONFLICT",
       "hyperparameters.ema.warmup",
       {"belongs to hyperparameters.ema.decay only"}},
      {"hyperparameters.ema={decay: 0.9, warmup: false, inv_gamma: 2}",
       "E_JOB_CONFLICT",
       "hyperparameters.ema.inv_gamma",
       {"hyperparameters.ema.warmup true"}},
      {"hyperparameters.ema={decay: 1}", "E_JOB_RANGE", "hyperparameters.ema.decay"},
      {"hyperparameters.optimizer.betas=[0.9, 0.9]", "E_JOB_CONFLICT", "hyperparameters.optimizer.betas"},
      {"model.layers=[{conv2d: {out_channels: 1, kernl: 3}}]", "E_JOB_UNKNOWN_KEY",
       "model.layers[0].conv2d.kernl"},
      {"model={name: mnist_convnet, name: mnist_convnet}", "E_JOB_DUPLICATE", "model.name"},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.set.substr(0, 80));
    const std::string key = row.set.substr(0, row.set.find('='));
    const auto error = error_of([&] { folder.read(kSmallJob, {row.set}); });
    if (!error) {
      ADD_FAILURE() << "accepted";
      continue;
    }
    const std::string message = error->what();
    EXPECT_EQ(error->code(), 78) << message;
    EXPECT_EQ(error->id(), row.id) << message;
    EXPECT_NE(message.find("job=--set " + key), std::string::npos) << message;
    EXPECT_NE(message.find(row.key.empty() ? "" : " key=" + row.key), std::string::npos) << message;
    for (const std::string& word : row.words) EXPECT_NE(message.find(word), std::string::npos) << message;
  }
  for (const std::string set : {"lr", "=1", "a..b=1", ".a=1", "a.=1", ""})
    expect_error(
        Exit::usage, [&] { folder.read(kSmallJob, {set}); }, "E_JOB_SET");
  expect_error(
      Exit::config, [&] { folder.read(kSmallJob, {repeated("a.", 100000) + "b=1"}); }, "E_JOB_DEPTH");
}

TEST(JobFile, WhatThisBuildLacks) {
  JobFolder folder;
  const auto asked = [&](const std::vector<std::string>& set) {
    require_available(folder.read(kSmallJob, set));
  };
  expect_error(
      Exit::config, [&] { asked({"backend=nccl"}); }, "E_JOB_UNAVAILABLE", "key=backend", "--set backend",
      "works here");
  expect_error(
      Exit::config, [&] { asked({"device=cuda"}); }, "E_JOB_UNAVAILABLE", "key=device", "cpu");
  expect_error(
      Exit::config, [&] { require_available(folder.read(kSmallJob + "device: cuda\n")); },
      folder.file() + ":11:1", "key=device");
  // The alias's place is named where the article's form has it.
  const std::string article = replaced(kSmallJob, "backend: mpi\n", "") + "  backend: nccl\n";
  expect_error(
      Exit::config, [&] { require_available(folder.read(article)); }, folder.file() + ":10:3");
  expect_error(
      Exit::no_input, [&] { asked({"hostfile=/nowhere/hosts"}); }, "/nowhere/hosts", "key=hostfile");
  EXPECT_NO_THROW(asked({}));
  EXPECT_NO_THROW(asked({"backend=auto", "device=auto"}));
}

}  // namespace
}  // namespace lockstep::testing
