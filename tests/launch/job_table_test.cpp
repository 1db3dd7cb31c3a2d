// SPDX-License-Identifier: Apache-2.0
// The table itself: each row's example is good, each wrong type is refused, and the reference says it all.
#include <filesystem>
#include <random>
#include <set>

#include "launch/job/keys.h"
#include "launch/job/reader.h"
#include "tests/launch/job_support.h"

namespace lockstep::testing {
namespace {

// Every table with an object that its slots fit.
template <class Visit>
void for_each_table(const Visit& visit) {
  Job job;
  DatasetConfig dataset;
  ParamGroupConfig group;
  visit("job", job::job_keys(), &job);
  visit("dataset", job::dataset_keys(), &dataset);
  visit("augment", job::augment_keys(), &dataset);
  visit("group", job::group_keys(), &group);
  for (const job::LayerWord& word : job::layer_words()) {
    LayerSpec layer = word.prototype;
    visit(word.word, word.keys, &layer);
  }
}

std::optional<Error> read_as(const job::Key& key, void* object, const std::string& text) {
  return error_of([&] {
    job::Reader reader("/jobs");
    const job::Node node = job::parse_yaml(text, "test.yaml", true);
    reader.read_value(key, node, key.slot(object), key.path);
  });
}

// Texts of other types than the key's.
std::vector<std::string> wrong_values(const job::Key& key, const job::Slot& slot) {
  std::vector<std::string> wrong = {"~", "{a: 1}", ".nan", "-.inf", "nan"};
  const auto add = [&](std::initializer_list<const char*> more) {
    wrong.insert(wrong.end(), more.begin(), more.end());
  };
  const bool map = std::holds_alternative<DatasetConfig*>(slot) ||
                   std::holds_alternative<std::optional<DatasetConfig>*>(slot);
  if (std::holds_alternative<bool*>(slot)) {
    add({"yes", "1", "\"true\"", "[true]", "TRUE"});
  } else if (std::holds_alternative<std::string*>(slot)) {
    add({"1", "1.5", "true", "[a]", "\"\""});
  } else if (map) {
    add({"a", "1", "[]", "{dataset: mnist}"});
  } else if (std::holds_alternative<std::vector<LayerSpec>*>(slot)) {
    add({"relu", "1", "[]", "[no_layer]", "[{relu: {}, tanh: {}}]"});
  } else if (std::holds_alternative<std::vector<ParamGroupConfig>*>(slot)) {
    add({"a", "1", "[1]", "[{}]"});
  } else if (std::holds_alternative<std::vector<std::string>*>(slot)) {
    add({"a", "1", "[1]", "[]", "[[a]]"});
  } else {
    add({"abc", "true", "\"1\"", "010", "1_0", "0x1", "[a]", "[]", "[1, 1, 1, x]"});
  }
  if (!key.choices.empty()) add({"no_such_word"});
  // A word like nan is a fine string, path or name.
  const bool free_text = std::holds_alternative<std::string*>(slot) && key.choices.empty();
  if (free_text)
    std::erase_if(wrong,
                  [](const std::string& text) { return text == ".nan" || text == "-.inf" || text == "nan"; });
  return wrong;
}

TEST(JobTable, ExamplesReadAndWrongTypesAreRefused) {
  int refused = 0;
  for_each_table([&](const std::string& name, const job::Table& table, void* object) {
    std::set<std::string> paths;
    for (const job::Key& key : table) {
      SCOPED_TRACE(name + " " + key.path);
      EXPECT_TRUE(paths.insert(key.path).second) << "two rows";
      EXPECT_FALSE(key.help.empty());
      EXPECT_FALSE(key.example.empty());
      const auto bad_example = read_as(key, object, key.example);
      EXPECT_FALSE(bad_example) << bad_example->what();
      for (const std::string& text : wrong_values(key, key.slot(object))) {
        const auto error = read_as(key, object, text);
        EXPECT_TRUE(error) << "accepted " << text;
        if (!error) continue;
        EXPECT_EQ(error->code(), 78) << error->what();
        EXPECT_NE(std::string(error->what()).find("job=test.yaml:1:"), std::string::npos) << error->what();
        EXPECT_NE(std::string(error->what()).find("key=" + key.path), std::string::npos) << error->what();
        ++refused;
      }
    }
  });
  EXPECT_GT(refused, 500);
}

TEST(JobTable, ValuesBeyondTheRangeAreRefused) {
  for_each_table([&](const std::string& name, const job::Table& table, void* object) {
    for (const job::Key& key : table) {
      if (key.range.text().empty() || std::holds_alternative<job::Betas>(key.slot(object))) continue;
      SCOPED_TRACE(name + " " + key.path + " " + key.range.text());
      const auto refused = [&](double value) {
        return read_as(key, object, fmt::format("{}", value)).has_value();
      };
      EXPECT_TRUE(refused(key.range.min - 1));
      EXPECT_EQ(refused(key.range.min), key.range.open_min);
      if (key.range.max > 1e6) continue;
      EXPECT_TRUE(refused(key.range.max + 1));
      EXPECT_EQ(refused(key.range.max), key.range.open_max);
    }
  });
}

// The same through the whole reader: each key of a job file set to a list of maps, which none takes.
TEST(JobTable, EveryKeyIsRefusedInTheFileToo) {
  JobFolder folder;
  for (const job::Key& key : job::job_keys()) {
    SCOPED_TRACE(key.path);
    const auto error = error_of([&] { folder.read(kSmallJob, {key.path + "=[{a: {b: 1}}]"}); });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->code(), 78);
    EXPECT_NE(std::string(error->what()).find("--set " + key.path), std::string::npos) << error->what();
  }
}

TEST(JobTable, ReferenceNamesEveryKey) {
  const std::string text = key_reference(false), markdown = key_reference(true);
  for_each_table([&](const std::string&, const job::Table& table, void*) {
    for (const job::Key& key : table) {
      EXPECT_NE(text.find(key.path), std::string::npos) << key.path;
      EXPECT_NE(markdown.find(key.path + "`"), std::string::npos) << key.path;
    }
  });
  for (const job::RefusedKey& row : job::refused_keys())
    EXPECT_NE(text.find(row.name), std::string::npos) << row.name;
  EXPECT_NE(markdown.find("| `hyperparameters.optimizer.lr` | number, 0..1000000 | required |"),
            std::string::npos);
  EXPECT_NE(markdown.find("| `instance_count` | integer, 1..65536 | 1 |"), std::string::npos);
  EXPECT_NE(markdown.find("| `conv2d.stride` | integer or [height, width], 1..65535 | [1, 1] |"),
            std::string::npos);
}

TEST(JobTable, DocumentationHoldsTheReference) {
  const std::string page = read_file(LOCKSTEP_SOURCE_DIR "/docs/job-keys.md");
  const std::string begin = "<!-- job keys begin -->\n", end = "<!-- job keys end -->";
  const size_t from = page.find(begin), to = page.find(end);
  ASSERT_NE(from, std::string::npos);
  ASSERT_NE(to, std::string::npos);
  EXPECT_EQ(page.substr(from + begin.size(), to - from - begin.size()), key_reference(true))
      << "put the output of `lockstep fit --help-keys-markdown` between the markers";
}

// Damaged text: a job or a clean refusal, never anything else. Fixed seed: the same texts every time.
TEST(JobFuzz, MutatedBytesGiveAJobOrAConfigError) {
  JobFolder folder;
  const std::string sample = read_file(LOCKSTEP_SOURCE_DIR "/configs/mnist_layers.yaml");
  std::mt19937 random(7);
  const std::string alphabet = "{}[]:,-?&*!|>'\"%@`#~\n \t\r\\.0129eEabx_<=\xc3\xa9\xff";
  const auto pick = [&](size_t below) { return static_cast<size_t>(random()) % below; };
  int jobs = 0, errors = 0;
  for (int round = 0; round < 800; ++round) {
    std::string text = round % 2 ? sample : kSmallJob;
    for (size_t i = 0, changes = 1 + pick(4); i < changes; ++i) {
      const size_t at = pick(text.size());
      switch (pick(4)) {
        case 0:
          text[at] = alphabet[pick(alphabet.size())];
          break;
        case 1:
          text.insert(at, 1, alphabet[pick(alphabet.size())]);
          break;
        case 2:
          text.erase(at, 1 + pick(10));
          break;
        case 3:
          text.insert(at, text.substr(pick(text.size()), pick(40)));
          break;
      }
    }
    try {
      const Job job = folder.read(text);
      ++jobs;
      // What was accepted can be written and read again.
      EXPECT_EQ(to_yaml(folder.read(to_yaml(job))), to_yaml(job)) << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), 78) << error.what() << "\n" << text;
      EXPECT_NE(std::string(error.what()).find(folder.file() + ":"), std::string::npos) << error.what();
      ++errors;
    } catch (const std::exception& other) {
      ADD_FAILURE() << other.what() << "\n" << text;
    }
  }
  EXPECT_GT(jobs, 50) << "most mutations would be refused by an over-eager reader";
  EXPECT_GT(errors, 300);
}

}  // namespace
}  // namespace lockstep::testing
