// SPDX-License-Identifier: Apache-2.0
// What a good job file becomes: fields, defaults, overrides, and the resolved job that reads back as itself.
#include <filesystem>

#include "tests/launch/job_support.h"

namespace lockstep::testing {
namespace {

// Every key that goes together with the others.
const std::string kFullJob = R"(
job_name: "full"
instance_count: 3
hosts: [node1, "node2:4"]
backend: gloo
device: cpu
threads_per_rank: 2
deadline_seconds: 12.5
start_deadline_seconds: 7.5
model:
  layers:
    - conv2d: {out_channels: 16, in_channels: 3, kernel: [3, 5], stride: [1, 2], padding: 1, dilation: [2, 1], groups: 1, bias: false, name: stem}
    - batch_norm2d
    - group_norm: 4
    - silu
    - residual:
        layers: [{conv2d: {out_channels: 16, kernel: 1}}, {residual: {layers: [relu, gelu]}}]
        shortcut: [tanh]
    - max_pool2d: 2
    - avg_pool2d: {kernel: [2, 3], stride: 1, padding: [1, 0], ceil_mode: true, count_include_pad: false}
    - adaptive_avg_pool2d: [4, 2]
    - dropout2d: 0.25
    - dropout
    - flatten
    - linear: {out_features: 10, in_features: 128, bias: false}
    - self_attention2d: {heads: 4, groups: 8, eps: 1e-6}
    - log_softmax
  init_from: weights.safetensors
inputs:
  training: {dataset: image_folder, path: pictures, limit: 1000, normalize: {mean: [0.4914, 0.4822, 0.4465], std: 0.25}, resize: 72, crop: [64, 60], on_bad_image: skip, captions: {column: text, dropout: 0.1}, augment: {flip: true, crop_padding: 4, random_crop: [56, 48]}}
  validation: {dataset: image_folder, path: /abs/held_out, crop: 48, captions: {template: "a {}"}}
  test: {dataset: idx, path: ../t10k, normalize: {mean: [0.4914, 0.4822, 0.4465], std: 0.25}}
hyperparameters:
  steps: 1000
  global_batch_size: 96
  gradient_accumulation: 4
  optimizer: {name: adamw, lr: 1e-3, betas: [0.85, 0.9999], eps: 1e-7}
  lr_schedule: {name: step, warmup_steps: 10, step_size: 30, gamma: 0.5}
  clip_grad_norm: 1.5
  loss: nll
  label_smoothing: 0.1
  seed: 18446744073709551615
  shuffle: false
  drop_last: true
  param_groups:
    - {match: "*.bias", weight_decay: 0}
    - {match: "stem.*", lr_scale: 0.1, frozen: true}
checkpoint: {every_steps: 100, keep: 0, best_by: validation_loss}
log_every: 1
output: {dir: elsewhere}
)";

TEST(JobRead, EveryFieldOfAFullJob) {
  JobFolder folder;
  const Job job = folder.read(kFullJob);
  EXPECT_EQ(job.file, folder.file());
  EXPECT_EQ(job.job_name, "full");
  EXPECT_EQ(job.instance_count, 3);
  EXPECT_EQ(job.hosts, (std::vector<std::string>{"node1:1", "node2:4"}));
  EXPECT_EQ(job.backend, "mpi");
  EXPECT_EQ(job.device, "cpu");
  EXPECT_EQ(job.threads_per_rank, 2);
  EXPECT_EQ(job.deadline_seconds, 12.5);
  EXPECT_EQ(job.start_deadline_seconds, 7.5);
  EXPECT_EQ(job.model.name, "");
  EXPECT_EQ(job.model.init_from, folder.path() + "/weights.safetensors");
  EXPECT_EQ(job.training.dataset, "image_folder");
  EXPECT_EQ(job.training.path, folder.path() + "/pictures");
  EXPECT_EQ(job.training.split, "training");
  EXPECT_EQ(job.training.limit, 1000);
  EXPECT_EQ(job.training.mean, (std::vector<float>{0.4914f, 0.4822f, 0.4465f}));
  EXPECT_EQ(job.training.std, (std::vector<float>{0.25f}));
  EXPECT_EQ(job.training.where, folder.file() + ":30:3");
  EXPECT_EQ(job.training.fit.text(), "resize 72x0 crop 64x60");
  EXPECT_EQ(job.training.on_bad_image, "skip");
  EXPECT_EQ(job.training.captions.column, "text");
  EXPECT_EQ(job.training.captions.pattern, "");
  EXPECT_EQ(job.training.captions.dropout, 0.1);
  EXPECT_TRUE(job.training.augment.flip);
  EXPECT_EQ(job.training.augment.crop_padding, 4);
  EXPECT_EQ(job.training.augment.random_crop.height, 56);
  EXPECT_EQ(job.training.augment.random_crop.width, 48);
  ASSERT_TRUE(job.validation && job.test);
  EXPECT_EQ(job.validation->fit.text(), "resize 72x0 crop 48x0") << "fitted as the training samples";
  EXPECT_EQ(job.validation->captions.column, "") << "instead of the training samples'";
  EXPECT_EQ(job.validation->captions.pattern, "a {}");
  EXPECT_EQ(job.validation->captions.dropout, 0);
  EXPECT_EQ(job.validation->on_bad_image, "stop");
  EXPECT_FALSE(job.validation->augment.any());
  EXPECT_EQ(job.validation->path, "/abs/held_out");
  EXPECT_EQ(job.validation->split, "test");
  EXPECT_EQ(job.validation->mean, job.training.mean) << "normalised as the training samples";
  EXPECT_EQ(job.validation->limit, 0);
  EXPECT_EQ(job.test->path, std::filesystem::path(folder.path()).parent_path() / "t10k");
  EXPECT_EQ(job.test->mean, job.training.mean);
  EXPECT_EQ(job.test->captions.column, "text") << "as the training samples";
  EXPECT_EQ(job.test->split, "test");
  const TrainingConfig& h = job.hyperparameters;
  EXPECT_FALSE(h.epochs);
  EXPECT_EQ(h.steps, 1000);
  EXPECT_EQ(h.global_batch_size, 96);
  EXPECT_EQ(h.gradient_accumulation, 4);
  EXPECT_EQ(h.optimizer.name, "adamw");
  EXPECT_EQ(h.optimizer.lr, 1e-3);
  EXPECT_EQ(h.optimizer.beta1, 0.85);
  EXPECT_EQ(h.optimizer.beta2, 0.9999);
  EXPECT_EQ(h.optimizer.eps, 1e-7);
  EXPECT_EQ(h.optimizer.weight_decay, 0.01) << "adamw's own default";
  EXPECT_EQ(h.lr_schedule.name, "step");
  EXPECT_EQ(h.lr_schedule.warmup_steps, 10);
  EXPECT_EQ(h.lr_schedule.step_size, 30);
  EXPECT_EQ(h.lr_schedule.gamma, 0.5);
  EXPECT_EQ(h.clip_grad_norm, 1.5);
  EXPECT_EQ(h.loss, "nll");
  EXPECT_EQ(h.label_smoothing, 0.1);
  EXPECT_EQ(h.seed, 18446744073709551615u);
  EXPECT_FALSE(h.shuffle);
  EXPECT_TRUE(h.drop_last);
  ASSERT_EQ(h.param_groups.size(), 2u);
  EXPECT_EQ(h.param_groups[0].match, "*.bias");
  EXPECT_EQ(h.param_groups[0].weight_decay, 0.0);
  EXPECT_EQ(h.param_groups[0].lr_scale, 1);
  EXPECT_EQ(h.param_groups[1].lr_scale, 0.1);
  EXPECT_FALSE(h.param_groups[1].weight_decay);
  EXPECT_TRUE(h.param_groups[1].frozen);
  EXPECT_EQ(h.param_groups[1].where, folder.file() + ":47:7");
  EXPECT_EQ(job.checkpoint.every_steps, 100);
  EXPECT_FALSE(job.checkpoint.every_epochs);
  EXPECT_EQ(job.checkpoint.keep, 0);
  EXPECT_EQ(job.checkpoint.best_by, "validation_loss");
  EXPECT_EQ(job.log_every, 1);
  EXPECT_EQ(job.output_dir, std::filesystem::current_path() / "elsewhere");
}

TEST(JobRead, EveryLayer) {
  JobFolder folder;
  const std::vector<LayerSpec> layers = folder.read(kFullJob).model.layers;
  ASSERT_EQ(layers.size(), 14u);
  const auto& conv = std::get<layer::Conv2d>(layers[0].kind);
  EXPECT_EQ(layers[0].name, "stem");
  EXPECT_EQ(layers[0].type, "conv2d");
  EXPECT_EQ(layers[0].where, folder.file() + ":12:7");
  EXPECT_EQ(conv.out_channels, 16);
  EXPECT_EQ(conv.in_channels, 3);
  EXPECT_TRUE(conv.kernel.h == 3 && conv.kernel.w == 5);
  EXPECT_TRUE(conv.stride.h == 1 && conv.stride.w == 2);
  EXPECT_TRUE(conv.padding.h == 1 && conv.padding.w == 1);
  EXPECT_TRUE(conv.dilation.h == 2 && conv.dilation.w == 1);
  EXPECT_EQ(conv.groups, 1);
  EXPECT_FALSE(conv.bias);
  EXPECT_EQ(layers[1].name, "");
  EXPECT_EQ(std::get<layer::BatchNorm2d>(layers[1].kind).momentum, 0.1);
  EXPECT_EQ(std::get<layer::GroupNorm>(layers[2].kind).groups, 4);
  EXPECT_EQ(std::get<layer::Activation>(layers[3].kind).kind, "silu");
  const auto& residual = std::get<layer::Residual>(layers[4].kind);
  ASSERT_EQ(residual.layers.size(), 2u);
  ASSERT_EQ(residual.shortcut.size(), 1u);
  EXPECT_EQ(residual.shortcut[0].type, "tanh");
  EXPECT_EQ(std::get<layer::Residual>(residual.layers[1].kind).layers[1].type, "gelu");
  EXPECT_TRUE(std::get<layer::Residual>(residual.layers[1].kind).shortcut.empty());
  const auto& max_pool = std::get<layer::MaxPool2d>(layers[5].kind);
  EXPECT_TRUE(max_pool.kernel.h == 2 && max_pool.kernel.w == 2);
  EXPECT_TRUE(max_pool.stride.h == 0 && max_pool.stride.w == 0) << "0: the kernel";
  const auto& avg_pool = std::get<layer::AvgPool2d>(layers[6].kind);
  EXPECT_TRUE(avg_pool.kernel.h == 2 && avg_pool.kernel.w == 3 && avg_pool.stride.w == 1);
  EXPECT_TRUE(avg_pool.padding.h == 1 && avg_pool.padding.w == 0);
  EXPECT_TRUE(avg_pool.ceil_mode);
  EXPECT_FALSE(avg_pool.count_include_pad);
  const auto& adaptive = std::get<layer::AdaptiveAvgPool2d>(layers[7].kind);
  EXPECT_TRUE(adaptive.output.h == 4 && adaptive.output.w == 2);
  EXPECT_EQ(std::get<layer::Dropout>(layers[8].kind).p, 0.25);
  EXPECT_TRUE(std::get<layer::Dropout>(layers[8].kind).channelwise);
  const auto& attention = std::get<layer::SelfAttention2d>(layers[12].kind);
  EXPECT_EQ(attention.heads, 4);
  EXPECT_EQ(attention.groups, 8);
  EXPECT_EQ(attention.eps, 1e-6);
  EXPECT_EQ(std::get<layer::Dropout>(layers[9].kind).p, 0.5);
  EXPECT_FALSE(std::get<layer::Dropout>(layers[9].kind).channelwise);
  EXPECT_TRUE(std::holds_alternative<layer::Flatten>(layers[10].kind));
  const auto& linear = std::get<layer::Linear>(layers[11].kind);
  EXPECT_EQ(linear.out_features, 10);
  EXPECT_EQ(linear.in_features, 128);
  EXPECT_FALSE(linear.bias);
  EXPECT_TRUE(std::holds_alternative<layer::LogSoftmax>(layers[13].kind));
}

TEST(JobRead, DefaultsOfASmallJob) {
  JobFolder folder;
  const Job job =
      folder.read(replaced(replaced(replaced(kSmallJob, "job_name: small\n", ""), "backend: mpi\n", ""),
                           "instance_count: 2\n", ""));
  EXPECT_EQ(job.job_name, "job") << "the file's name";
  EXPECT_EQ(job.instance_count, 1);
  EXPECT_EQ(job.backend, "auto");
  EXPECT_EQ(job.gradient_precision, "fp32");
  EXPECT_EQ(job.device, "auto");
  EXPECT_FALSE(job.validation);
  ASSERT_TRUE(job.test) << "mnist has a test half";
  EXPECT_EQ(job.test->dataset, "mnist");
  EXPECT_EQ(job.test->path, folder.path() + "/data");
  EXPECT_EQ(job.test->split, "test");
  EXPECT_EQ(job.training.split, "training");
  EXPECT_EQ(job.hyperparameters.optimizer.weight_decay, 0);
  EXPECT_EQ(job.output_dir, std::filesystem::current_path() / "runs");
  EXPECT_FALSE(folder.read(replaced(kSmallJob, "dataset: mnist", "dataset: idx")).test);
}

TEST(JobRead, TestSetOfTheTrainingSetTakesItsOwnLimit) {
  JobFolder folder;
  const std::string text =
      replaced(kSmallJob, "path: data", "path: data, limit: 7, normalize: {mean: 0.1, std: 0.2}");
  EXPECT_EQ(folder.read(text).test->limit, 0);
  const Job job = folder.read(text, {"inputs.test.limit=9"});
  EXPECT_EQ(job.test->limit, 9);
  EXPECT_EQ(job.test->path, job.training.path);
  EXPECT_EQ(job.test->mean, job.training.mean);
  EXPECT_EQ(job.training.limit, 7);
}

TEST(JobRead, YamlForms) {
  JobFolder folder;
  // Byte-order mark, CRLF, quoted keys, document marks, comments, block strings.
  std::string text = "\xef\xbb\xbf---\n" + kSmallJob + "...\n";
  text = replaced(text, "job_name: small", "\"job_name\": 'it-s'  # a comment");
  for (size_t at = 0; (at = text.find('\n', at)) != std::string::npos; at += 2) text.replace(at, 1, "\r\n");
  EXPECT_EQ(folder.read(text).job_name, "it-s");
  EXPECT_EQ(folder.read(replaced(kSmallJob, "lr: 0.1", "lr: +1.5E-2")).hyperparameters.optimizer.lr, 0.015);
  EXPECT_EQ(folder.read(replaced(kSmallJob, "lr: 0.1", "lr: .5")).hyperparameters.optimizer.lr, 0.5);
  EXPECT_EQ(folder.read(replaced(kSmallJob, "count: 2", "count: +2")).instance_count, 2);
  EXPECT_EQ(folder.read(replaced(kSmallJob, "small", "\"123\"")).job_name, "123");
  EXPECT_EQ(folder.read(replaced(kSmallJob, "path: data", "path: 'it''s \"é\" #1'")).training.path,
            folder.path() + "/it's \"é\" #1");
}

TEST(JobRead, BackendInTheArticlesPlace) {
  JobFolder folder;
  const std::string article = replaced(kSmallJob, "backend: mpi\n", "") + "  backend: gloo\n";
  EXPECT_EQ(folder.read(article).backend, "mpi");
  EXPECT_EQ(folder.read(kSmallJob + "  backend: gloo\n").backend, "mpi") << "both, and the same";
  EXPECT_EQ(folder.read(article, {"backend=auto"}).backend, "auto") << "--set replaces either";
  EXPECT_EQ(folder.read(kSmallJob, {"hyperparameters.backend=auto"}).backend, "auto");
}

TEST(JobRead, ShortFormOfTheSchedule) {
  JobFolder folder;
  const std::string text = kSmallJob + "  lr_schedule: cosine\n";
  EXPECT_EQ(folder.read(text).hyperparameters.lr_schedule.name, "cosine");
  const Job job = folder.read(text, {"hyperparameters.lr_schedule.warmup_steps=5"});
  EXPECT_EQ(job.hyperparameters.lr_schedule.name, "cosine");
  EXPECT_EQ(job.hyperparameters.lr_schedule.warmup_steps, 5);
  EXPECT_EQ(folder.read(text, {"hyperparameters.lr_schedule=linear"}).hyperparameters.lr_schedule.name,
            "linear");
}

TEST(JobRead, OverridesReplaceAddAndExclude) {
  JobFolder folder;
  const auto read = [&](const std::vector<std::string>& set) { return folder.read(kSmallJob, set); };
  EXPECT_EQ(read({"hyperparameters.optimizer.lr=0.25"}).hyperparameters.optimizer.lr, 0.25);
  EXPECT_EQ(read({"hyperparameters.optimizer.momentum=0.5"}).hyperparameters.optimizer.momentum, 0.5);
  EXPECT_EQ(read({"checkpoint.keep=7"}).checkpoint.keep, 7) << "a map that the file lacks";
  EXPECT_EQ(read({"log_every=2", "log_every=3"}).log_every, 3) << "the last counts";
  const Job steps = read({"hyperparameters.steps=5"});
  EXPECT_EQ(steps.hyperparameters.steps, 5);
  EXPECT_FALSE(steps.hyperparameters.epochs);
  const Job layers = read({"model.layers=[flatten, {linear: {out_features: 10}}]"});
  EXPECT_EQ(layers.model.name, "");
  ASSERT_EQ(layers.model.layers.size(), 2u);
  EXPECT_EQ(layers.model.layers[1].where, "--set model.layers");
  EXPECT_EQ(layers.where.at("model.layers"), "--set model.layers");
  EXPECT_EQ(layers.where.at("instance_count"), folder.file() + ":2:1");
  EXPECT_EQ(read({"hyperparameters.optimizer={name: adam, lr: 1e-4}"}).hyperparameters.optimizer.name,
            "adam");
  const Job validation = folder.read(kSmallJob + "validation_fraction: 0.5\n",
                                     {"inputs.validation={dataset: idx, path: images}"});
  EXPECT_EQ(validation.validation_fraction, 0);
  EXPECT_EQ(validation.validation->path, std::filesystem::current_path() / "images")
      << "typed on a command line";
  expect_error(
      Exit::config, [&] { read({"job_name=a=b"}); }, "E_JOB_TYPE", "\"a=b\"");
}

void expect_round_trip(const JobFolder& folder, const Job& job) {
  const std::string text = to_yaml(job);
  SCOPED_TRACE(text);
  const Job again = folder.read(text);
  EXPECT_EQ(to_yaml(again), text);
  EXPECT_EQ(job_hash(again), job_hash(job));
  EXPECT_EQ(again.output_dir, job.output_dir);
  EXPECT_EQ(again.test.has_value(), job.test.has_value());
  EXPECT_EQ(again.training.mean, job.training.mean);
  EXPECT_EQ(again.hyperparameters.optimizer.lr, job.hyperparameters.optimizer.lr);
  EXPECT_EQ(again.model.layers.size(), job.model.layers.size());
}

TEST(JobWrite, ReadsBackAsTheSameJob) {
  JobFolder folder;
  expect_round_trip(folder, folder.read(kSmallJob));
  expect_round_trip(folder, folder.read(kFullJob));
  expect_round_trip(folder, folder.read(kSmallJob, {"backend=nccl", "gradient_precision=bf16"}));
  expect_round_trip(folder, folder.read(kSmallJob, {"hyperparameters.optimizer={name: adam, lr: 0.1}"}));
  for (const char* lr : {"0.1", "1e-300", "0.30000000000000004", "123456.789012345678", "5e-324", "0"})
    expect_round_trip(folder, folder.read(kSmallJob, {std::string("hyperparameters.optimizer.lr=") + lr}));
  for (const char* path :
       {"'a b'", "'it''s: #1'", "\"q\\\"\\\\\"", "é", "'true'", "'12'", "'~'", "'- x'", "'{a}'"})
    expect_round_trip(folder, folder.read(replaced(kSmallJob, "path: data", std::string("path: ") + path)));
  std::string deep = "relu";
  for (int i = 0; i < 16; ++i)
    deep = "{residual: {layers: [batch_norm2d, {conv2d: {out_channels: 1, kernel: 1}}, " + deep + "]}}";
  expect_round_trip(folder, folder.read(with_layers("[" + deep + "]")));
}

TEST(JobWrite, TheCommittedJobsReadAndReadBack) {
  JobFolder folder;
  int jobs = 0;
  for (const auto& entry : std::filesystem::directory_iterator(LOCKSTEP_SOURCE_DIR "/configs")) {
    if (entry.path().extension() != ".yaml") continue;
    SCOPED_TRACE(entry.path().string());
    const Job job = read_job(entry.path().string(), {});
    expect_round_trip(folder, job);
    ++jobs;
  }
  EXPECT_GE(jobs, 5);
}

// What the rank's own file says about the full job, after a round trip, field by field: the same as before
// it.
TEST(JobWrite, FullJobKeepsItsFields) {
  JobFolder folder;
  const Job job = folder.read(to_yaml(folder.read(kFullJob)));
  EXPECT_EQ(job.hosts, (std::vector<std::string>{"node1:1", "node2:4"}));
  EXPECT_EQ(job.hyperparameters.seed, 18446744073709551615u);
  EXPECT_EQ(job.hyperparameters.optimizer.beta2, 0.9999);
  EXPECT_EQ(job.hyperparameters.param_groups[0].weight_decay, 0.0);
  EXPECT_FALSE(job.hyperparameters.param_groups[1].weight_decay);
  EXPECT_TRUE(job.hyperparameters.param_groups[1].frozen);
  EXPECT_EQ(job.model.layers[0].name, "stem");
  EXPECT_EQ(std::get<layer::Conv2d>(job.model.layers[0].kind).dilation.h, 2);
  EXPECT_EQ(std::get<layer::MaxPool2d>(job.model.layers[5].kind).stride.h, 0);
  EXPECT_EQ(std::get<layer::Residual>(job.model.layers[4].kind).shortcut.size(), 1u);
  EXPECT_EQ(job.checkpoint.every_steps, 100);
  EXPECT_EQ(job.checkpoint.best_by, "validation_loss");
}

TEST(JobHash, CoversTheJobButNotItsPlace) {
  JobFolder one, two;
  const std::string text = replaced(kSmallJob, "path: data", "path: /data");
  const std::string hash = job_hash(one.read(text));
  EXPECT_EQ(hash.size(), 64u);
  EXPECT_EQ(hash, job_hash(two.read("# moved\n" + text))) << "another file";
  EXPECT_EQ(hash, job_hash(one.read(text, {"output.dir=elsewhere"})));
  EXPECT_EQ(hash, job_hash(one.read(text, {"hyperparameters.shuffle=true"}))) << "the default, written out";
  for (const char* set :
       {"instance_count=3", "hyperparameters.seed=2", "hyperparameters.optimizer.lr=0.1000000001",
        "inputs.test.limit=5", "model.name=mnist_convnet_dropout", "hyperparameters.steps=1",
        "hyperparameters.param_groups=[{match: a}]", "log_every=7"})
    EXPECT_NE(hash, job_hash(one.read(text, {set}))) << set;
  EXPECT_NE(job_hash(one.read(text, {"backend=nccl"})),
            job_hash(one.read(text, {"backend=nccl", "gradient_precision=bf16"})));
}

// YAML 1.2, 6.1: tabs separate, they don't indent. What looks like a space is no concern of ours within a text.
TEST(JobFile, TabsAndInvisibleCharactersWhereTheyDoNoHarm) {
  const JobFolder folder;
  const auto name = [&](const std::string& from, const std::string& to) {
    return folder.read(replaced(kSmallJob, from, to)).job_name;
  };
  EXPECT_EQ(name("job_name: small", "job_name: small\t# a comment"), "small");
  EXPECT_EQ(name("job_name: small", "job_name:\tsmall"), "small");
  EXPECT_EQ(name("job_name: small", "\t# a comment\njob_name: small"), "small");
  EXPECT_EQ(name("job_name: small", "job_name: small \t \n\t\n"), "small");
  EXPECT_EQ(name("job_name: small", "job_name: small\n\t # a comment"), "small");
  EXPECT_EQ(name("{name: sgd, lr: 0.1}", "{\n\tname: sgd,\n\tlr: 0.1\n\t}"), "small");
  EXPECT_EQ(name("small", "small  #\xc2\xa0[a comment, it's"), "small");
  const std::string path =
      folder.read(replaced(kSmallJob, "path: data", "path: \"a\xc2\xa0 b\"")).training.path;
  EXPECT_EQ(std::filesystem::path(path).filename(), "a\xc2\xa0 b");
}

}  // namespace
}  // namespace lockstep::testing
