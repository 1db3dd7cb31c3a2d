// SPDX-License-Identifier: Apache-2.0
// A trained model without its data and its job: by the program, as a user has it.
#include <fmt/format.h>

#include <filesystem>

#include "tests/distributed/colours.h"
#include "tests/distributed/fit.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing::portable_run_test {
namespace {

namespace fs = std::filesystem;

const char* const kColourJob = R"(job_name: colours
device: cpu
threads_per_rank: 1
model: {layers: [flatten, {linear: {out_features: 3}}]}
inputs:
  training: {dataset: image_folder, path: data}
  test: {dataset: image_folder, path: data}
hyperparameters: {epochs: 30, global_batch_size: 6, optimizer: {name: adam, lr: 0.05}, seed: 1}
)";

class PortableRun : public ::testing::Test {
 protected:
  PortableRun() {
    write_colours(folder_.file("data"), {"blue", "green", "red"});
    write_file(folder_.file("job.yaml"), kColourJob);
  }
  std::string train() {
    EXPECT_TRUE(fit(folder_.file("job.yaml"), folder_.file("run"), {}));
    return folder_.file("run");
  }
  Ended lockstep(std::vector<std::string> words, int ranks = 1) const {
    words.insert(words.begin(), LOCKSTEP_BINARY);
    if (ranks > 1) words = mpirun(ranks, words);
    auto environment = environment_;
    environment.emplace("XDG_CACHE_HOME", folder_.file("cache"));
    return run(words, environment);
  }
  std::string picture(const std::string& of) const { return folder_.file("data/test/" + of + "/1.png"); }
  static void expect_says(const Ended& e, int code, const std::string& text) {
    EXPECT_EQ(e.code, code) << e.output;
    EXPECT_NE(e.output.find(text), std::string::npos) << e.output;
  }
  TestFolder folder_;
  std::map<std::string, std::string> environment_;
};

TEST_F(PortableRun, NamesClassesAsItWasTrainedWhateverBecomesOfTheData) {
  const std::string path = train();
  fs::copy(picture("green"), folder_.file("green.png"));
  const Ended before = lockstep({"predict", path, folder_.file("green.png"), "--json"});
  expect_says(before, 0, "\"class\":\"green\"");
  fs::rename(folder_.file("data/train/blue"), folder_.file("data/train/zebra"));
  EXPECT_EQ(lockstep({"predict", path, folder_.file("green.png"), "--json"}).output, before.output);
  fs::rename(folder_.file("data"), folder_.file("elsewhere"));
  fs::copy(path, folder_.file("copied"), fs::copy_options::recursive);
  fs::remove_all(path);
  EXPECT_EQ(lockstep({"predict", folder_.file("copied"), folder_.file("green.png"), "--json"}).output,
            before.output);
  // A checkpoint says it too, on its own.
  fs::copy(folder_.file("copied/checkpoints/step-00000030"), folder_.file("checkpoint"));
  EXPECT_EQ(lockstep({"predict", folder_.file("checkpoint"), folder_.file("green.png"), "--json"}).output,
            before.output);
  expect_says(lockstep({"evaluate", folder_.file("copied"), "--data", folder_.file("elsewhere")}), 0,
              "accuracy 100.00% (6 of 6 images)");
  expect_says(lockstep({"evaluate", folder_.file("checkpoint"), "--data", folder_.file("elsewhere")}), 0,
              "accuracy 100.00% (6 of 6 images)");
  expect_says(lockstep({"evaluate", folder_.file("checkpoint")}), 66, "--data FOLDER");
  expect_says(lockstep({"evaluate", folder_.file("copied")}), 66, "data");
}

// A folder may be called anything; a line stays a line.
TEST_F(PortableRun, ClassesOfAnyName) {
  const std::vector<std::string> names = {"a\n\"b\\", "c\x01\x7f", "\xc2\xa0"};
  fs::remove_all(folder_.file("data"));
  write_colours(folder_.file("data"), names);
  const std::string path = train();
  for (const std::string& name : names) {
    const Ended e = lockstep({"predict", path, picture(name), "--json"});
    ASSERT_EQ(e.code, 0) << e.output;
    EXPECT_EQ(nlohmann::json::parse(e.output).at("class"), name) << e.output;
  }
  expect_says(lockstep({"predict", path, picture(names[0]), "--top", "1"}), 0, ": a\\x0a\"b\\  (a\\x0a");
  expect_says(lockstep({"evaluate", path}), 0, "accuracy 100.00% (6 of 6 images)");
}

