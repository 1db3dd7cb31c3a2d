// SPDX-License-Identifier: Apache-2.0
// model.json: what is written reads back as the same model, and what is not ours is refused.
#include "launch/job/model_file.h"

#include "tests/launch/job_support.h"

namespace lockstep::testing {
namespace {

const DatasetShape kSeen = {
    60000, 1, 28, 28, 10, {"0", "1", "2", "3", "4", "5", "6", "7", "8", "nine: \"9\"\n"}, {}};

class ModelFile : public ::testing::Test {
 protected:
  nlohmann::ordered_json written(const std::string& job, const DatasetShape& seen = kSeen) {
    return model_file(jobs_.read(job), seen, {{"training", "aa"}, {"test", "bb"}}, "9.9 (test)");
  }
  ModelDescription read(const std::string& text) {
    write_file(file(), text);
    return read_model_file(file());
  }
  std::string file() const { return jobs_.path() + "/model.json"; }
  void expect_same(const std::string& job, const DatasetShape& seen = kSeen) {
    const auto j = written(job, seen);
    const ModelDescription d = read(j.dump());
    const ModelDescription expected = describe(jobs_.read(job), seen);
    EXPECT_EQ(d.input.channels, expected.input.channels);
    EXPECT_EQ(d.input.height, expected.input.height);
    EXPECT_EQ(d.input.width, expected.input.width);
    EXPECT_EQ(d.input.classes, expected.input.classes);
    EXPECT_EQ(d.input.mean, expected.input.mean);
    EXPECT_EQ(d.input.std, expected.input.std);
    EXPECT_EQ(d.fit.text(), expected.fit.text());
    EXPECT_EQ((ImageFit{d.window, {}}).text(), (ImageFit{expected.window, {}}).text());
    EXPECT_EQ(d.class_names, expected.class_names);
    EXPECT_EQ(d.config.precision, expected.config.precision);
    EXPECT_EQ(d.config.loss, expected.config.loss);
    EXPECT_EQ(d.config.seed, expected.config.seed);
    EXPECT_EQ(d.config.global_batch_size, expected.config.global_batch_size);
    EXPECT_EQ(d.no_class_row(), expected.no_class_row());
    EXPECT_EQ(d.program, "9.9 (test)");
    EXPECT_EQ(d.data, (std::map<std::string, std::string>{{"training", "aa"}, {"test", "bb"}}));
    // The model itself: what it would write again is what it was read from.
    Job again = jobs_.read(job);
    again.model = d.model;
    again.scheduler = d.scheduler;
    EXPECT_EQ(model_file(again, seen, d.data, "9.9 (test)").dump(1), j.dump(1));
  }
  JobFolder jobs_;
};

const std::string kResidual =
    "[{conv2d: {out_channels: 8, kernel: [3, 1], padding: [1, 0], name: first}}, batch_norm2d, {residual: "
    "{layers: "
    "[{conv2d: {out_channels: 8, kernel: 3, padding: 1}}, {dropout: 0.25}], shortcut: [{conv2d: "
    "{out_channels: 8, "
    "kernel: 1, bias: false}}]}}, {group_norm: {groups: 4, eps: 1e-6}}, {adaptive_avg_pool2d: 1}, flatten, "
    "{linear: {out_features: 10}}, log_softmax]";
const std::string kUnet =
    "{name: unet2d, config: {in_channels: 1, out_channels: 1, block_out_channels: [8, 16], down_block_types: "
    "[DownBlock2D, AttnDownBlock2D], up_block_types: [AttnUpBlock2D, UpBlock2D], norm_num_groups: 4, "
    "attention_head_dim: 8, mid_block_type: null, num_class_embeds: 11}}";

std::string diffusion_job(const std::string& objective) {
  return replaced(kSmallJob, "{name: mnist_convnet}", kUnet) +
         "objective: {name: diffusion, beta_schedule: squaredcos_cap_v2" + objective +
         "}\nsampling: {sampler: dpm_solver, steps: 7, timestep_spacing: trailing}\n";
}

TEST_F(ModelFile, ReadsBackAsTheSameModel) {
  expect_same(kSmallJob);
  expect_same(with_layers(kResidual) + "  loss: nll\n  seed: 18446744073709551615\n");
  expect_same(
      replaced(kSmallJob, "{name: mnist_convnet}", "{name: resnet18, stem: cifar}") + "  precision: bf16\n",
      {5, 3, 32, 32, 10, {}, {}});
  expect_same(diffusion_job(", label_dropout: 0.1, prediction_type: v_prediction"));
  expect_same(diffusion_job(""));
  expect_same(
      replaced(kSmallJob, "{dataset: mnist, path: data}",
               "{dataset: image_folder, path: data, resize: 40, crop: [36, 32], normalize: {mean: [0.1307, "
               "0.2, 0.3], std: 0.3081}, augment: {random_crop: 28, flip: true}}"),
      {5, 3, 36, 32, 10, {}, {}});
}

TEST_F(ModelFile, SaysWhichRowIsNoClass) {
  EXPECT_TRUE(read(written(diffusion_job(", label_dropout: 0.1")).dump()).no_class_row());
  EXPECT_FALSE(read(written(diffusion_job("")).dump()).no_class_row());
}

TEST_F(ModelFile, RefusesWhatIsNotIts) {
  const auto good = written(kSmallJob);
  const auto changed = [&](const char* pointer, const nlohmann::ordered_json& value) {
    auto j = good;
    j[nlohmann::ordered_json::json_pointer(pointer)] = value;
    return j.dump();
  };
  const auto refused = [&](const std::string& text, const auto&... words) {
    expect_error(
        Exit::data, [&] { read(text); }, "E_MODEL_FILE", "model.json", words...);
  };
  read(good.dump());
  refused(changed("/format_version", 2), "format_version 2", "knows 1");
  refused(changed("/format", "other"), "format");
  refused(changed("/inputs/chanels", 1), "chanels", "channels");
  refused(changed("/inputs/height", 0), "height");
  refused(changed("/inputs/mean", {0.1, 0.2}), "a number a channel");
  refused(changed("/outputs/class_names", {"a", "b"}), "outputs.classes");
  refused(changed("/outputs/class_names/1", "0"), "twice");
  refused(changed("/outputs/no_class_row", true), "no_class_row");
  refused(changed("/model/name", "mnist_convnex"), "mnist_convnet");
  refused(changed("/model/init_from", "x"), "init_from");
  refused(changed("/hyperparameters/epochs", 3), "epochs");
  refused(changed("/objective/name", "diffusion"), "hyperparameters.loss");
  refused("", "JSON");
  refused("[]", "JSON");
  refused(good.dump().substr(0, 200), "JSON");
  refused(good.dump() + "x", "JSON");
  expect_error(
      Exit::no_input, [&] { read_model_file(jobs_.path() + "/none.json"); }, "none.json");
}

}  // namespace
}  // namespace lockstep::testing
