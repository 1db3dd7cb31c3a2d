// SPDX-License-Identifier: Apache-2.0
// Decoded sets on disk, mapped instead of decoded again: $XDG_CACHE_HOME/lockstep or ~/.cache/lockstep, one
// file for each list of source files and way to read them, replaced when a source changes. Inflating MNIST
// takes 100 ms, mapping it 5.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/data/dataset.h"

namespace lockstep {

// $XDG_CACHE_HOME/lockstep or ~/.cache/lockstep; "" where there is no home.
std::string cache_folder();
inline constexpr std::string_view kLatentsFiles = "latents-";  // what names of latents there begin with
// Makes that folder, and removes decoded sets and latents from it that no run has used for 90 days: their sources may be long
// gone. Errors: those of make_folders().
void make_cache_folder(const std::string& folder);
// A run uses that file of it. The file's time says so.
void note_use(const std::string& file);

class DatasetCache {
 public:
  // sources: every file that the set is read from. They are only looked at, not opened. options: what else
  // decides what is read from them.
  DatasetCache(const std::string& dataset, const std::string& options,
               const std::vector<std::string>& sources);
  // The set as it was stored, unless a source has changed since (device, inode, size, time of modification or
  // of status change) or the cache file is damaged in any bit.
  std::optional<ImageSet> load() const;
  // Appears all at once. That it cannot be written costs the next run time and nothing else, so it is no
  // error. Not stored: less than 1 MB of pixels, and sources younger than the clock of a file system can
  // tell.
  void store(const ImageSet& set) const;

 private:
  std::string folder_, file_;  // empty: no cache
  std::string state_;          // hash of what the sources look like
  bool settled_ = true;
};

}  // namespace lockstep