TEST_F(PortableRun, HoldsADataSetAgainstTheModel) {
  const std::string path = train();
  const auto evaluate = [&](const std::string& data) {
    return lockstep({"evaluate", path, "--data", folder_.file(data)});
  };
  write_colours(folder_.file("larger"), {"blue", "green", "red"}, 28);
  expect_says(evaluate("larger"), 65, "E_DATA_SHAPE");
  write_colours(folder_.file("smaller"), {"blue", "green", "red"}, 1);
  expect_says(evaluate("smaller"), 65, "E_DATA_SHAPE");
  write_colours(folder_.file("unknown"), {"blue", "yak"});
  expect_says(evaluate("unknown"), 65, "\"yak\" is not among the classes");
  // Pictures of one class, by the wrong folder: their labels would be the first class's.
  expect_says(evaluate("data/test/blue"), 65, "in no folders of classes");
  expect_says(evaluate("data/test/green"), 65, "in no folders of classes");
  expect_says(evaluate("data/test/blue/1.png"), 66, "expected a folder, found a file");
  // Classes by name, though their numbers differ: green and red are 1 and 2 of the model.
  write_colours(folder_.file("fewer"), {"grey", "green", "red"});
  for (const char* half : {"/train/grey", "/test/grey"}) fs::remove_all(folder_.file("fewer") + half);
  const Ended fewer = evaluate("fewer");
  expect_says(fewer, 0, "accuracy 100.00% (4 of 4 images)");
  expect_says(fewer, 0, "no images of \"blue\"");
  // The job's own test half, exchanged.
  fs::rename(folder_.file("data/test"), folder_.file("old"));
  fs::rename(folder_.file("smaller/test"), folder_.file("data/test"));
  expect_says(lockstep({"evaluate", path}), 65, "E_DATA_SHAPE");
  expect_says(lockstep({"evaluate", path}), 65, "key=inputs.test");
  // Nor does a job take such a half.
  for (const std::string command : {"check", "fit"})
    expect_says(lockstep({command, folder_.file("job.yaml"), "--set",
                          "inputs.test.path=" + folder_.file("old/blue")}),
                65, "E_DATA_CLASSES] file=" + folder_.file("old/blue") + " job=");
}

TEST_F(PortableRun, ExportedWeightsAreProtectedByTheirHash) {
  const std::string path = train(), weights = path + "/model.safetensors";
  const auto size = fs::file_size(weights);
  const char last = read_file(weights).back();
  overwrite_byte(weights, size - 1, static_cast<char>(last ^ 1));
  expect_says(lockstep({"predict", path, picture("red")}), 65, "E_WEIGHTS_HASH");
  expect_says(lockstep({"evaluate", path}), 65, "E_WEIGHTS_HASH");
  expect_says(lockstep({"fit", folder_.file("job.yaml"), "--output", folder_.file("next"), "--set",
                        "model.init_from=" + path}),
              65, "E_WEIGHTS_HASH");
  overwrite_byte(weights, size - 1, last);
  expect_says(lockstep({"predict", path, picture("red")}), 0, "red");
  // What a crash between the two leaves: the description knows the old file and the new one.
  auto j = nlohmann::json::parse(read_file(path + "/model.json"));
  j["weights"]["model.safetensors"].insert(j["weights"]["model.safetensors"].begin(), std::string(64, '0'));
  write_file(path + "/model.json", j.dump());
  expect_says(lockstep({"predict", path, picture("red")}), 0, "red");
  auto other = j;
  other["model"]["layers"][1]["linear"]["out_features"] = 4;
  write_file(path + "/model.json", other.dump());
  expect_says(lockstep({"predict", path, picture("red")}), 78, "E_SHAPE] folder=" + path);
  j["format_version"] = 7;
  write_file(path + "/model.json", j.dump());
  expect_says(lockstep({"predict", path, picture("red")}), 65, "format_version 7");
}

