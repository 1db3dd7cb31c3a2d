// SPDX-License-Identifier: Apache-2.0
// Checkpoints whose hashes are right and whose descriptions are not: what another program has written, or a faulty one.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "runtime/checkpoint/manifest.h"
#include "runtime/files/path.h"
#include "tests/launch/small_run.h"

namespace lockstep::testing {
namespace {

using nlohmann::json;

class DamagedMetaTest : public SmallRun {
 protected:
  void SetUp() override {
    SmallRun::SetUp();
    write_file(folder_.file("job.yaml"),
               "job_name: test\nmodel:\n  layers: [flatten, {linear: {out_features: 10}}]\n"
               "inputs: {training: {dataset: mnist, path: .}, validation: {dataset: mnist, path: .}}\n"
               "hyperparameters: {steps: 4, global_batch_size: 12, optimizer: {name: sgd, lr: 0.01}}\n"
               "checkpoint: {every_steps: 4, best_by: validation_loss}\n"
               "stop: {metric: validation_loss, patience: 100, every_steps: 2}\n");
    expect(lockstep("fit job.yaml --output run"), Exit::ok);
    for (const std::string& name : names_in(folder_.file("run/checkpoints")))  // the best one
      if (name != "step-00000004") std::filesystem::remove_all(folder_.file("run/checkpoints/" + name));
    meta_ = json::parse(read_file(file("meta.json")));
  }
  std::string file(const std::string& name) const {
    return folder_.file("run/checkpoints/step-00000004/" + name);
  }

  // Goes on from a checkpoint with that description, sealed as by the program.
  Outcome resume_with(const json& meta, const std::string& options = "") const {
    const std::string text = meta.dump(1) + "\n";
    write_file(file("meta.json"), text);
    json files = json::parse(read_file(file("manifest.json")))["files"];
    files["meta.json"] = describe_text(text);
    write_file(file("manifest.json"), seal_manifest(files));
    return lockstep("fit job.yaml --output run --resume --set hyperparameters.steps=6 " + options);
  }

  json meta_;
};

TEST_F(DamagedMetaTest, EveryKeyThatIsMissingIsNamed) {
  for (const char* key : {"step", "batches_tracked", "samples_seen", "seconds", "training_seconds", "kernels",
                          "bit_exact", "best_folder", "data", "job"}) {
    ASSERT_TRUE(meta_.contains(key)) << key;
    json meta = meta_;
    meta.erase(key);
    // Without "job" it is an earlier version's, which had "trajectory".
    expect(resume_with(meta), Exit::data, "meta.json", std::string(key) == "job" ? "trajectory" : key);
  }
  for (const char* path : {"/lr/steps", "/lr/next", "/lr/last", "/stop/without_better",
                           "/data/inputs.training/classes", "/data/inputs.training/content"}) {
    const json::json_pointer pointer(path);
    ASSERT_TRUE(meta_.contains(pointer)) << path;
    json meta = meta_;
    meta[pointer.parent_pointer()].erase(pointer.back());
    expect(resume_with(meta), Exit::data, "E_JSON", "step-00000004/meta.json", pointer.back());
  }
}

TEST_F(DamagedMetaTest, EveryKeyOfAnotherTypeIsNamed) {
  const json wrong = json::array({3});  // is of none of the types
  for (const char* key : {"step", "batches_tracked", "samples_seen", "seconds", "training_seconds", "kernels",
                          "bit_exact", "best", "best_folder", "data", "job", "lr", "stop", "init_from"}) {
    json meta = meta_;
    meta[key] = wrong;
    expect(resume_with(meta), Exit::data, "meta.json", key);
  }
  for (const char* path : {"/lr/steps", "/stop/best", "/stop/reason", "/data/inputs.training",
                           "/data/inputs.training/classes", "/kernels/some", "/job/some"}) {
    json meta = meta_;
    const json::json_pointer pointer(path);
    meta[pointer] = wrong;
    const bool is_whole =
        pointer.parent_pointer().back() == "kernels" || pointer.parent_pointer().back() == "job";
    expect(resume_with(meta), Exit::data, "E_JSON", "meta.json",
           is_whole ? pointer.parent_pointer().back() : pointer.back());
  }
  json changes = meta_;
  changes["changes"] = "none";
  expect(resume_with(changes, "--set hyperparameters.optimizer.lr=0.02 --allow-change hyperparameters"),
         Exit::data, "E_JSON", "key=changes");
  json step = meta_;
  step["step"] = -4;
  expect(resume_with(step), Exit::data, "E_CKPT_META", "meta.json");
  expect(resume_with(meta_), Exit::ok);
}

// Several ranks say it once.
TEST_F(DamagedMetaTest, OnTwoRanks) {
  meta_["seconds"] = "long";
  const Outcome o = resume_with(meta_, "--set instance_count=2");
  expect(o, Exit::data, "E_JSON", "step-00000004/meta.json", "key=seconds");
  EXPECT_EQ(o.text.find("E_JSON"), o.text.rfind("E_JSON")) << o.text;
}

// Its seal is right; what it lists has no form.
TEST_F(DamagedMetaTest, AManifestOfAnotherForm) {
  const json files = json::parse(read_file(file("manifest.json")))["files"];
  const auto resume_with_files = [&](const json& listed) {
    write_file(file("manifest.json"), seal_manifest(listed));
    return lockstep("fit job.yaml --output run --resume --set hyperparameters.steps=6");
  };
  for (const json& listed : {json(3), json::array({"meta.json"}), json::object()})
    expect(resume_with_files(listed), Exit::data, "step-00000004");
  for (const auto& [name, entry] : files.items())
    for (const json& other : {json(3), json(nullptr), json{{"bytes", "x"}, {"tensors", 3}}}) {
      json listed = files;
      listed[name] = other;
      expect(resume_with_files(listed), Exit::data, "step-00000004", name);
    }
}

}  // namespace
}  // namespace lockstep::testing
