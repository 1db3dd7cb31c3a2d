// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "tests/support/files.h"
#include "tests/support/temporary_folder.h"

namespace lockstep {
namespace {

namespace fs = std::filesystem;

// Sources younger than that are not cached, as a second change could look like none.
void let_sources_settle() { std::this_thread::sleep_for(std::chrono::milliseconds(150)); }

class Cache : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : {"XDG_CACHE_HOME", "HOME"})
      if (const char* old = std::getenv(name)) before[name] = old;
    ::setenv("XDG_CACHE_HOME", folder.file("cache").c_str(), 1);
    testing::write_file(source, "source");
    let_sources_settle();
  }
  void TearDown() override {
    ::unsetenv("XDG_CACHE_HOME");
    for (const auto& [name, value] : before) ::setenv(name.c_str(), value.c_str(), 1);
  }
  ImageSet set(int64_t count = 1300) const {
    ImageSet s;
    s.channels = 1, s.height = s.width = 29, s.classes = 3;
    s.class_names = {"a", "", "c"};
    s.skipped = {"d: damaged", ""};
    s.captions = {{"a red \"cube\"", std::string("z\0ro", 4)}, {"caf\u00e9"}};
    s.captions.resize(static_cast<size_t>(count), {"x"});
    for (int64_t i = 0; i < count; ++i) s.labels.push_back(static_cast<int32_t>(i % 3));
    s.pixels.resize(static_cast<size_t>(count * 29 * 29));
    for (size_t i = 0; i < s.pixels.size(); ++i) s.pixels[i] = static_cast<uint8_t>(i * 7);
    s.content_hash = std::string(64, 'f');
    return s;
  }
  DatasetCache cache() const { return {"x", "plain", {source}}; }
  std::string file() const {
    for (const auto& entry : fs::directory_iterator(folder.file("cache/lockstep")))
      return entry.path().string();
    return "";
  }

  testing::TestFolder folder;
  std::string source = folder.file("source");
  std::map<std::string, std::string> before;
};

TEST_F(Cache, GivesBackWhatWasStored) {
  EXPECT_FALSE(cache().load());
  const ImageSet stored = set();
  cache().store(stored);
  const auto loaded = cache().load();
  ASSERT_TRUE(loaded);
  EXPECT_EQ(loaded->channels, 1);
  EXPECT_EQ(loaded->height, 29);
  EXPECT_EQ(loaded->width, 29);
  EXPECT_EQ(loaded->classes, 3);
  EXPECT_EQ(loaded->class_names, stored.class_names);
  EXPECT_EQ(loaded->labels, stored.labels);
  EXPECT_EQ(loaded->content_hash, stored.content_hash);
  EXPECT_TRUE(std::equal(loaded->pixels.begin(), loaded->pixels.end(), std::as_const(stored).pixels.begin(),
                         std::as_const(stored).pixels.end()));
  EXPECT_EQ(loaded->skipped, stored.skipped);
  EXPECT_EQ(loaded->captions, stored.captions);
  EXPECT_FALSE(DatasetCache("y", "plain", {source}).load());
  EXPECT_FALSE(DatasetCache("x", "other", {source}).load());
}

TEST_F(Cache, AChangedSourceIsReadAgain) {
  cache().store(set());
  EXPECT_TRUE(cache().load());
  testing::write_file(source, "sourcf");  // as long as before
  EXPECT_FALSE(cache().load());
  let_sources_settle();
  cache().store(set());
  EXPECT_TRUE(cache().load());
  // Replaced by another file with the same size and time.
  testing::write_file(folder.file("other"), "sourcg");
  fs::last_write_time(folder.file("other"), fs::last_write_time(source));
  fs::rename(folder.file("other"), source);
  EXPECT_FALSE(cache().load());
  fs::remove(source);
  EXPECT_FALSE(cache().load());
}

TEST_F(Cache, AYoungSourceIsNotStored) {
  testing::write_file(source, "young");
  cache().store(set());
  EXPECT_FALSE(fs::exists(folder.file("cache/lockstep")));
}

TEST_F(Cache, ASmallSetIsNotStored) {
  cache().store(set(10));
  EXPECT_FALSE(fs::exists(folder.file("cache/lockstep")));
}