TEST_F(PortableRun, RunsOfBeforeAreOpenedByTheirJob) {
  const std::string path = train();
  const Ended now = lockstep({"evaluate", path, "--json"});
  fs::remove(path + "/model.json");
  const Ended before = lockstep({"evaluate", path, "--json"});
  EXPECT_EQ(before.code, 0) << before.output;
  EXPECT_NE(before.output.find("has no model.json"), std::string::npos) << before.output;
  EXPECT_NE(before.output.find(now.output), std::string::npos) << before.output << now.output;
}

TEST_F(PortableRun, PredictGoesOnAfterAPictureThatItCannotUse) {
  const std::string path = train();
  write_file(folder_.file("broken.png"), "no picture");
  const Ended e = lockstep({"predict", path, picture("red"), folder_.file("broken.png"),
                            folder_.file("none.png"), picture("blue")});
  expect_says(e, 65, "red/1.png: red");
  expect_says(e, 65, "blue/1.png: blue");
  expect_says(e, 65, "broken.png");
  expect_says(e, 65, "none.png");
}

TEST_F(PortableRun, SeveralRanksShareTheWorkAndSayItOnce) {
  const std::string path = train();
  const std::vector<std::string> ask = {"predict",       path,    picture("red"), picture("green"),
                                        picture("blue"), "--json"};
  EXPECT_EQ(lockstep(ask, 2).output, lockstep(ask).output);
  EXPECT_EQ(lockstep({"evaluate", path, "--json"}, 2).output, lockstep({"evaluate", path, "--json"}).output);
  write_file(folder_.file("broken.png"), "no picture");
  for (int ranks : {1, 2}) {
    EXPECT_EQ(lockstep({"predict", path, folder_.file("broken.png"), folder_.file("none.png")}, ranks).code,
              65);
    EXPECT_EQ(lockstep({"predict", path, folder_.file("none.png"), folder_.file("broken.png")}, ranks).code,
              66);
  }
  expect_says(lockstep({"evaluate", folder_.file("nothing")}, 2), 66, "no such run or folder");
}

// A launcher ends all ranks when the first one leaves with a failure: none leaves before rank 0 has said why.
TEST_F(PortableRun, RankZeroHasSpokenBeforeAnyRankLeaves) {
  const std::string path = train();
  write_file(folder_.file("broken.png"), "no picture");
  environment_ = {{"LD_PRELOAD", LOCKSTEP_SLOW_CALLS},
                  {"ASAN_OPTIONS", "verify_asan_link_order=0"},
                  {"LOCKSTEP_TEST_LEAVE_SECONDS", "3"}};
  expect_says(lockstep({"evaluate", folder_.file("nothing")}, 2), 66, "no such run or folder");
  const Ended e = lockstep({"predict", path, picture("red"), folder_.file("broken.png")}, 2);
  expect_says(e, 65, "red/1.png: red");
  expect_says(e, 65, "broken.png");
}

// Each answers for a part: two models, or two sets, would make one number of both.
TEST_F(PortableRun, RanksThatShareTheWorkHaveOneModelAndOneSet) {
  const std::string path = train();
  ASSERT_TRUE(fit(folder_.file("job.yaml"), folder_.file("run1"), {"hyperparameters.seed=2"}));
  fs::rename(path, folder_.file("run0"));
  const auto on_ranks = [&](const std::string& words) {
    const std::string program = LOCKSTEP_BINARY;
    return run(mpirun(2, {"sh", "-c", "cd " + folder_.path() + "; exec " + program + " " + words}),
               {{"XDG_CACHE_HOME", folder_.file("cache")}});
  };
  const std::string mine = "$OMPI_COMM_WORLD_RANK";
  expect_says(on_ranks("predict run" + mine + " data/test/red/1.png data/test/blue/1.png"), 76,
              "the weights (");
  expect_says(on_ranks("evaluate run" + mine), 76, "the weights (");
  write_colours(folder_.file("data0"), {"blue", "green", "red"});
  write_colours(folder_.file("data1"), {"blue", "red"});
  expect_says(on_ranks("evaluate run0 --data data" + mine), 76, "the images differs: content ");
  expect_says(on_ranks("evaluate run0 --data data0"), 0, "accuracy 100.00% (6 of 6 images)");
}

}  // namespace
}  // namespace lockstep::testing::portable_run_test
