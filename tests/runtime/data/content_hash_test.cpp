// SPDX-License-Identifier: Apache-2.0
// The hash of a set follows what it holds, and nothing else.
#include <gtest/gtest.h>

#include <filesystem>

#include "runtime/data/fit.h"
#include "tests/support/own_cache.h"
#include "tests/support/temporary_folder.h"

namespace lockstep {
namespace {

namespace fs = std::filesystem;

class ContentHash : public ::testing::Test {
 protected:
  void put(const std::string& name, uint8_t grey) const {
    fs::create_directories(fs::path(folder.file(name)).parent_path());
    write_png(folder.file(name), {1, 2, 2, {grey, 20, 30, 40}});
  }
  std::shared_ptr<const ImageSet> load(const std::string& set, const DatasetShape* like = nullptr) const {
    DatasetConfig c;
    c.dataset = "image_folder";
    c.path = folder.file(set);
    c.split = "training";
    return load_dataset(c, 1, like);
  }
  std::string hash(const std::string& set) const { return load(set)->content_hash; }

  testing::TestFolder folder;
  testing::OwnCache cache;
};

TEST_F(ContentHash, FollowsPixelsLabelsAndClassNamesAndNotThePath) {
  for (const std::string set : {"one/", "other/place/"})
    put(set + "cat/1.png", 10), put(set + "cat/2.png", 11), put(set + "dog/1.png", 12);
  const std::string first = hash("one");
  EXPECT_EQ(first.size(), 64u);
  EXPECT_EQ(hash("other/place"), first);

  put("pixel/cat/1.png", 10), put("pixel/cat/2.png", 11), put("pixel/dog/1.png", 13);
  EXPECT_NE(hash("pixel"), first);
  put("label/cat/1.png", 10), put("label/dog/0.png", 11), put("label/dog/1.png", 12);
  EXPECT_NE(hash("label"), first);
  put("name/cat/1.png", 10), put("name/cat/2.png", 11), put("name/fox/1.png", 12);
  EXPECT_NE(hash("name"), first);
  put("swapped/dog/1.png", 10), put("swapped/dog/2.png", 11), put("swapped/cat/1.png", 12);
  EXPECT_NE(hash("swapped"), first);
}

TEST_F(ContentHash, StaysWhatWasReadWhateverIsMadeOfTheSet) {
  put("set/dog/1.png", 10), put("set/dog/2.png", 11);
  const auto plain = load("set");
  const DatasetShape like{2, 3, 2, 2, 2, {"cat", "dog"}, {}};
  const auto mapped = load("set", &like);
  EXPECT_EQ(mapped->labels[0], 1);
  EXPECT_EQ(mapped->channels, 3);
  EXPECT_EQ(mapped->content_hash, plain->content_hash);
  EXPECT_EQ(middle_of("set", *plain, {1, 1})->content_hash, plain->content_hash);
}

}  // namespace
}  // namespace lockstep