TEST_F(Cache, DamageAnywhereIsFound) {
  cache().store(set());
  const std::string path = file(), good = testing::read_file(path);
  std::vector<size_t> places;
  for (size_t i = 0; i < 320; ++i) places.push_back(i);  // header, names, first labels
  for (size_t i = 320; i < good.size(); i += 4999) places.push_back(i);
  places.push_back(good.size() - 1);
  for (size_t i : places) {
    testing::overwrite_byte(path, i, static_cast<char>(good[i] ^ 0x40));
    EXPECT_FALSE(cache().load()) << i;
    testing::overwrite_byte(path, i, good[i]);
  }
  EXPECT_TRUE(cache().load());
  for (size_t n : {size_t{0}, size_t{1}, size_t{100}, size_t{300}, good.size() / 2, good.size() - 1}) {
    testing::write_file(path, good.substr(0, n));
    EXPECT_FALSE(cache().load()) << n;
  }
  testing::write_file(path, good + "x");
  EXPECT_FALSE(cache().load());
  cache().store(set());  // rebuilt
  EXPECT_TRUE(cache().load());
}

// Other processes may write at the same time: what has lain there for a day is nobody's.
TEST_F(Cache, WhatDeadWritersLeftGoesAfterADay) {
  cache().store(set());
  const std::string home = folder.file("cache/lockstep"), young = home + "/.tmp-a.images-1",
                    old = home + "/.tmp-b.images-2", other = home + "/.tmp-c";
  for (const std::string& path : {young, old, other}) testing::write_file(path, "");
  for (const std::string& path : {old, other})
    fs::last_write_time(path, fs::file_time_type::clock::now() - std::chrono::hours(25));
  cache().store(set());
  EXPECT_TRUE(fs::exists(young));
  EXPECT_FALSE(fs::exists(old));
  EXPECT_TRUE(fs::exists(other));
}

TEST_F(Cache, WhatNoRunHasUsedForMonthsGoes) {
  const DatasetCache used("used", "plain", {source}), gone("gone", "plain", {source});
  used.store(set());
  gone.store(set());
  const std::string home = folder.file("cache/lockstep"), latents = home + "/latents-1.safetensors",
                    young = home + "/latents-2.safetensors", choices = home + "/kernels.json";
  for (const std::string& path : {latents, young, choices}) testing::write_file(path, "");
  const auto now = fs::file_time_type::clock::now();
  for (const auto& entry : fs::directory_iterator(home))
    fs::last_write_time(entry, now - std::chrono::hours(91 * 24));
  fs::last_write_time(young, now - std::chrono::hours(89 * 24));
  EXPECT_TRUE(used.load());  // now it is young again
  cache().store(set());
  EXPECT_TRUE(used.load());
  EXPECT_FALSE(gone.load());
  EXPECT_FALSE(fs::exists(latents));
  EXPECT_TRUE(fs::exists(young));
  EXPECT_TRUE(fs::exists(choices));
}

TEST_F(Cache, WorksWithoutAPlaceToWrite) {
  testing::write_file(folder.file("cache"), "a file where the folder must be");
  cache().store(set());
  EXPECT_FALSE(cache().load());
  ::unsetenv("XDG_CACHE_HOME");
  ::unsetenv("HOME");
  cache().store(set());
  EXPECT_FALSE(cache().load());
}

TEST_F(Cache, HomeIsTheOtherPlace) {
  ::unsetenv("XDG_CACHE_HOME");
  ::setenv("HOME", folder.path().c_str(), 1);
  cache().store(set());
  EXPECT_TRUE(fs::exists(folder.file(".cache/lockstep")));
  EXPECT_TRUE(cache().load());
}

TEST_F(Cache, AMappedSetOutlivesItsReplacement) {
  cache().store(set());
  const auto loaded = cache().load();
  cache().store(set(1400));
  fs::remove_all(folder.file("cache"));
  EXPECT_EQ(loaded->image(1299)[0], static_cast<uint8_t>(1299 * 29 * 29 * 7));
}

}  // namespace
}  // namespace lockstep
